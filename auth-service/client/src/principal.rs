//! Who is calling, as the verified token says.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use crate::claims::Claims;
use crate::verifier::TokenError;

/// What kind of caller stands behind a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrincipalKind {
    /// A person who signed in: the token names a session.
    User,
    /// A service account.
    Service,
}

/// A verified caller. The only source of identity: handlers take it from the request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Id of the user or the service account.
    pub id: Uuid,
    /// User or service account.
    pub kind: PrincipalKind,
    /// The session, for users.
    pub session_id: Option<Uuid>,
    /// Name of the role when the token was issued; empty for a service account.
    pub role: String,
    /// Permissions when the token was issued.
    pub permissions: BTreeSet<String>,
    /// Id of the token (`jti`).
    pub token_id: String,
    /// The newest revocation that the issuer knew of (`rev`); 0: not said.
    pub revision: i64,
    /// When the token was issued.
    pub issued_at: SystemTime,
    /// When the token ends.
    pub expires_at: SystemTime,
}

impl Principal {
    /// Whether the caller holds a permission, by its name in the catalogue, as in `tasks.read`.
    pub fn has(&self, permission: &str) -> bool {
        self.permissions.contains(permission)
    }
}

impl TryFrom<Claims> for Principal {
    type Error = TokenError;

    fn try_from(claims: Claims) -> Result<Self, TokenError> {
        let uuid = |text: &str| Uuid::try_parse(text).map_err(|_| TokenError::Invalid("a claim is not a UUID"));
        let time = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.min(u64::from(u32::MAX) * 2));
        let session_id = claims.sid.as_deref().map(uuid).transpose()?;
        Ok(Self {
            id: uuid(&claims.sub).ok().filter(|id| !id.is_nil()).ok_or(TokenError::Invalid("sub names nobody"))?,
            kind: if session_id.is_some() { PrincipalKind::User } else { PrincipalKind::Service },
            session_id,
            role: claims.role,
            permissions: claims.permissions,
            token_id: claims.jti,
            revision: claims.rev,
            issued_at: time(claims.iat),
            expires_at: time(claims.exp),
        })
    }
}
