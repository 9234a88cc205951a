-- Everybody's tasks in the order of a list: for administrators.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_tasks_live_title ON tasks (("left"(title, 200)) COLLATE "C", id) WHERE deleted_at IS NULL;
