-- Who did what, on whom, from where, and how it ended. Written in the transaction of the change it tells of.
-- Nothing here refers to another table: an event outlives the account that it is about.
CREATE TABLE IF NOT EXISTS audit_events (
    id uuid NOT NULL,
    occurred_at timestamptz NOT NULL,
    actor_type character varying(16) NOT NULL,
    actor_id uuid,
    action character varying(40) NOT NULL,
    target_type character varying(16),
    target_id character varying(128),
    reason character varying(64),
    source character varying(64),
    user_agent character varying(256),
    request_id character varying(64),
    changed_fields text[] NOT NULL DEFAULT '{}'::text[],
    CONSTRAINT audit_events_pkey PRIMARY KEY (id)
);
ALTER TABLE audit_events ADD COLUMN IF NOT EXISTS id uuid;
ALTER TABLE audit_events ADD COLUMN IF NOT EXISTS occurred_at timestamptz;
ALTER TABLE audit_events ADD COLUMN IF NOT EXISTS actor_type character varying(16);
ALTER TABLE audit_events ADD COLUMN IF NOT EXISTS actor_id uuid;
ALTER TABLE audit_events ADD COLUMN IF NOT EXISTS action character varying(40);
ALTER TABLE audit_events ADD COLUMN IF NOT EXISTS target_type character varying(16);
ALTER TABLE audit_events ADD COLUMN IF NOT EXISTS target_id character varying(128);
ALTER TABLE audit_events ADD COLUMN IF NOT EXISTS reason character varying(64);
ALTER TABLE audit_events ADD COLUMN IF NOT EXISTS source character varying(64);
ALTER TABLE audit_events ADD COLUMN IF NOT EXISTS user_agent character varying(256);
ALTER TABLE audit_events ADD COLUMN IF NOT EXISTS request_id character varying(64);
ALTER TABLE audit_events ADD COLUMN IF NOT EXISTS changed_fields text[] NOT NULL DEFAULT '{}'::text[];
-- Appended to, never changed: also not by a service that was taken over.
CREATE OR REPLACE FUNCTION audit_events_are_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit_events is append-only' USING ERRCODE = 'insufficient_privilege',
        HINT = 'To remove old events by hand: ALTER TABLE audit_events DISABLE TRIGGER audit_events_append_only; afterwards ENABLE it.';
END
$$;
CREATE OR REPLACE TRIGGER audit_events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION audit_events_are_final();
