//! E-mail addresses and user names of new accounts. Names that exist are never held against these rules.

use unicode_normalization::UnicodeNormalization as _;

use super::login_key::fold;

/// Most characters of an e-mail address: the column's width.
pub const LONGEST_EMAIL: usize = 255;
/// Most characters of a user name: the column's width.
pub const LONGEST_USERNAME: usize = 50;

/// Where so many names derived from one address are taken, a person has to choose.
const MOST_DERIVED: usize = 20;

/// Why a new e-mail address or user name is not accepted; the text says what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NameProblem(&'static str);

/// A well-formed e-mail address in the user's spelling (NFC).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Email(String);

/// A well-formed user name in the user's spelling (NFC).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Username(String);

impl Email {
    /// Checks the form: one `@`, something on both sides, no white space, no control characters, at most 255 characters.
    /// Whether mail arrives there is for verification to find out.
    ///
    /// # Errors
    /// The rule it breaks.
    pub fn parse(text: &str) -> Result<Self, NameProblem> {
        let text: String = text.nfc().collect();
        if text.chars().count() > LONGEST_EMAIL {
            return Err(NameProblem("expected at most 255 characters"));
        }
        if text.chars().any(|c| c.is_whitespace() || is_invisible(c)) {
            return Err(NameProblem("expected no white space, control or invisible characters"));
        }
        match text.split_once('@') {
            Some((local, domain)) if !local.is_empty() && is_domain(domain) => Ok(Self(text)),
            _ => Err(NameProblem("expected an e-mail address such as name@example.com")),
        }
    }

    /// The address as the user wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form that must be unique.
    pub fn key(&self) -> String {
        fold(&self.0)
    }

    /// User names for an account that is given none: what stands before the `@`, cut to what fits, then the same with a number.
    pub fn usernames(&self) -> impl Iterator<Item = Username> {
        let local = self.0.split('@').next().unwrap_or_default();
        (1..=MOST_DERIVED).filter_map(move |number| {
            let suffix = if number == 1 { String::new() } else { format!("-{number}") };
            let kept: String = local.chars().take(LONGEST_USERNAME - suffix.len()).collect();
            Username::parse(&(kept + &suffix)).ok()
        })
    }
}

impl Username {
    /// Checks the form: 1 to 50 characters, no `@`, no control or invisible characters, white space only as single
    /// spaces inside.
    ///
    /// # Errors
    /// The rule it breaks.
    pub fn parse(text: &str) -> Result<Self, NameProblem> {
        let text: String = text.nfc().collect();
        let length = text.chars().count();
        if length == 0 || length > LONGEST_USERNAME {
            return Err(NameProblem("expected 1 to 50 characters"));
        }
        if text.contains('@') {
            return Err(NameProblem("expected no \"@\": an e-mail address goes into its own field"));
        }
        if text.chars().any(|c| is_invisible(c) || c.is_whitespace() && c != ' ') {
            return Err(NameProblem(
                "expected no control or invisible characters and no white space but single spaces",
            ));
        }
        if text.starts_with(' ') || text.ends_with(' ') || text.contains("  ") {
            return Err(NameProblem("expected no spaces at the ends and no two in a row"));
        }
        Ok(Self(text))
    }

    /// The name as the user wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form that must be unique.
    pub fn key(&self) -> String {
        fold(&self.0)
    }
}

fn is_domain(domain: &str) -> bool {
    !domain.is_empty() && !domain.contains('@') && !domain.split('.').any(str::is_empty)
}

/// Characters that make two names look alike: controls, format characters, fillers, tags and private use.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffd}' | '\u{e000}'..='\u{f8ff}'
            | '\u{e0000}'..='\u{e0fff}' | '\u{f0000}'..='\u{10ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e_mail_addresses() {
        for good in ["a@b", "Bob+x@Example.com", "rené@example.com", "用户@例子.广告"] {
            assert_eq!(Email::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "@", "a@", "@b", "a b@c", "a@b@c", "a@b..c", "a@b.", "a\u{0}@b", "a\u{200b}@b", "a@b\n", " a@b"]
        {
            assert!(Email::parse(bad).is_err(), "{bad:?}");
        }
        let longest = format!("{}@b", "é".repeat(LONGEST_EMAIL - 2));
        assert!(Email::parse(&longest).is_ok());
        assert!(Email::parse(&format!("x{longest}")).is_err());
    }

    #[test]
    fn user_names() {
        for good in ["a", "bob", "Bob the Builder", "ゆき", "o'neil-2"] {
            assert_eq!(Username::parse(good).unwrap().as_str(), good);
        }
        for bad in
            ["", " ", " a", "a ", "a  b", "a\tb", "a@b", "a\u{202e}b", "a\u{a0}b", "a\u{feff}", "a\u{7f}", "\u{3164}"]
        {
            assert!(Username::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Username::parse(&"é".repeat(50)).is_ok());
        assert!(Username::parse(&"é".repeat(51)).is_err());
    }

    #[test]
    fn user_names_are_derived_from_addresses() {
        let derived = |email: &str| -> Vec<String> {
            Email::parse(email).unwrap().usernames().map(|name| name.as_str().to_owned()).collect()
        };
        assert_eq!(derived("root@example.com")[..3], ["root", "root-2", "root-3"]);
        let long = derived(&format!("{}@example.com", "é".repeat(64)));
        assert_eq!(long[..2], ["é".repeat(50), format!("{}-2", "é".repeat(48))]);
        assert_eq!(long.len(), MOST_DERIVED);
    }

    #[test]
    fn the_spelling_is_composed_and_the_key_is_folded() {
        let name = Username::parse("Rene\u{301}").unwrap();
        assert_eq!(name.as_str(), "Ren\u{e9}");
        assert_eq!(name.key(), "ren\u{e9}");
    }
}
