//! Access tokens: JWTs of RFC 9068, signed with the key that is active.

use std::collections::BTreeSet;
use std::time::Duration;

use auth_client::{Claims, TOKEN_TYPE};
use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::Header;
use uuid::Uuid;

use super::signing_key::KeyRing;

/// The longest that an access token can be made to live.
pub const LONGEST_LIFE: TimeDelta = TimeDelta::days(1);

/// Who issues tokens, for whom, and how long they last.
#[derive(Debug, Clone)]
pub struct TokenSettings {
    /// `iss`.
    pub issuer: String,
    /// `aud`.
    pub audience: String,
    /// Life of an access token.
    pub access_ttl: Duration,
    /// Life of a refresh token that is not used.
    pub refresh_ttl: Duration,
    /// Life of a session, however often it is refreshed.
    pub session_ttl: Duration,
}

/// For whom a token is.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The user or the service account.
    pub id: Uuid,
    /// The user's session; `None` for a service account.
    pub session_id: Option<Uuid>,
    /// Name of the user's role; empty for a service account.
    pub role: String,
    /// What the role or the service account may do.
    pub permissions: BTreeSet<String>,
    /// The newest revocation when all of this was read: later ones void the token.
    pub revision: i64,
}

/// A signed token.
pub struct AccessToken {
    /// The JWT.
    pub text: String,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
}

/// There is no key that signs now, or it failed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no signing key can be used")]
pub struct NoSigningKey;

/// Issues an access token; it ends no later than its session.
///
/// # Errors
/// [`NoSigningKey`].
pub fn issue(
    subject: Subject,
    settings: &TokenSettings,
    ring: &KeyRing,
    now: DateTime<Utc>,
    at_latest: Option<DateTime<Utc>>,
) -> Result<AccessToken, NoSigningKey> {
    let key = ring.signing(now).ok_or(NoSigningKey)?;
    let issued_at = u64::try_from(now.timestamp()).map_err(|_| NoSigningKey)?;
    let latest = at_latest.map_or(u64::MAX, |latest| u64::try_from(latest.timestamp()).unwrap_or_default());
    let expires = (issued_at + settings.access_ttl.as_secs()).min(latest);
    let mut header = Header::new(key.algorithm.jwt());
    header.typ = Some(TOKEN_TYPE.to_owned());
    header.kid = Some(key.stored.kid.clone());
    let claims = Claims {
        iss: settings.issuer.clone(),
        aud: settings.audience.clone(),
        sub: subject.id.to_string(),
        exp: expires,
        iat: issued_at,
        nbf: issued_at,
        jti: Uuid::new_v4().to_string(),
        rev: subject.revision,
        sid: subject.session_id.map(|id| id.to_string()),
        role: subject.role,
        permissions: subject.permissions,
    };
    let text = jsonwebtoken::encode(&header, &claims, key.signing()).map_err(|_| NoSigningKey)?;
    let expires_at =
        i64::try_from(expires).ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0)).ok_or(NoSigningKey)?;
    Ok(AccessToken { text, expires_at })
}

#[cfg(test)]
mod tests {
    use auth_client::{BoxFuture, KeyAlgorithm, KeySource, KeySourceError, PublicKey, Verifier, VerifierConfig};

    use super::*;
    use crate::domain::sealing::SealingKey;
    use crate::domain::signing_key::StoredKey;

    struct Ring(StoredKey);

    impl KeySource for Ring {
        fn signing_keys(&self) -> BoxFuture<'_, Result<Vec<PublicKey>, KeySourceError>> {
            let key = PublicKey::of(self.0.kind().unwrap(), &self.0.kid, &self.0.public_key);
            let key = key.map_err(KeySourceError::Unusable);
            Box::pin(std::future::ready(key.map(|key| vec![key])))
        }
    }

    #[tokio::test]
    async fn what_is_issued_here_verifies_there() {
        for algorithm in [KeyAlgorithm::EdDsa, KeyAlgorithm::Es256] {
            issued_and_verified(algorithm).await;
        }
    }

    async fn issued_and_verified(algorithm: KeyAlgorithm) {
        let now = Utc::now();
        let sealing = SealingKey::new(&[1; 32]).unwrap();
        let stored = StoredKey::generate(&sealing, algorithm, now).unwrap();
        let ring = KeyRing::open(vec![stored.clone()], &sealing, now).unwrap();
        let settings = TokenSettings {
            issuer: "auth-service".to_owned(),
            audience: "internal".to_owned(),
            access_ttl: Duration::from_secs(900),
            refresh_ttl: Duration::ZERO,
            session_ttl: Duration::ZERO,
        };
        let subject = Subject {
            id: Uuid::now_v7(),
            session_id: Some(Uuid::now_v7()),
            role: "admin".to_owned(),
            permissions: BTreeSet::from(["tasks.read".to_owned()]),
            revision: 7,
        };
        let token = issue(subject.clone(), &settings, &ring, now, None).unwrap();

        let verifier = Verifier::new(VerifierConfig::new("auth-service", "internal"), Ring(stored));
        tokio::spawn(verifier.clone().run(tokio_util::sync::CancellationToken::new()));
        let principal = verifier.verify(&token.text).await.unwrap();
        assert_eq!((principal.id, principal.session_id), (subject.id, subject.session_id));
        assert_eq!(principal.revision, 7);
        assert_eq!((&principal.role, &principal.permissions), (&subject.role, &subject.permissions));
        assert_eq!(token.expires_at.timestamp() - now.timestamp(), 900);
        let ends = now + TimeDelta::seconds(60);
        let last = issue(subject.clone(), &settings, &ring, now, Some(ends)).unwrap();
        assert_eq!(last.expires_at.timestamp(), ends.timestamp(), "no later than its session");
        assert!(issue(subject, &settings, &KeyRing::default(), now, None).is_err());
    }
}
