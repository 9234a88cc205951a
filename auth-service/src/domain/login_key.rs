//! The form in which e-mail addresses and user names are compared: `users.email_key` and `users.username_key`.
//!
//! Canonical caseless matching of the Unicode Standard (3.13, D145), stored composed: NFD, full case folding, NFC.
//! For ASCII this is lower case, which the migration computes in SQL; everything else comes from here alone.

use caseless::Caseless as _;
use unicode_normalization::UnicodeNormalization as _;

/// The key of a text. Idempotent; equal for texts that differ by case or by composition only.
pub fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    // A second round catches what composing makes foldable again.
    let once: String = text.nfd().default_case_fold().nfc().collect();
    once.nfd().default_case_fold().nfc().collect()
}

#[cfg(test)]
mod tests {
    use super::fold;

    #[test]
    fn case_and_composition_do_not_count() {
        for (one, other) in [
            ("Bob@Example.COM", "bob@example.com"),
            ("Ren\u{e9}", "RENE\u{301}"),
            ("Stra\u{df}e", "STRASSE"),
            ("\u{3a3}\u{399}\u{3a3}\u{3a5}\u{3a6}\u{39f}\u{3a3}", "\u{3c3}\u{3b9}\u{3c3}\u{3c5}\u{3c6}\u{3bf}\u{3c2}"),
            ("\u{212a}elvin", "kelvin"),
            ("\u{1fc3}", "\u{3b7}\u{345}"),
        ] {
            assert_eq!(fold(one), fold(other), "{one} {other}");
        }
    }

    #[test]
    fn different_names_stay_different() {
        for (one, other) in [("rene", "rené"), ("і", "i"), ("bob1", "bob2")] {
            assert_ne!(fold(one), fold(other));
        }
    }

    #[test]
    fn folding_twice_changes_nothing() {
        for scalar in (0..=0x2_ffff_u32).filter_map(char::from_u32) {
            let once = fold(&format!("a{scalar}\u{301}"));
            assert_eq!(fold(&once), once, "{scalar:?}");
        }
    }
}
