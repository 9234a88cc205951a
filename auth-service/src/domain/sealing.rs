//! Authenticated encryption of small secrets: AES-256-GCM with a random nonce, bound to what it belongs to.
//!
//! Layout: version (1 byte), nonce (12), ciphertext and tag. 2^32 seals under one key are far more than ever happen.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

/// Version of the layout.
const VERSION: u8 = 1;
/// Bytes of an AES-256 key.
const KEY_LENGTH: usize = 32;

/// A key that seals and opens.
pub struct SealingKey(LessSafeKey);

/// Why a sealed value does not open: another key, another owner, or damage; which one cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sealed value does not open with this key")]
pub struct OpenError;

/// The system gave no random bytes, or a key of the wrong length reached the cipher: neither happens in practice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cryptographic library failed")]
pub struct CryptoFailure;

impl From<aws_lc_rs::error::Unspecified> for CryptoFailure {
    fn from(_: aws_lc_rs::error::Unspecified) -> Self {
        Self
    }
}

impl SealingKey {
    /// A key from its 32 bytes.
    ///
    /// # Errors
    /// Another length.
    pub fn new(bytes: &[u8]) -> Result<Self, CryptoFailure> {
        Ok(Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes)?)))
    }

    /// A key derived (HKDF-SHA-256) from a secret of high entropy, for one purpose.
    ///
    /// # Errors
    /// The cryptographic library fails.
    pub fn derived(secret: &[u8], purpose: &str) -> Result<Self, CryptoFailure> {
        let info = [purpose.as_bytes()];
        let extracted = Salt::new(HKDF_SHA256, b"auth-service").extract(secret);
        Ok(Self(LessSafeKey::new(UnboundKey::from(extracted.expand(&info, &AES_256_GCM)?))))
    }

    /// Seals a secret; it opens only for the same `owner`.
    ///
    /// # Errors
    /// The system gave no random bytes.
    pub fn seal(&self, secret: &[u8], owner: &str) -> Result<Vec<u8>, CryptoFailure> {
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce)?;
        let mut text = secret.to_vec();
        self.0.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(owner.as_bytes()), &mut text)?;
        Ok([&[VERSION], nonce.as_slice(), &text].concat())
    }

    /// Opens what [`seal`](Self::seal) made for the same `owner`.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&self, sealed: &[u8], owner: &str) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let (head, text) = sealed.split_at_checked(1 + NONCE_LEN).ok_or(OpenError)?;
        let (&VERSION, nonce) = head.split_first().ok_or(OpenError)? else { return Err(OpenError) };
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| OpenError)?;
        let mut text = Zeroizing::new(text.to_vec());
        let length = self.0.open_in_place(nonce, Aad::from(owner.as_bytes()), &mut text).map_err(|_| OpenError)?.len();
        text.truncate(length);
        Ok(text)
    }
}

/// The bytes of a key, from base64 text of exactly 32 (`openssl rand -base64 32`), with or without padding, either alphabet.
///
/// # Errors
/// What was expected; never the text.
pub fn key_bytes(text: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let text = text.trim();
    let engines = [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD];
    let bytes = engines.iter().find_map(|engine| engine.decode(text).ok()).map(Zeroizing::new);
    let bytes =
        bytes.ok_or("expected 32 random bytes in base64, as \"openssl rand -base64 32\" prints; this is not base64")?;
    if bytes.len() != KEY_LENGTH {
        return Err(format!(
            "expected 32 random bytes in base64, as \"openssl rand -base64 32\" prints; these are {} bytes",
            bytes.len()
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_for_its_owner_with_its_key_undamaged_only() {
        let key = SealingKey::new(&[7; 32]).unwrap();
        let sealed = key.seal(b"secret", "kid-1").unwrap();
        assert_eq!(key.open(&sealed, "kid-1").unwrap().as_slice(), b"secret");
        assert!(key.open(&sealed, "kid-2").is_err());
        assert!(SealingKey::new(&[8; 32]).unwrap().open(&sealed, "kid-1").is_err());
        for place in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[place] ^= 1;
            assert!(key.open(&damaged, "kid-1").is_err(), "byte {place}");
            assert!(key.open(&sealed[..place], "kid-1").is_err(), "cut at {place}");
        }
        assert_ne!(sealed, key.seal(b"secret", "kid-1").unwrap(), "no two nonces are equal");
    }

    #[test]
    fn derived_keys_depend_on_secret_and_purpose() {
        let seal = |secret: &[u8], purpose| SealingKey::derived(secret, purpose).unwrap();
        let sealed = seal(b"token", "a").seal(b"x", "").unwrap();
        assert!(seal(b"token", "a").open(&sealed, "").is_ok());
        assert!(seal(b"token", "b").open(&sealed, "").is_err());
        assert!(seal(b"tokem", "a").open(&sealed, "").is_err());
    }

    #[test]
    fn keys_are_read_from_base64_of_32_bytes() {
        for bytes in [[0_u8; 32], [0xff; 32]] {
            for text in [STANDARD.encode(bytes), URL_SAFE_NO_PAD.encode(bytes), format!("{}\n", STANDARD.encode(bytes))]
            {
                assert!(key_bytes(&text).is_ok(), "{text}");
            }
        }
        for bad in ["", "secret key!", "c2hvcnQ=", &STANDARD.encode([0; 33]), &"0".repeat(64)] {
            let error = key_bytes(bad).err().unwrap();
            assert!(
                error.contains("expected 32 random bytes in base64") && (bad.is_empty() || !error.contains(bad)),
                "{error}"
            );
        }
    }
}
