DROP INDEX CONCURRENTLY IF EXISTS idx_refresh_tokens_user_id;
