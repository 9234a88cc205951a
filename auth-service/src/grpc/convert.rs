//! Domain values into messages of auth.v1.

use auth_client::KeyAlgorithm;
use auth_client::{Principal, PrincipalKind};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use proto::auth::v1;
use proto::time::from_utc;
use uuid::Uuid;

use crate::domain::audit::Recorded;
use crate::domain::role::Role;
use crate::domain::service_account::ServiceAccount;
use crate::domain::signing_key::{KeyState, StoredKey};
use crate::domain::user::{User, UserCounts};
use crate::flows::{IssuedTokens, ProgramToken};
use crate::revocations::Step;
use crate::store::revocations::{Revocation, Revoked};
use crate::store::sessions::LivingSession;

/// How clients send their tokens.
const TOKEN_TYPE: &str = "Bearer";

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
        token_type: TOKEN_TYPE.to_owned(),
        expires_in: tokens.access_ttl_seconds,
        access_expires_at: Some(from_utc(tokens.access.expires_at)),
        refresh_expires_at: Some(from_utc(tokens.refresh_expires_at)),
    }
}

pub(super) fn user_stats(counts: UserCounts) -> v1::UserStats {
    let by_role = counts.by_role.into_iter();
    v1::UserStats {
        total: counts.active + counts.inactive,
        active: counts.active,
        inactive: counts.inactive,
        email_verified: counts.email_verified,
        by_role: by_role.map(|(role, user_count)| v1::RoleUserCount { role, user_count }).collect(),
    }
}

pub(super) fn role(role: Role) -> v1::Role {
    v1::Role {
        id: role.id.to_string(),
        name: role.name,
        display_name: role.display_name,
        description: role.description,
        permissions: role.permissions.into_iter().collect(),
        is_system: role.is_system,
        is_active: role.is_active,
        created_at: Some(from_utc(role.created_at)),
        updated_at: Some(from_utc(role.updated_at)),
    }
}

pub(super) fn session(session: LivingSession, current: Uuid) -> v1::Session {
    v1::Session {
        id: session.id.to_string(),
        device: session.user_agent.unwrap_or_default(),
        source: session.source_address.unwrap_or_default(),
        created_at: Some(from_utc(session.created_at)),
        last_used_at: Some(from_utc(session.last_used_at)),
        idle_expires_at: Some(from_utc(session.idle_expires_at)),
        expires_at: Some(from_utc(session.expires_at)),
        is_current: session.id == current,
    }
}

