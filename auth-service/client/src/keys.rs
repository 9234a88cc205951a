//! Public keys, parsed and bound to one algorithm each (RFC 8725, 3.1).

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};

/// The two algorithms that may sign access tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// Ed25519 (RFC 8037), `alg` `EdDSA`.
    EdDsa,
    /// ECDSA on P-256 with SHA-256 (RFC 7518), `alg` `ES256`.
    Es256,
}

impl KeyAlgorithm {
    /// The `alg` of a token signed by such a key.
    pub fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
        }
    }

    /// The algorithm of this `alg`.
    pub fn of_name(name: &str) -> Option<Self> {
        [Self::EdDsa, Self::Es256].into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// As the jsonwebtoken crate names it.
    pub fn jwt(self) -> Algorithm {
        match self {
            Self::EdDsa => Algorithm::EdDSA,
            Self::Es256 => Algorithm::ES256,
        }
    }
}

/// A published key is not one that may sign access tokens.
#[derive(Debug, Clone, thiserror::Error)]
#[error("key {kid:?}: {reason}")]
pub struct KeyError {
    kid: String,
    reason: &'static str,
}

/// A public key with its id and its only algorithm.
#[derive(Debug, Clone)]
pub struct PublicKey {
    kid: String,
    algorithm: KeyAlgorithm,
    key: DecodingKey,
}

impl PublicKey {
    /// A key of an algorithm from the bytes of its public part.
    ///
    /// # Errors
    /// As [`ed25519`](Self::ed25519) and [`p256`](Self::p256).
    pub fn of(algorithm: KeyAlgorithm, kid: &str, public_key: &[u8]) -> Result<Self, KeyError> {
        match algorithm {
            KeyAlgorithm::EdDsa => Self::ed25519(kid, public_key),
            KeyAlgorithm::Es256 => Self::p256(kid, public_key),
        }
    }

    /// An Ed25519 key from its 32 bytes.
    ///
    /// # Errors
    /// The id is empty or the key has another length.
    pub fn ed25519(kid: &str, public_key: &[u8]) -> Result<Self, KeyError> {
        Self::checked(kid, KeyAlgorithm::EdDsa, public_key.len() == 32, || DecodingKey::from_ed_der(public_key))
    }

    /// A P-256 key from its uncompressed point (65 bytes, the first is 4).
    ///
    /// # Errors
    /// The id is empty or the point has another form.
    pub fn p256(kid: &str, point: &[u8]) -> Result<Self, KeyError> {
        Self::checked(kid, KeyAlgorithm::Es256, point.len() == 65 && point[0] == 4, || DecodingKey::from_ec_der(point))
    }

    /// Id of the key.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The only algorithm this key verifies.
    pub fn algorithm(&self) -> KeyAlgorithm {
        self.algorithm
    }

    pub(crate) fn decoding_key(&self) -> &DecodingKey {
        &self.key
    }

    /// The keys of a list that can be used; one of an unknown kind is left out, so that a new kind can be introduced.
    ///
    /// # Errors
    /// The list is not empty and none of its keys can be used.
    pub(crate) fn usable_of(list: &[proto::auth::v1::SigningKey]) -> Result<Vec<Self>, KeyError> {
        let mut refused = None;
        let mut usable = Vec::with_capacity(list.len());
        for key in list {
            match Self::try_from(key) {
                Ok(key) => usable.push(key),
                Err(error) => {
                    tracing::warn!(%error, "a published signing key is not usable and is left out");
                    refused = Some(error);
                }
            }
        }
        match refused {
            Some(error) if usable.is_empty() => Err(error),
            _ => Ok(usable),
        }
    }

    fn checked(
        kid: &str,
        algorithm: KeyAlgorithm,
        fits: bool,
        key: impl FnOnce() -> DecodingKey,
    ) -> Result<Self, KeyError> {
        let refuse = |reason| KeyError { kid: kid.to_owned(), reason };
        if kid.is_empty() {
            return Err(refuse("has no kid"));
        }
        if !fits {
            return Err(refuse("the public key has not the length of its algorithm"));
        }
        Ok(Self { kid: kid.to_owned(), algorithm, key: key() })
    }
}

/// A JSON Web Key as `ListSigningKeys` publishes it.
impl TryFrom<&proto::auth::v1::SigningKey> for PublicKey {
    type Error = KeyError;

    fn try_from(jwk: &proto::auth::v1::SigningKey) -> Result<Self, KeyError> {
        let refuse = |reason| KeyError { kid: jwk.kid.clone(), reason };
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| refuse("a coordinate is not base64url"));
        if !jwk.r#use.is_empty() && jwk.r#use != "sig" {
            return Err(refuse("its use is not sig"));
        }
        match (jwk.kty.as_str(), jwk.crv.as_str(), jwk.alg.as_str()) {
            ("OKP", "Ed25519", "EdDSA") => Self::ed25519(&jwk.kid, &bytes(&jwk.x)?),
            ("EC", "P-256", "ES256") => {
                let point = [vec![4], bytes(&jwk.x)?, bytes(&jwk.y)?].concat();
                Self::p256(&jwk.kid, &point)
            }
            _ => Err(refuse("its kind is neither Ed25519/EdDSA nor P-256/ES256")),
        }
    }
}

/// Keys by id. A token's `kid` is only ever looked up here; it is never a path, a URL or a query.
#[derive(Debug, Default)]
pub(crate) struct KeySet {
    by_kid: HashMap<String, PublicKey>,
}

impl KeySet {
    pub(crate) fn new(keys: Vec<PublicKey>) -> Self {
        Self { by_kid: keys.into_iter().map(|key| (key.kid.clone(), key)).collect() }
    }

    pub(crate) fn get(&self, kid: &str) -> Option<&PublicKey> {
        self.by_kid.get(kid)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_kid.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_kid.is_empty()
    }
}
