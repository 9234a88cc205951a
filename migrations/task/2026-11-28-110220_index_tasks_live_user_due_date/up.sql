-- One user's tasks in the order of a list, and its ties; the deleted ones are not passed over.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_tasks_live_user_due_date ON tasks (user_id, due_date, id) WHERE deleted_at IS NULL;
