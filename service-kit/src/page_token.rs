//! Page tokens: where the next page begins, sealed so that only this service can have made it and only for this list.
//!
//! A token is the cursor followed by an HMAC-SHA-256, in URL-safe base64. The HMAC also covers what the token is [`Bound`]
//! to: who asks, the filter and the order, none of which stand in the token. The page size may change from page to page.

use std::num::NonZeroU32;

use aws_lc_rs::{hkdf, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const MAC_LENGTH: usize = 32;
/// OWASP's figure for PBKDF2 with HMAC-SHA-256; a fraction of a second, once per start.
const PASSWORD_ROUNDS: NonZeroU32 = NonZeroU32::MIN.saturating_add(599_999);

/// Makes and checks page tokens. All replicas have the same key.
pub struct PageTokens {
    key: hmac::Key,
}

/// The token was not made by this service, or for another list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the page token does not belong to this list")]
pub struct PageTokenInvalid;

/// The key could not be derived; only a broken cryptographic library does that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key of the page tokens cannot be derived")]
pub struct KeyDerivationFailed;

/// Everything that must be the same when the next page is asked for.
#[derive(Debug, Clone)]
pub struct Bound(Vec<u8>);

impl Bound {
    /// A list of this caller; `list` tells it from other lists of the service.
    #[must_use]
    pub fn new(list: &str, caller: &[u8]) -> Self {
        Self(Vec::with_capacity(256)).part(list.as_bytes()).part(caller)
    }

    /// One more thing that is bound. Each has its length in front, so that no two lists give the same bytes.
    #[must_use]
    pub fn part(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        self.0.extend_from_slice(bytes);
        self
    }
}

impl PageTokens {
    /// Derives the key (HKDF, RFC 5869) from a random secret that all replicas share; `purpose` separates this use of the
    /// secret from every other one.
    ///
    /// # Errors
    /// [`KeyDerivationFailed`]
    pub fn from_secret(secret: &[u8], purpose: &str) -> Result<Self, KeyDerivationFailed> {
        let pseudo_random = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(secret);
        let info = [purpose.as_bytes()];
        let key = pseudo_random.expand(&info, hmac::HMAC_SHA256).map_err(|_| KeyDerivationFailed)?;
        Ok(Self { key: key.into() })
    }

    /// Derives the key from a password that all replicas share; `context` keeps apart what shares a password. Takes a moment on
    /// purpose: whoever holds a token could otherwise try passwords against it quickly.
    ///
    /// # Errors
    /// [`KeyDerivationFailed`]
    pub fn from_password(password: &[u8], context: &[u8], purpose: &str) -> Result<Self, KeyDerivationFailed> {
        let mut secret = [0; 32];
        let salt = [purpose.as_bytes(), context].concat();
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, PASSWORD_ROUNDS, &salt, password, &mut secret);
        Self::from_secret(&secret, purpose)
    }

    /// The token of the page behind `cursor`.
    pub fn seal(&self, bound: &Bound, cursor: &[u8]) -> String {
        let mac = hmac::sign(&self.key, &bound.clone().part(cursor).0);
        URL_SAFE_NO_PAD.encode([cursor, mac.as_ref()].concat())
    }

    /// The cursor in a token.
    ///
    /// # Errors
    /// [`PageTokenInvalid`] for every token that [`Self::seal`] did not make for the same list.
    pub fn open(&self, bound: &Bound, token: &str) -> Result<Vec<u8>, PageTokenInvalid> {
        let mut bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| PageTokenInvalid)?;
        let mac = bytes.split_off(bytes.len().checked_sub(MAC_LENGTH).ok_or(PageTokenInvalid)?);
        hmac::verify(&self.key, &bound.clone().part(&bytes).0, &mac).map_err(|_| PageTokenInvalid)?;
        Ok(bytes)
    }
}

impl std::fmt::Debug for PageTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PageTokens")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(secret: u8) -> PageTokens {
        PageTokens::from_secret(&[secret; 32], "a list").unwrap()
    }

    fn bound() -> Bound {
        Bound::new("sessions", b"alice").part(b"ab").part(b"c")
    }

    #[test]
    fn a_cursor_comes_back() {
        for cursor in [&b""[..], b"x", &[0; 300]] {
            assert_eq!(tokens(1).open(&bound(), &tokens(1).seal(&bound(), cursor)), Ok(cursor.to_vec()));
        }
    }

    #[test]
    fn a_token_of_another_list_caller_or_key_is_refused() {
        let token = tokens(1).seal(&bound(), b"cursor");
        let others = [
            Bound::new("sessions", b"bob").part(b"ab").part(b"c"),
            Bound::new("users", b"alice").part(b"ab").part(b"c"),
            Bound::new("sessions", b"alice").part(b"a").part(b"bc"),
            Bound::new("sessions", b"alice").part(b"ab"),
            bound().part(b""),
        ];
        for other in others {
            assert_eq!(tokens(1).open(&other, &token), Err(PageTokenInvalid), "{other:?}");
        }
        assert_eq!(tokens(2).open(&bound(), &token), Err(PageTokenInvalid));
        let other_purpose = PageTokens::from_secret(&[1; 32], "another").unwrap();
        assert_eq!(other_purpose.open(&bound(), &token), Err(PageTokenInvalid));
        for broken in ["", "x", "!", &token[1..], &token[..token.len() - 4], &format!("{token}AAAA")] {
            assert_eq!(tokens(1).open(&bound(), broken), Err(PageTokenInvalid), "{broken:?}");
        }
    }
}
