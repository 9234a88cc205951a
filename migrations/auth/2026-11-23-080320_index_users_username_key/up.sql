-- Alone in its migration and outside a transaction: writers go on while it is built.
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS users_username_key_key ON users (username_key);
