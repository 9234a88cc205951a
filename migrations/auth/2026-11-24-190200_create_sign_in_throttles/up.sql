-- Failed sign-ins, so that all replicas slow down alike. throttle_key is SHA-256, as lower-case hex, of what was tried: a login
-- or an account. The row with an empty source counts all sources together.
CREATE TABLE IF NOT EXISTS sign_in_throttles (
    throttle_key character varying(64) NOT NULL,
    source character varying(64) NOT NULL,
    failures integer NOT NULL,
    blocked_until timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT sign_in_throttles_pkey PRIMARY KEY (throttle_key, source)
);
ALTER TABLE sign_in_throttles ADD COLUMN IF NOT EXISTS throttle_key character varying(64);
ALTER TABLE sign_in_throttles ADD COLUMN IF NOT EXISTS source character varying(64);
ALTER TABLE sign_in_throttles ADD COLUMN IF NOT EXISTS failures integer;
ALTER TABLE sign_in_throttles ADD COLUMN IF NOT EXISTS blocked_until timestamptz;
ALTER TABLE sign_in_throttles ADD COLUMN IF NOT EXISTS expires_at timestamptz;
