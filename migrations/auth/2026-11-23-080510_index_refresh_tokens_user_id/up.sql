-- Alone in its migration and outside a transaction: writers go on while it is built.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_refresh_tokens_user_id ON refresh_tokens (user_id);
