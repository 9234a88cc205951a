-- A hash cannot be turned back, and a session goes with its table.
SELECT 1;
