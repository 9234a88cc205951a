-- Nothing is lost but the index.
DROP INDEX CONCURRENTLY IF EXISTS idx_mail_outbox_next_attempt_at;
