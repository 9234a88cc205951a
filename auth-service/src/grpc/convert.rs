//! Domain values into messages of auth.v1.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use proto::auth::v1;
use proto::time::from_utc;

use crate::domain::signing_key::{KeyState, StoredKey};
use crate::domain::user::User;
use crate::flows::IssuedTokens;

pub(super) fn user(user: User) -> v1::User {
    v1::User {
        id: user.id.to_string(),
        email: user.email,
        username: user.username,
        role: user.role,
        is_active: user.is_active,
        email_verified: user.email_verified,
        last_login_at: user.last_login_at.map(from_utc),
        created_at: Some(from_utc(user.created_at)),
        updated_at: Some(from_utc(user.updated_at)),
    }
}

pub(super) fn tokens(tokens: IssuedTokens) -> v1::Tokens {
    v1::Tokens {
        access_token: tokens.access.text,
        refresh_token: tokens.refresh.reveal().to_owned(),
        token_type: "Bearer".to_owned(),
        expires_in: tokens.access_ttl_seconds,
        access_expires_at: Some(from_utc(tokens.access.expires_at)),
        refresh_expires_at: Some(from_utc(tokens.refresh_expires_at)),
    }
}

/// The public part only.
pub(super) fn signing_key(key: &StoredKey, signing_kid: Option<&str>, now: DateTime<Utc>) -> v1::SigningKey {
    let state = match key.state(now) {
        KeyState::Published => v1::SigningKeyState::Published,
        // Of two active keys one signs; the other was one until a moment ago.
        KeyState::Active if signing_kid == Some(key.kid.as_str()) => v1::SigningKeyState::Active,
        KeyState::Active | KeyState::Retiring | KeyState::Expired => v1::SigningKeyState::Retiring,
    };
    v1::SigningKey {
        kty: "OKP".to_owned(),
        kid: key.kid.clone(),
        r#use: "sig".to_owned(),
        alg: key.algorithm.clone(),
        crv: "Ed25519".to_owned(),
        x: URL_SAFE_NO_PAD.encode(&key.public_key),
        y: String::new(),
        state: state.into(),
        signs_from: Some(from_utc(key.activates_at)),
        retires_at: key.expires_at.map(from_utc),
    }
}
