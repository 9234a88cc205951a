//! The keys that sign access tokens: how one is made, where it is in its life, and which one signs now.

use std::sync::Arc;

use auth_client::KeyAlgorithm;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::EncodingKey;

use super::sealing::{CryptoFailure, OpenError, SealingKey};

/// After the last token of a key has ended it stays published this long: the leeway of clocks, and some.
pub const AFTER_LAST_TOKEN: TimeDelta = TimeDelta::seconds(60);
/// A new key is published this long before it signs, so that every service has fetched it.
pub const ACTIVATE_IN: TimeDelta = TimeDelta::minutes(5);

/// A key as it is stored.
#[derive(Debug, Clone)]
pub struct StoredKey {
    /// Id.
    pub kid: String,
    /// `EdDSA` or `ES256`, as in the `alg` of tokens.
    pub algorithm: String,
    /// The 32 bytes of an Ed25519 key, or the 65 of an uncompressed point of P-256.
    pub public_key: Vec<u8>,
    /// PKCS#8, sealed under `KEY_ENCRYPTION_KEY` with the kid as owner.
    pub private_key_sealed: Vec<u8>,
    /// When it signs its first token.
    pub activates_at: DateTime<Utc>,
    /// When it stops signing; `None`: it has no successor yet.
    pub retires_at: Option<DateTime<Utc>>,
    /// When it leaves the list.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Where a key is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// Published so that everybody knows it before it signs.
    Published,
    /// May sign.
    Active,
    /// Signs no more; its tokens are still good.
    Retiring,
    /// Its last token has ended.
    Expired,
}

impl StoredKey {
    /// A new key. The kid is the key's thumbprint (RFC 7638).
    ///
    /// # Errors
    /// The cryptographic library fails.
    pub fn generate(
        sealing: &SealingKey,
        algorithm: KeyAlgorithm,
        activates_at: DateTime<Utc>,
    ) -> Result<Self, CryptoFailure> {
        let (public_key, pkcs8) = match algorithm {
            KeyAlgorithm::EdDsa => {
                let pair = Ed25519KeyPair::generate()?;
                (pair.public_key().as_ref().to_vec(), pair.to_pkcs8()?)
            }
            KeyAlgorithm::Es256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
                (pair.public_key().as_ref().to_vec(), pair.to_pkcs8v1()?)
            }
        };
        let kid = thumbprint(algorithm, &public_key);
        let private_key_sealed = sealing.seal(pkcs8.as_ref(), &kid)?;
        Ok(Self {
            kid,
            algorithm: algorithm.name().to_owned(),
            public_key,
            private_key_sealed,
            activates_at,
            retires_at: None,
            expires_at: None,
        })
    }

    /// Its algorithm; `None`: a later version's.
    pub fn kind(&self) -> Option<KeyAlgorithm> {
        KeyAlgorithm::of_name(&self.algorithm)
    }

    /// Its state at a time.
    pub fn state(&self, now: DateTime<Utc>) -> KeyState {
        let past = |time: Option<DateTime<Utc>>| time.is_some_and(|time| time <= now);
        if past(self.expires_at) {
            KeyState::Expired
        } else if past(self.retires_at) {
            KeyState::Retiring
        } else if self.activates_at <= now {
            KeyState::Active
        } else {
            KeyState::Published
        }
    }
}

/// Why the stored keys cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyRingError {
    /// The sealed private part does not open.
    #[error("the stored signing key {kid} does not open with KEY_ENCRYPTION_KEY: set the key that it was sealed with")]
    WrongEncryptionKey {
        /// Which key.
        kid: String,
    },
    /// A row that holds no key of the algorithm that it names.
    #[error(
        "the stored signing key {kid} is damaged, whatever KEY_ENCRYPTION_KEY is: repair or delete its row in signing_keys"
    )]
    Malformed {
        /// Which key.
        kid: String,
    },
}

/// All keys that count now, opened. Replaced as a whole when the stored keys change.
#[derive(Clone, Default)]
pub struct KeyRing {
    keys: Vec<RingKey>,
    unknown: Vec<StoredKey>,
}

/// A key of the ring.
#[derive(Clone)]
pub struct RingKey {
    /// As stored.
    pub stored: StoredKey,
    /// What it signs with.
    pub algorithm: KeyAlgorithm,
    signing: Arc<EncodingKey>,
}

impl RingKey {
    /// The private part.
    pub fn signing(&self) -> &EncodingKey {
        &self.signing
    }
}

impl KeyRing {
    /// Opens all keys that have not expired. Those of an algorithm that this version does not know are a later version's: left
    /// to it.
    ///
    /// # Errors
    /// The first that does not open.
    pub fn open(stored: Vec<StoredKey>, sealing: &SealingKey, now: DateTime<Utc>) -> Result<Self, KeyRingError> {
        let living = stored.into_iter().filter(|key| key.state(now) != KeyState::Expired);
        let (known, unknown): (Vec<_>, Vec<_>) = living.partition(|key| key.kind().is_some());
        let keys = known.into_iter().filter_map(|key| Some((key.kind()?, key)));
        let keys = keys.map(|(algorithm, key)| RingKey::open(key, algorithm, sealing)).collect::<Result<_, _>>()?;
        Ok(Self { keys, unknown })
    }

    /// The keys that were left out because this version does not know their algorithm.
    pub fn unknown(&self) -> &[StoredKey] {
        &self.unknown
    }

    /// The key that signs now: of the active ones the youngest, so that all replicas choose alike.
    pub fn signing(&self, now: DateTime<Utc>) -> Option<&RingKey> {
        let active = self.keys.iter().filter(|key| key.stored.state(now) == KeyState::Active);
        active.max_by(|one, other| {
            (one.stored.activates_at, &one.stored.kid).cmp(&(other.stored.activates_at, &other.stored.kid))
        })
    }

