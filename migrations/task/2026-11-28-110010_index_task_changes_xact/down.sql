-- Nothing is lost but the index.
DROP INDEX CONCURRENTLY IF EXISTS idx_task_changes_xact;
