-- What nobody has to remember any more is found without reading the rest.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_revocations_forget_at ON revocations (forget_at);
