-- Loses every task.
DROP TABLE IF EXISTS tasks;
