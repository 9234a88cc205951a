-- One user's tasks in the order of a list, and its ties; the deleted ones are not passed over.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_tasks_live_user_created_at ON tasks (user_id, created_at, id) WHERE deleted_at IS NULL;
