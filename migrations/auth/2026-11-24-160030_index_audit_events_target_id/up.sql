CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_audit_events_target_id ON audit_events (target_id, occurred_at, id);
