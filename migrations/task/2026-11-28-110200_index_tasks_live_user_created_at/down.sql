-- Nothing is lost but the index.
DROP INDEX CONCURRENTLY IF EXISTS idx_tasks_live_user_created_at;
