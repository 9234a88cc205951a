//! Tokens that mean nothing by themselves: 256 random bits as text, stored only as a hash.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::sealing::CryptoFailure;

/// A token as its holder has it. No `Debug`: it must not be printed.
pub struct OpaqueToken(Zeroizing<String>);

impl OpaqueToken {
    /// A new one.
    ///
    /// # Errors
    /// The system gave no random bytes.
    pub fn generate() -> Result<Self, CryptoFailure> {
        let mut bytes = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(bytes.as_mut())?;
        Ok(Self(Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_slice()))))
    }

    /// What somebody presents; any text.
    pub fn presented(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text for its holder.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is stored: SHA-256 of the text, lower-case hex. The token has 256 random bits, so a fast hash is enough.
    pub fn hash(&self) -> String {
        hex::encode(digest(&SHA256, self.0.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_form_is_that_of_the_legacy_system() {
        let token = OpaqueToken::presented("legacy-refresh-1".to_owned());
        assert_eq!(token.hash(), "7c47f9e7aa96dede06dd3b0c155774808ea104add70a16c5a36911a9cb56347e");
    }

    #[test]
    fn tokens_are_256_bits_and_differ() {
        let (one, other) = (OpaqueToken::generate().unwrap(), OpaqueToken::generate().unwrap());
        assert_eq!(URL_SAFE_NO_PAD.decode(one.reveal()).unwrap().len(), 32);
        assert_ne!(one.reveal(), other.reveal());
    }
}
