-- Nothing is lost but the index.
DROP INDEX CONCURRENTLY IF EXISTS idx_revocations_forget_at;
