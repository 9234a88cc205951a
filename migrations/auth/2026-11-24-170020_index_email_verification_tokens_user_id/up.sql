CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_email_verification_tokens_user_id ON email_verification_tokens (user_id);
