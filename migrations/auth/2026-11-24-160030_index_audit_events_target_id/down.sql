-- Nothing is lost but the index.
DROP INDEX CONCURRENTLY IF EXISTS idx_audit_events_target_id;
