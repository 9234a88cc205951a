-- Loses the memory of request ids: a repeated call makes a second task.
DROP TABLE IF EXISTS task_requests;
