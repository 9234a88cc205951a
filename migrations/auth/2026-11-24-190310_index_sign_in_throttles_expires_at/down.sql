-- Nothing is lost but the index.
DROP INDEX CONCURRENTLY IF EXISTS idx_sign_in_throttles_expires_at;
