-- Nothing is lost but the index.
DROP INDEX CONCURRENTLY IF EXISTS idx_sessions_expires_at;
