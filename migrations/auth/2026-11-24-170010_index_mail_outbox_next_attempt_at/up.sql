CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_mail_outbox_next_attempt_at ON mail_outbox (next_attempt_at);