    /// The keys to publish.
    pub fn published(&self, now: DateTime<Utc>) -> impl Iterator<Item = &StoredKey> {
        self.keys.iter().map(|key| &key.stored).filter(move |key| key.state(now) != KeyState::Expired)
    }
}

impl RingKey {
    fn open(stored: StoredKey, algorithm: KeyAlgorithm, sealing: &SealingKey) -> Result<Self, KeyRingError> {
        let malformed = || KeyRingError::Malformed { kid: stored.kid.clone() };
        let length = match algorithm {
            KeyAlgorithm::EdDsa => 32,
            KeyAlgorithm::Es256 => 65,
        };
        if stored.public_key.len() != length {
            return Err(malformed());
        }
        let opened = sealing.open(&stored.private_key_sealed, &stored.kid);
        let pkcs8 = opened.map_err(|OpenError| KeyRingError::WrongEncryptionKey { kid: stored.kid.clone() })?;
        // Also proves that the private part belongs to the public one.
        let (public_key, signing) = match algorithm {
            KeyAlgorithm::EdDsa => {
                let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|_| malformed())?;
                (pair.public_key().as_ref().to_vec(), EncodingKey::from_ed_der(&pkcs8))
            }
            KeyAlgorithm::Es256 => {
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8);
                let pair = pair.map_err(|_| malformed())?;
                (pair.public_key().as_ref().to_vec(), EncodingKey::from_ec_der(&pkcs8))
            }
        };
        if public_key != stored.public_key {
            return Err(malformed());
        }
        Ok(Self { signing: Arc::new(signing), algorithm, stored })
    }
}

/// RFC 7638: the members that make the key, in their order, without white space.
fn thumbprint(algorithm: KeyAlgorithm, public_key: &[u8]) -> String {
    let encode = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
    let jwk = match algorithm {
        KeyAlgorithm::EdDsa => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, encode(public_key)),
        KeyAlgorithm::Es256 => {
            // The point without its first byte, cut in two.
            let (x, y) = public_key.get(1..).unwrap_or_default().split_at(public_key.len() / 2);
            format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, encode(x), encode(y))
        }
    };
    encode(digest(&SHA256, jwk.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn sealing(byte: u8) -> SealingKey {
        SealingKey::new(&[byte; 32]).unwrap()
    }

    #[test]
    fn a_key_opens_with_its_own_encryption_key_only() {
        let now = Utc::now();
        for algorithm in [KeyAlgorithm::EdDsa, KeyAlgorithm::Es256] {
            let key = StoredKey::generate(&sealing(1), algorithm, now).unwrap();
            assert!(KeyRing::open(vec![key.clone()], &sealing(1), now).unwrap().signing(now).is_some());
            let refused = KeyRing::open(vec![key.clone()], &sealing(2), now).err().unwrap();
            assert_eq!(refused, KeyRingError::WrongEncryptionKey { kid: key.kid.clone() });
            let moved = StoredKey { kid: "another".to_owned(), ..key.clone() };
            assert!(
                KeyRing::open(vec![moved], &sealing(1), now).is_err(),
                "a private part cannot be moved to another kid"
            );
            let other = StoredKey::generate(&sealing(1), algorithm, now).unwrap().public_key;
            for public_key in [vec![0; key.public_key.len()], vec![], other] {
                let swapped = StoredKey { public_key, ..key.clone() };
                let refused = KeyRing::open(vec![swapped], &sealing(1), now).err().unwrap();
                assert!(matches!(refused, KeyRingError::Malformed { .. }));
            }
        }
    }

    #[test]
    fn a_key_of_an_unknown_algorithm_is_left_to_the_version_that_knows_it() {
        let now = Utc::now();
        let key = StoredKey::generate(&sealing(1), KeyAlgorithm::EdDsa, now).unwrap();
        let later = StoredKey { kid: "later".to_owned(), algorithm: "ML-DSA-65".to_owned(), ..key.clone() };
        let ring = KeyRing::open(vec![later, key.clone()], &sealing(1), now).unwrap();
        assert_eq!(ring.signing(now).unwrap().stored.kid, key.kid);
        assert_eq!(ring.published(now).count(), 1);
        assert_eq!(ring.unknown().iter().map(|key| key.kid.as_str()).collect::<Vec<_>>(), ["later"]);
    }

    #[test]
    fn rotation_publishes_before_it_signs_and_keeps_the_old_key_until_its_tokens_end() {
        let now = Utc::now();
        let at = |minutes| now + TimeDelta::minutes(minutes);
        let old = StoredKey {
            retires_at: Some(at(5)),
            expires_at: Some(at(21)),
            ..StoredKey::generate(&sealing(1), KeyAlgorithm::EdDsa, at(-60)).unwrap()
        };
        let new = StoredKey::generate(&sealing(1), KeyAlgorithm::Es256, at(5)).unwrap();
        let ring = KeyRing::open(vec![old.clone(), new.clone()], &sealing(1), now).unwrap();
        let signing = |minutes| ring.signing(at(minutes)).map(|key| key.stored.kid.clone());
        let published = |minutes| ring.published(at(minutes)).count();
        assert_eq!((signing(0), published(0)), (Some(old.kid.clone()), 2));
        assert_eq!((signing(5), published(5)), (Some(new.kid.clone()), 2));
        assert_eq!((signing(21), published(21)), (Some(new.kid.clone()), 1));
        assert_eq!(old.state(at(6)), KeyState::Retiring);
        assert_eq!(new.state(at(4)), KeyState::Published);
    }
}
