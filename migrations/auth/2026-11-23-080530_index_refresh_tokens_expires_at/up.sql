-- Alone in its migration and outside a transaction: writers go on while it is built.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_refresh_tokens_expires_at ON refresh_tokens (expires_at);
