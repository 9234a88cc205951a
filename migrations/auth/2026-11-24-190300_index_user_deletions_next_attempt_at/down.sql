-- Nothing is lost but the index.
DROP INDEX CONCURRENTLY IF EXISTS idx_user_deletions_next_attempt_at;
