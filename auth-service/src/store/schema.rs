//! The tables as Diesel sees them. The order of the columns is nobody's concern; the expected schema is in migrations/auth.

diesel::table! {
    roles (id) {
        id -> Uuid,
        name -> Varchar,
        display_name -> Varchar,
        description -> Nullable<Text>,
        is_active -> Bool,
        is_system -> Bool,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        tokens_revision -> Nullable<Int8>,
    }
}

diesel::table! {
    role_permissions (role_id, permission) {
        role_id -> Uuid,
        permission -> Varchar,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    users (id) {
        id -> Uuid,
        email -> Varchar,
        username -> Varchar,
        password_hash -> Varchar,
        is_active -> Bool,
        email_verified -> Bool,
        last_login_at -> Nullable<Timestamptz>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        role_id -> Uuid,
        email_key -> Nullable<Text>,
        username_key -> Nullable<Text>,
        tokens_revision -> Nullable<Int8>,
    }
}

diesel::table! {
    sessions (id) {
        id -> Uuid,
        user_id -> Uuid,
        created_at -> Timestamptz,
        last_used_at -> Timestamptz,
        expires_at -> Timestamptz,
        ended_at -> Nullable<Timestamptz>,
        end_reason -> Nullable<Varchar>,
        user_agent -> Nullable<Varchar>,
        source_address -> Nullable<Varchar>,
        tokens_end_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    refresh_tokens (id) {
        id -> Uuid,
        user_id -> Uuid,
        token_hash -> Varchar,
        expires_at -> Timestamptz,
        is_revoked -> Bool,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        session_id -> Uuid,
        rotated_at -> Nullable<Timestamptz>,
        successor_sealed -> Nullable<Bytea>,
    }
}

diesel::table! {
    password_reset_tokens (id) {
        id -> Uuid,
        user_id -> Uuid,
        token_hash -> Varchar,
        expires_at -> Timestamptz,
        is_used -> Bool,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        hash_algorithm -> Varchar,
    }
}

diesel::table! {
    signing_keys (kid) {
        kid -> Varchar,
        algorithm -> Varchar,
        public_key -> Bytea,
        private_key_sealed -> Bytea,
        created_at -> Timestamptz,
        activates_at -> Timestamptz,
        retires_at -> Nullable<Timestamptz>,
        expires_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    audit_events (id) {
        id -> Uuid,
        occurred_at -> Timestamptz,
        actor_type -> Varchar,
        actor_id -> Nullable<Uuid>,
        action -> Varchar,
        target_type -> Nullable<Varchar>,
        target_id -> Nullable<Varchar>,
        reason -> Nullable<Varchar>,
        source -> Nullable<Varchar>,
        user_agent -> Nullable<Varchar>,
        request_id -> Nullable<Varchar>,
        changed_fields -> Array<Nullable<Text>>,
    }
}

diesel::table! {
    mail_outbox (id) {
        id -> Uuid,
        user_id -> Uuid,
        kind -> Varchar,
        created_at -> Timestamptz,
        next_attempt_at -> Timestamptz,
        attempts -> Integer,
        address -> Nullable<Varchar>,
        addressee -> Nullable<Varchar>,
    }
}

diesel::table! {
    email_verification_tokens (id) {
        id -> Uuid,
        user_id -> Uuid,
        email -> Varchar,
        token_hash -> Varchar,
        expires_at -> Timestamptz,
        is_used -> Bool,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    service_accounts (id) {
        id -> Uuid,
        name -> Varchar,
        client_id -> Varchar,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        last_used_at -> Nullable<Timestamptz>,
        tokens_revision -> Nullable<Int8>,
    }
}

diesel::table! {
    service_account_permissions (service_account_id, permission) {
        service_account_id -> Uuid,
        permission -> Varchar,
    }
}

diesel::table! {
    service_account_secrets (id) {
        id -> Uuid,
        service_account_id -> Uuid,
        secret_hash -> Varchar,
        created_at -> Timestamptz,
        expires_at -> Nullable<Timestamptz>,
        last_used_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    user_deletions (user_id) {
        user_id -> Uuid,
        deleted_at -> Timestamptz,
        next_attempt_at -> Timestamptz,
        attempts -> Integer,
    }
}

diesel::table! {
    revocations (revision) {
        revision -> Int8,
        kind -> Varchar,
        subject -> Nullable<Varchar>,
        not_before -> Nullable<Timestamptz>,
        forget_at -> Timestamptz,
    }
}

diesel::table! {
    sign_in_throttles (throttle_key, source) {
        throttle_key -> Varchar,
        source -> Varchar,
        failures -> Integer,
        blocked_until -> Timestamptz,
        expires_at -> Timestamptz,
    }
}

diesel::joinable!(users -> roles (role_id));
diesel::joinable!(role_permissions -> roles (role_id));
diesel::joinable!(sessions -> users (user_id));
diesel::joinable!(service_account_secrets -> service_accounts (service_account_id));
diesel::joinable!(refresh_tokens -> sessions (session_id));
diesel::allow_tables_to_appear_in_same_query!(
    roles,
    role_permissions,
    users,
    sessions,
    refresh_tokens,
    password_reset_tokens,
    signing_keys,
    audit_events,
    mail_outbox,
    service_accounts,
    service_account_permissions,
    service_account_secrets,
    email_verification_tokens,
    user_deletions,
    revocations,
    sign_in_throttles
);
