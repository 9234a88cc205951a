-- Who has changed anything since a snapshot, and what is old.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_task_changes_xact ON task_changes (xact, user_id);
