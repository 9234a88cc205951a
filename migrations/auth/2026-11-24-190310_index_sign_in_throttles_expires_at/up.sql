CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_sign_in_throttles_expires_at ON sign_in_throttles (expires_at);
