CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_user_deletions_next_attempt_at ON user_deletions (next_attempt_at);
