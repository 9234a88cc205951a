DROP INDEX CONCURRENTLY IF EXISTS idx_refresh_tokens_session_id;
