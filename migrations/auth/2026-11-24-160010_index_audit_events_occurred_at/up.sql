CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_audit_events_occurred_at ON audit_events (occurred_at, id);
