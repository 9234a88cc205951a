DROP INDEX CONCURRENTLY IF EXISTS idx_refresh_tokens_expires_at;
