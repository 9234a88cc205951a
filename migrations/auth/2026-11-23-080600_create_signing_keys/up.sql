-- Keys that sign access tokens. The private part is sealed under KEY_ENCRYPTION_KEY and never leaves the service.
-- A key is published from created_at, signs from activates_at to retires_at, and is published until expires_at.
CREATE TABLE IF NOT EXISTS signing_keys (
    kid varchar(64) NOT NULL,
    algorithm varchar(16) NOT NULL,
    public_key bytea NOT NULL,
    private_key_sealed bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    activates_at timestamptz NOT NULL,
    retires_at timestamptz,
    expires_at timestamptz,
    CONSTRAINT signing_keys_pkey PRIMARY KEY (kid)
);
ALTER TABLE signing_keys ADD COLUMN IF NOT EXISTS kid varchar(64);
ALTER TABLE signing_keys ADD COLUMN IF NOT EXISTS algorithm varchar(16);
ALTER TABLE signing_keys ADD COLUMN IF NOT EXISTS public_key bytea;
ALTER TABLE signing_keys ADD COLUMN IF NOT EXISTS private_key_sealed bytea;
ALTER TABLE signing_keys ADD COLUMN IF NOT EXISTS created_at timestamptz DEFAULT CURRENT_TIMESTAMP;
ALTER TABLE signing_keys ADD COLUMN IF NOT EXISTS activates_at timestamptz;
ALTER TABLE signing_keys ADD COLUMN IF NOT EXISTS retires_at timestamptz;
ALTER TABLE signing_keys ADD COLUMN IF NOT EXISTS expires_at timestamptz;