pub(super) fn audit_event(event: Recorded) -> v1::AuditEvent {
    let (actor_type, actor_id) = (event.actor_type, event.actor_id);
    let outcome = if event.reason.is_some() { v1::AuditOutcome::Refused } else { v1::AuditOutcome::Succeeded };
    v1::AuditEvent {
        id: event.id.to_string(),
        occurred_at: Some(from_utc(event.occurred_at)),
        actor: Some(v1::Principal {
            r#type: actor_type.into(),
            id: actor_id.map(|id| id.to_string()).unwrap_or_default(),
        }),
        action: event.action.into(),
        target: event.target.map(|(kind, id)| v1::AuditTarget { r#type: kind.into(), id }),
        outcome: outcome.into(),
        reason: event.reason.unwrap_or_default(),
        source: event.origin.source.unwrap_or_default(),
        user_agent: event.origin.user_agent.unwrap_or_default(),
        request_id: event.origin.request_id.unwrap_or_default(),
        changed_fields: event.changed_fields,
    }
}

pub(super) fn service_account(account: ServiceAccount) -> v1::ServiceAccount {
    let secrets = account.secrets.into_iter().map(|secret| v1::ServiceAccountSecret {
        id: secret.id.to_string(),
        created_at: Some(from_utc(secret.created_at)),
        expires_at: secret.expires_at.map(from_utc),
        last_used_at: secret.last_used_at.map(from_utc),
    });
    v1::ServiceAccount {
        id: account.id.to_string(),
        name: account.name,
        client_id: account.client_id,
        permissions: account.permissions.into_iter().collect(),
        secrets: secrets.collect(),
        last_used_at: account.last_used_at.map(from_utc),
        created_at: Some(from_utc(account.created_at)),
        updated_at: Some(from_utc(account.updated_at)),
    }
}

pub(super) fn service_token(issued: ProgramToken) -> v1::IssueServiceTokenResponse {
    v1::IssueServiceTokenResponse {
        access_token: issued.access.text,
        token_type: TOKEN_TYPE.to_owned(),
        expires_in: issued.ttl_seconds,
        access_expires_at: Some(from_utc(issued.access.expires_at)),
        permissions: issued.permissions.into_iter().collect(),
    }
}

/// A token that is good.
pub(super) fn introspected(principal: Principal) -> v1::IntrospectTokenResponse {
    let kind = match principal.kind {
        PrincipalKind::User => v1::PrincipalType::User,
        PrincipalKind::Service => v1::PrincipalType::ServiceAccount,
    };
    v1::IntrospectTokenResponse {
        active: true,
        principal: Some(v1::Principal { r#type: kind.into(), id: principal.id.to_string() }),
        role: principal.role,
        permissions: principal.permissions.into_iter().collect(),
        session_id: principal.session_id.map(|id| id.to_string()).unwrap_or_default(),
        token_id: principal.token_id,
        issued_at: Some(from_utc(principal.issued_at.into())),
        expires_at: Some(from_utc(principal.expires_at.into())),
    }
}

/// A step of the revocations as watchers get it.
pub(super) fn revocation_step(step: &Step, now: DateTime<Utc>) -> v1::WatchRevocationsResponse {
    use v1::watch_revocations_response::Event;
    let (revision, event) = match step {
        Step::SnapshotStarted => (0, Event::SnapshotStarted(v1::RevocationSnapshotStarted {})),
        Step::SnapshotCompleted(revision) => (*revision, Event::SnapshotCompleted(v1::RevocationSnapshotCompleted {})),
        Step::Revoked { revocation, in_snapshot } => {
            (if *in_snapshot { 0 } else { revocation.revision }, revocation_event(revocation))
        }
        Step::Heartbeat(revision) => (*revision, Event::Heartbeat(v1::RevocationHeartbeat {})),
    };
    v1::WatchRevocationsResponse { revision, sent_at: Some(from_utc(now)), event: Some(event) }
}

fn revocation_event(revocation: &Revocation) -> v1::watch_revocations_response::Event {
    use v1::watch_revocations_response::Event;
    let not_before = Some(from_utc(revocation.not_before));
    let forget_at = Some(from_utc(revocation.forget_at));
    let principal = |kind: v1::PrincipalType, id: &Uuid| {
        let principal = Some(v1::Principal { r#type: kind.into(), id: id.to_string() });
        Event::PrincipalNotBefore(v1::PrincipalNotBefore {
            principal,
            not_before,
            forget_at,
            version: revocation.revision,
        })
    };
    match &revocation.revoked {
        Revoked::User(id) => principal(v1::PrincipalType::User, id),
        Revoked::ServiceAccount(id) => principal(v1::PrincipalType::ServiceAccount, id),
        Revoked::Session(id) => Event::SessionEnded(v1::SessionEnded { session_id: id.to_string(), forget_at }),
        Revoked::Role(name) => Event::RoleChanged(v1::RoleChanged {
            role: name.clone(),
            version: revocation.revision,
            not_before,
            forget_at,
        }),
        Revoked::SigningKeys => Event::SigningKeysChanged(v1::SigningKeysChanged {}),
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
    // RFC 8037 has one coordinate, RFC 7518 two; a point begins with a byte that says it is not compressed.
    let (kty, crv, x, y) = match key.kind() {
        Some(KeyAlgorithm::Es256) => {
            let (x, y) = key.public_key.get(1..).unwrap_or_default().split_at(key.public_key.len() / 2);
            ("EC", "P-256", URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y))
        }
        _ => ("OKP", "Ed25519", URL_SAFE_NO_PAD.encode(&key.public_key), String::new()),
    };
    v1::SigningKey {
        kty: kty.to_owned(),
        kid: key.kid.clone(),
        r#use: "sig".to_owned(),
        alg: key.algorithm.clone(),
        crv: crv.to_owned(),
        x,
        y,
        state: state.into(),
        signs_from: Some(from_utc(key.activates_at)),
        retires_at: key.expires_at.map(from_utc),
    }
}
