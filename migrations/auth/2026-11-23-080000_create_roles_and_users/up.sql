-- Roles and users, with the names and types of the legacy tables.
-- A fresh table is complete at once; the ADD COLUMN lines serve a table that is only half there.
CREATE TABLE IF NOT EXISTS roles (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    name varchar(50) NOT NULL,
    display_name varchar(100) NOT NULL,
    description text,
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    is_system boolean NOT NULL DEFAULT false,
    CONSTRAINT roles_pkey PRIMARY KEY (id),
    CONSTRAINT roles_name_key UNIQUE (name)
);
ALTER TABLE roles ADD COLUMN IF NOT EXISTS id uuid DEFAULT gen_random_uuid();
ALTER TABLE roles ADD COLUMN IF NOT EXISTS name varchar(50);
ALTER TABLE roles ADD COLUMN IF NOT EXISTS display_name varchar(100);
ALTER TABLE roles ADD COLUMN IF NOT EXISTS description text;
ALTER TABLE roles ADD COLUMN IF NOT EXISTS is_active boolean DEFAULT true;
ALTER TABLE roles ADD COLUMN IF NOT EXISTS created_at timestamptz DEFAULT CURRENT_TIMESTAMP;
ALTER TABLE roles ADD COLUMN IF NOT EXISTS updated_at timestamptz DEFAULT CURRENT_TIMESTAMP;
ALTER TABLE roles ADD COLUMN IF NOT EXISTS is_system boolean NOT NULL DEFAULT false;

-- What a role may do. The catalogue of permissions is in the protocol definition, not here.
CREATE TABLE IF NOT EXISTS role_permissions (
    role_id uuid NOT NULL,
    permission varchar(64) NOT NULL,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT role_permissions_pkey PRIMARY KEY (role_id, permission),
    CONSTRAINT fk_role_permissions_role_id FOREIGN KEY (role_id) REFERENCES roles (id) ON UPDATE CASCADE ON DELETE CASCADE
);
ALTER TABLE role_permissions ADD COLUMN IF NOT EXISTS role_id uuid;
ALTER TABLE role_permissions ADD COLUMN IF NOT EXISTS permission varchar(64);
ALTER TABLE role_permissions ADD COLUMN IF NOT EXISTS created_at timestamptz DEFAULT CURRENT_TIMESTAMP;

-- email_key and username_key are the NFC, case-folded forms that must be unique. They are null on an account
-- whose address or name differs from an older account's only by case: such accounts are kept, and reported.
CREATE TABLE IF NOT EXISTS users (
    id uuid NOT NULL,
    email varchar(255) NOT NULL,
    username varchar(50) NOT NULL,
    password_hash varchar(255) NOT NULL,
    is_active boolean NOT NULL DEFAULT true,
    email_verified boolean NOT NULL DEFAULT false,
    last_login_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    role_id uuid NOT NULL,
    email_key text,
    username_key text,
    CONSTRAINT users_pkey PRIMARY KEY (id),
    CONSTRAINT users_email_key UNIQUE (email),
    CONSTRAINT users_username_key UNIQUE (username),
    CONSTRAINT fk_users_role_id FOREIGN KEY (role_id) REFERENCES roles (id) ON UPDATE CASCADE ON DELETE RESTRICT
);
ALTER TABLE users ADD COLUMN IF NOT EXISTS id uuid;
ALTER TABLE users ADD COLUMN IF NOT EXISTS email varchar(255);
ALTER TABLE users ADD COLUMN IF NOT EXISTS username varchar(50);
ALTER TABLE users ADD COLUMN IF NOT EXISTS password_hash varchar(255);
ALTER TABLE users ADD COLUMN IF NOT EXISTS is_active boolean DEFAULT true;
ALTER TABLE users ADD COLUMN IF NOT EXISTS email_verified boolean DEFAULT false;
ALTER TABLE users ADD COLUMN IF NOT EXISTS last_login_at timestamptz;
ALTER TABLE users ADD COLUMN IF NOT EXISTS created_at timestamptz DEFAULT CURRENT_TIMESTAMP;
ALTER TABLE users ADD COLUMN IF NOT EXISTS updated_at timestamptz DEFAULT CURRENT_TIMESTAMP;
ALTER TABLE users ADD COLUMN IF NOT EXISTS role_id uuid;
ALTER TABLE users ADD COLUMN IF NOT EXISTS email_key text;
ALTER TABLE users ADD COLUMN IF NOT EXISTS username_key text;
