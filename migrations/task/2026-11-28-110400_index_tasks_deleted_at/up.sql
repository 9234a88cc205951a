-- Deleted tasks whose time is over.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_tasks_deleted_at ON tasks (deleted_at) WHERE deleted_at IS NOT NULL;
