-- What is void before its time, in the order in which it became so: WatchRevocations reads it. The revision is the time in
-- microseconds, moved on where it must be, and given out under a lock until the end of the transaction: whoever has read up to a
-- revision has missed none. subject is a UUID or the name of a role; nothing refers to another table, because what is revoked
-- may be gone. A row counts until forget_at, when the last token that it voids has expired.
CREATE TABLE IF NOT EXISTS revocations (
    revision bigint NOT NULL,
    kind character varying(32) NOT NULL,
    subject character varying(64),
    not_before timestamptz,
    forget_at timestamptz NOT NULL,
    CONSTRAINT revocations_pkey PRIMARY KEY (revision)
);
ALTER TABLE revocations ADD COLUMN IF NOT EXISTS revision bigint;
ALTER TABLE revocations ADD COLUMN IF NOT EXISTS kind character varying(32);
ALTER TABLE revocations ADD COLUMN IF NOT EXISTS subject character varying(64);
ALTER TABLE revocations ADD COLUMN IF NOT EXISTS not_before timestamptz;
ALTER TABLE revocations ADD COLUMN IF NOT EXISTS forget_at timestamptz;

-- The newest revocation of the row's tokens: a token that was issued before that revision (claim rev) is void.
ALTER TABLE users ADD COLUMN IF NOT EXISTS tokens_revision bigint;
ALTER TABLE roles ADD COLUMN IF NOT EXISTS tokens_revision bigint;
ALTER TABLE service_accounts ADD COLUMN IF NOT EXISTS tokens_revision bigint;

-- When the session's last access token ends: a session that was ended need not be remembered longer than that.
ALTER TABLE sessions ADD COLUMN IF NOT EXISTS tokens_end_at timestamptz;
