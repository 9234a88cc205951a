-- Alone in its migration and outside a transaction: writers go on while it is built.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_tasks_user_due_date ON tasks (user_id, due_date);
