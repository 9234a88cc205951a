CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_audit_events_actor_id ON audit_events (actor_id, occurred_at, id);
