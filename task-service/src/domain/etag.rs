//! Etags: which version of a task a caller has seen.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The etag of a version. Opaque to callers: they compare it and send it back.
pub fn etag_of(version: i64) -> String {
    URL_SAFE_NO_PAD.encode(version.to_be_bytes())
}

/// The version of a text that was never handed out as an etag. Versions begin with 1, so it is never the current one.
const NEVER: i64 = 0;

/// Which version an etag names; `None` for the empty text, which names none. A text that is no etag counts as a stale one.
pub fn version_of(etag: &str) -> Option<i64> {
    if etag.is_empty() {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(etag).ok().and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
    Some(bytes.map_or(NEVER, i64::from_be_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_names_its_version_again() {
        for version in [1, 2, 255, 256, i64::MAX] {
            assert_eq!(version_of(&etag_of(version)), Some(version));
        }
        assert_eq!(version_of(""), None);
        for bad in ["1", "AAAA", "not an etag", "AAAAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(version_of(bad), Some(NEVER), "{bad}");
        }
    }
}
