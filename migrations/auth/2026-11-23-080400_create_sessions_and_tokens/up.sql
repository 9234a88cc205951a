-- A session is one sign-in, and the family of its refresh tokens.
CREATE TABLE IF NOT EXISTS sessions (
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    last_used_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    expires_at timestamptz NOT NULL,
    ended_at timestamptz,
    end_reason varchar(32),
    user_agent varchar(512),
    source_address varchar(64),
    CONSTRAINT sessions_pkey PRIMARY KEY (id),
    CONSTRAINT fk_sessions_user_id FOREIGN KEY (user_id) REFERENCES users (id) ON UPDATE CASCADE ON DELETE CASCADE
);
ALTER TABLE sessions ADD COLUMN IF NOT EXISTS id uuid;
ALTER TABLE sessions ADD COLUMN IF NOT EXISTS user_id uuid;
ALTER TABLE sessions ADD COLUMN IF NOT EXISTS created_at timestamptz DEFAULT CURRENT_TIMESTAMP;
ALTER TABLE sessions ADD COLUMN IF NOT EXISTS last_used_at timestamptz DEFAULT CURRENT_TIMESTAMP;
ALTER TABLE sessions ADD COLUMN IF NOT EXISTS expires_at timestamptz;
ALTER TABLE sessions ADD COLUMN IF NOT EXISTS ended_at timestamptz;
ALTER TABLE sessions ADD COLUMN IF NOT EXISTS end_reason varchar(32);
ALTER TABLE sessions ADD COLUMN IF NOT EXISTS user_agent varchar(512);
ALTER TABLE sessions ADD COLUMN IF NOT EXISTS source_address varchar(64);
CREATE INDEX IF NOT EXISTS idx_sessions_user_id ON sessions (user_id);

-- token_hash is the SHA-256 of the token as lower-case hex, as in the legacy table, so that old tokens go on.
-- rotated_at and successor_sealed answer a client that lost the answer to its last refresh.
CREATE TABLE IF NOT EXISTS refresh_tokens (
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    token_hash varchar(255) NOT NULL,
    expires_at timestamptz NOT NULL,
    is_revoked boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    session_id uuid NOT NULL,
    rotated_at timestamptz,
    successor_sealed bytea,
    CONSTRAINT refresh_tokens_pkey PRIMARY KEY (id),
    CONSTRAINT refresh_tokens_token_hash_key UNIQUE (token_hash),
    CONSTRAINT fk_refresh_tokens_user_id FOREIGN KEY (user_id) REFERENCES users (id) ON UPDATE CASCADE ON DELETE CASCADE,
    CONSTRAINT fk_refresh_tokens_session_id FOREIGN KEY (session_id) REFERENCES sessions (id) ON UPDATE CASCADE ON DELETE CASCADE
);
ALTER TABLE refresh_tokens ADD COLUMN IF NOT EXISTS id uuid;
ALTER TABLE refresh_tokens ADD COLUMN IF NOT EXISTS user_id uuid;
ALTER TABLE refresh_tokens ADD COLUMN IF NOT EXISTS token_hash varchar(255);
ALTER TABLE refresh_tokens ADD COLUMN IF NOT EXISTS expires_at timestamptz;
ALTER TABLE refresh_tokens ADD COLUMN IF NOT EXISTS is_revoked boolean DEFAULT false;
ALTER TABLE refresh_tokens ADD COLUMN IF NOT EXISTS created_at timestamptz DEFAULT CURRENT_TIMESTAMP;
ALTER TABLE refresh_tokens ADD COLUMN IF NOT EXISTS updated_at timestamptz DEFAULT CURRENT_TIMESTAMP;
ALTER TABLE refresh_tokens ADD COLUMN IF NOT EXISTS session_id uuid;
ALTER TABLE refresh_tokens ADD COLUMN IF NOT EXISTS rotated_at timestamptz;
ALTER TABLE refresh_tokens ADD COLUMN IF NOT EXISTS successor_sealed bytea;

-- hash_algorithm is null on legacy rows, which hold the token in clear.
CREATE TABLE IF NOT EXISTS password_reset_tokens (
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    token_hash varchar(255) NOT NULL,
    expires_at timestamptz NOT NULL,
    is_used boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    hash_algorithm varchar(16) NOT NULL,
    CONSTRAINT password_reset_tokens_pkey PRIMARY KEY (id),
    CONSTRAINT password_reset_tokens_token_hash_key UNIQUE (token_hash),
    CONSTRAINT fk_password_reset_tokens_user_id FOREIGN KEY (user_id) REFERENCES users (id) ON UPDATE CASCADE ON DELETE CASCADE
);
ALTER TABLE password_reset_tokens ADD COLUMN IF NOT EXISTS id uuid;
ALTER TABLE password_reset_tokens ADD COLUMN IF NOT EXISTS user_id uuid;
ALTER TABLE password_reset_tokens ADD COLUMN IF NOT EXISTS token_hash varchar(255);
ALTER TABLE password_reset_tokens ADD COLUMN IF NOT EXISTS expires_at timestamptz;
ALTER TABLE password_reset_tokens ADD COLUMN IF NOT EXISTS is_used boolean DEFAULT false;
ALTER TABLE password_reset_tokens ADD COLUMN IF NOT EXISTS created_at timestamptz DEFAULT CURRENT_TIMESTAMP;
ALTER TABLE password_reset_tokens ADD COLUMN IF NOT EXISTS updated_at timestamptz DEFAULT CURRENT_TIMESTAMP;
ALTER TABLE password_reset_tokens ADD COLUMN IF NOT EXISTS hash_algorithm varchar(16);
