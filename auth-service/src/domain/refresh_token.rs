//! Refresh tokens: opaque, 256 bits, stored as SHA-256 hex as in the legacy system.

use chrono::{DateTime, TimeDelta, Utc};

use super::opaque_token::OpaqueToken;
use super::sealing::{CryptoFailure, OpenError, SealingKey};

/// How long the token before the current one still gets the current one: a client that lost the answer tries again.
pub const GRACE: TimeDelta = TimeDelta::seconds(10);
/// Purpose of the key that seals a successor.
const PURPOSE: &str = "refresh token successor";

/// A refresh token as the client holds it. No `Debug`: it must not be printed.
pub struct RefreshToken(OpaqueToken);

impl RefreshToken {
    /// A new one.
    ///
    /// # Errors
    /// The system gave no random bytes.
    pub fn generate() -> Result<Self, CryptoFailure> {
        OpaqueToken::generate().map(Self)
    }

    /// What a client presents; any text.
    pub fn presented(text: String) -> Self {
        Self(OpaqueToken::presented(text))
    }

    /// The text for the client.
    pub fn reveal(&self) -> &str {
        self.0.reveal()
    }

    /// What is stored.
    pub fn hash(&self) -> String {
        self.0.hash()
    }

    /// The successor, sealed so that only who presents this token can read it; the database alone cannot.
    ///
    /// # Errors
    /// The cryptographic library fails.
    pub fn seal_successor(&self, successor: &Self) -> Result<Vec<u8>, CryptoFailure> {
        SealingKey::derived(self.reveal().as_bytes(), PURPOSE)?.seal(successor.reveal().as_bytes(), &self.hash())
    }

    /// Opens what [`seal_successor`](Self::seal_successor) sealed.
    ///
    /// # Errors
    /// It was sealed with another token, or is damaged.
    pub fn open_successor(&self, sealed: &[u8]) -> Result<Self, OpenError> {
        let key = SealingKey::derived(self.reveal().as_bytes(), PURPOSE).map_err(|_| OpenError)?;
        let text = String::from_utf8(key.open(sealed, &self.hash())?.to_vec()).map_err(|_| OpenError)?;
        Ok(Self::presented(text))
    }
}

/// What is stored about a presented token.
#[derive(Debug, Clone, Copy)]
pub struct TokenState {
    /// When it ends if it is not used.
    pub expires_at: DateTime<Utc>,
    /// Revoked, or used up.
    pub is_revoked: bool,
    /// When it was traded for its successor.
    pub rotated_at: Option<DateTime<Utc>>,
}

/// What to do with a presented token of a session that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Trade it for a new one.
    Rotate,
    /// It was traded a moment ago: if its successor has not been used, hand that out again, else end the session.
    Repeat,
    /// Refuse it.
    Refuse,
    /// Somebody uses a token that was traded long ago: end the session.
    EndSession,
}

impl TokenState {
    /// The verdict at a time.
    pub fn verdict(&self, now: DateTime<Utc>) -> Verdict {
        match self.rotated_at {
            // A clock that runs behind the one that rotated makes the age negative, which is recent.
            Some(rotated_at) if now - rotated_at <= GRACE => Verdict::Repeat,
            Some(_) => Verdict::EndSession,
            None if self.is_revoked || self.expires_at <= now => Verdict::Refuse,
            None => Verdict::Rotate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_opens_its_successor() {
        let (token, next, other) =
            (RefreshToken::generate().unwrap(), RefreshToken::generate().unwrap(), RefreshToken::generate().unwrap());
        let sealed = token.seal_successor(&next).unwrap();
        assert_eq!(token.open_successor(&sealed).unwrap().reveal(), next.reveal());
        assert!(other.open_successor(&sealed).is_err());
    }

    #[test]
    fn verdicts() {
        let now = Utc::now();
        let state = |expires: i64, is_revoked, rotated: Option<i64>| TokenState {
            expires_at: now + TimeDelta::seconds(expires),
            is_revoked,
            rotated_at: rotated.map(|ago| now - TimeDelta::seconds(ago)),
        };
        assert_eq!(state(60, false, None).verdict(now), Verdict::Rotate);
        assert_eq!(state(0, false, None).verdict(now), Verdict::Refuse);
        assert_eq!(state(60, true, None).verdict(now), Verdict::Refuse, "revoked by the legacy system");
        assert_eq!(state(60, true, Some(10)).verdict(now), Verdict::Repeat);
        assert_eq!(state(60, true, Some(-3)).verdict(now), Verdict::Repeat);
        assert_eq!(state(60, true, Some(11)).verdict(now), Verdict::EndSession);
        assert_eq!(state(-60, true, Some(11)).verdict(now), Verdict::EndSession, "a replay after expiry is a replay");
    }
}
