-- Loses every audit event.
DROP TABLE IF EXISTS audit_events;
DROP FUNCTION IF EXISTS audit_events_are_final();
