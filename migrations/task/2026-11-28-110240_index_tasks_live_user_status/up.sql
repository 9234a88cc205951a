-- One user's tasks by status, in the order of a list; with what is counted, so that statistics read the index alone.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_tasks_live_user_status ON tasks (user_id, status, id) INCLUDE (due_date, completed_at) WHERE deleted_at IS NULL;
