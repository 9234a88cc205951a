-- Everybody's tasks in the order of a list: for administrators.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_tasks_live_updated_at ON tasks (updated_at, id) WHERE deleted_at IS NULL;
