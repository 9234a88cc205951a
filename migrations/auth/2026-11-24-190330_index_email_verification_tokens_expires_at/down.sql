-- Nothing is lost but the index.
DROP INDEX CONCURRENTLY IF EXISTS idx_email_verification_tokens_expires_at;
