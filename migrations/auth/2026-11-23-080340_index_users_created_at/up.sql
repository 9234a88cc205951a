-- Alone in its migration and outside a transaction: writers go on while it is built.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_users_created_at ON users (created_at);
