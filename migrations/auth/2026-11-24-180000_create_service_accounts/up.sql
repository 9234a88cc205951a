-- Accounts of programs. Their permissions are their own; they have no role, no password and no session.
CREATE TABLE IF NOT EXISTS service_accounts (
    id uuid NOT NULL,
    name character varying(100) NOT NULL,
    client_id character varying(64) NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    last_used_at timestamptz,
    CONSTRAINT service_accounts_pkey PRIMARY KEY (id),
    CONSTRAINT service_accounts_name_key UNIQUE (name),
    CONSTRAINT service_accounts_client_id_key UNIQUE (client_id)
);
ALTER TABLE service_accounts ADD COLUMN IF NOT EXISTS id uuid;
ALTER TABLE service_accounts ADD COLUMN IF NOT EXISTS name character varying(100);
ALTER TABLE service_accounts ADD COLUMN IF NOT EXISTS client_id character varying(64);
ALTER TABLE service_accounts ADD COLUMN IF NOT EXISTS created_at timestamptz;
ALTER TABLE service_accounts ADD COLUMN IF NOT EXISTS updated_at timestamptz;
ALTER TABLE service_accounts ADD COLUMN IF NOT EXISTS last_used_at timestamptz;

CREATE TABLE IF NOT EXISTS service_account_permissions (
    service_account_id uuid NOT NULL,
    permission character varying(64) NOT NULL,
    CONSTRAINT service_account_permissions_pkey PRIMARY KEY (service_account_id, permission),
    CONSTRAINT fk_service_account_permissions_service_account_id FOREIGN KEY (service_account_id)
        REFERENCES service_accounts (id) ON UPDATE CASCADE ON DELETE CASCADE
);
ALTER TABLE service_account_permissions ADD COLUMN IF NOT EXISTS service_account_id uuid;
ALTER TABLE service_account_permissions ADD COLUMN IF NOT EXISTS permission character varying(64);

-- secret_hash is SHA-256 of the secret as lower-case hex. expires_at is set when a newer secret takes over.
CREATE TABLE IF NOT EXISTS service_account_secrets (
    id uuid NOT NULL,
    service_account_id uuid NOT NULL,
    secret_hash character varying(64) NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    last_used_at timestamptz,
    CONSTRAINT service_account_secrets_pkey PRIMARY KEY (id),
    CONSTRAINT service_account_secrets_secret_hash_key UNIQUE (secret_hash),
    CONSTRAINT fk_service_account_secrets_service_account_id FOREIGN KEY (service_account_id)
        REFERENCES service_accounts (id) ON UPDATE CASCADE ON DELETE CASCADE
);
ALTER TABLE service_account_secrets ADD COLUMN IF NOT EXISTS id uuid;
ALTER TABLE service_account_secrets ADD COLUMN IF NOT EXISTS service_account_id uuid;
ALTER TABLE service_account_secrets ADD COLUMN IF NOT EXISTS secret_hash character varying(64);
ALTER TABLE service_account_secrets ADD COLUMN IF NOT EXISTS created_at timestamptz;
ALTER TABLE service_account_secrets ADD COLUMN IF NOT EXISTS expires_at timestamptz;
ALTER TABLE service_account_secrets ADD COLUMN IF NOT EXISTS last_used_at timestamptz;
