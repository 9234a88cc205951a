-- Everybody's tasks in the order of a list: for administrators.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_tasks_live_due_date ON tasks (due_date, id) WHERE deleted_at IS NULL;
