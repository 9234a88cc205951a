-- Alone in its migration and outside a transaction: writers go on while it is built.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_refresh_tokens_session_id ON refresh_tokens (session_id);
