DROP INDEX CONCURRENTLY IF EXISTS idx_tasks_user_due_date;
