CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_email_verification_tokens_expires_at ON email_verification_tokens (expires_at);
