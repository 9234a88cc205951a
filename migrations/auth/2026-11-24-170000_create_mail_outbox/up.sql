-- Mails that are to be sent, without their tokens: a token is made when its mail leaves, so that the database never holds one.
-- One row per account and kind: asking once more replaces a mail that still waits.
CREATE TABLE IF NOT EXISTS mail_outbox (
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    kind character varying(32) NOT NULL,
    created_at timestamptz NOT NULL,
    next_attempt_at timestamptz NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    CONSTRAINT mail_outbox_pkey PRIMARY KEY (id),
    CONSTRAINT mail_outbox_user_id_kind_key UNIQUE (user_id, kind),
    CONSTRAINT fk_mail_outbox_user_id FOREIGN KEY (user_id) REFERENCES users (id) ON UPDATE CASCADE ON DELETE CASCADE
);
ALTER TABLE mail_outbox ADD COLUMN IF NOT EXISTS id uuid;
ALTER TABLE mail_outbox ADD COLUMN IF NOT EXISTS user_id uuid;
ALTER TABLE mail_outbox ADD COLUMN IF NOT EXISTS kind character varying(32);
ALTER TABLE mail_outbox ADD COLUMN IF NOT EXISTS created_at timestamptz;
ALTER TABLE mail_outbox ADD COLUMN IF NOT EXISTS next_attempt_at timestamptz;
ALTER TABLE mail_outbox ADD COLUMN IF NOT EXISTS attempts integer NOT NULL DEFAULT 0;

-- token_hash is SHA-256 of the token as lower-case hex. A token counts only while the account still has the address.
CREATE TABLE IF NOT EXISTS email_verification_tokens (
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    email character varying(255) NOT NULL,
    token_hash character varying(64) NOT NULL,
    expires_at timestamptz NOT NULL,
    is_used boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL,
    CONSTRAINT email_verification_tokens_pkey PRIMARY KEY (id),
    CONSTRAINT email_verification_tokens_token_hash_key UNIQUE (token_hash),
    CONSTRAINT fk_email_verification_tokens_user_id FOREIGN KEY (user_id) REFERENCES users (id) ON UPDATE CASCADE ON DELETE CASCADE
);
ALTER TABLE email_verification_tokens ADD COLUMN IF NOT EXISTS id uuid;
ALTER TABLE email_verification_tokens ADD COLUMN IF NOT EXISTS user_id uuid;
ALTER TABLE email_verification_tokens ADD COLUMN IF NOT EXISTS email character varying(255);
ALTER TABLE email_verification_tokens ADD COLUMN IF NOT EXISTS token_hash character varying(64);
ALTER TABLE email_verification_tokens ADD COLUMN IF NOT EXISTS expires_at timestamptz;
ALTER TABLE email_verification_tokens ADD COLUMN IF NOT EXISTS is_used boolean NOT NULL DEFAULT false;
ALTER TABLE email_verification_tokens ADD COLUMN IF NOT EXISTS created_at timestamptz;
