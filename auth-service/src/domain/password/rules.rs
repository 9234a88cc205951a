//! What a new password must be (NIST SP 800-63B-4, OWASP ASVS 5 6.2): long enough, not well known, not the user's own name.
//! No rules of composition. Passwords that exist are never held against these rules.

use std::collections::HashSet;
use std::sync::LazyLock;

use crate::domain::login_key::fold;

/// Least length, in code points.
pub const SHORTEST: usize = 8;
/// Most length, in bytes.
pub const LONGEST: usize = 1024;

/// Well-known passwords of at least [`SHORTEST`] characters, lower case, one a line.
static COMMON: LazyLock<HashSet<&'static str>> = LazyLock::new(|| include_str!("common.txt").lines().collect());

/// Why a new password is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordProblem {
    /// Too few code points.
    #[error("expected at least 8 characters")]
    TooShort,
    /// Too many bytes.
    #[error("expected at most 1024 bytes")]
    TooLong,
    /// On the list of well-known passwords.
    #[error("this password is among the best known ones: choose another")]
    Common,
    /// The account's own e-mail address or name.
    #[error("expected something else than the e-mail address or the user name")]
    OwnName,
}

/// Checks a new password of the account with this e-mail address and user name.
///
/// # Errors
/// The first rule it breaks.
pub fn check_new_password(password: &str, email: &str, username: &str) -> Result<(), PasswordProblem> {
    if password.len() > LONGEST {
        return Err(PasswordProblem::TooLong);
    }
    if password.chars().count() < SHORTEST {
        return Err(PasswordProblem::TooShort);
    }
    let folded = fold(password);
    let local_part = email.split('@').next().unwrap_or_default();
    if [email, local_part, username].iter().any(|own| !own.is_empty() && fold(own) == folded) {
        return Err(PasswordProblem::OwnName);
    }
    match COMMON.contains(folded.as_str()) {
        true => Err(PasswordProblem::Common),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(password: &str) -> Result<(), PasswordProblem> {
        check_new_password(password, "margaret.h@example.com", "margarethamilton")
    }

    #[test]
    fn the_list_is_in_the_form_it_is_compared_in() {
        assert!(COMMON.len() >= 300);
        for word in COMMON.iter() {
            assert!(
                word.chars().count() >= SHORTEST && fold(word) == *word,
                "{word:?} can never match: list it folded and with 8 characters at least"
            );
        }
    }

    #[test]
    fn length_counts_code_points_below_and_bytes_above() {
        assert_eq!(check("short77"), Err(PasswordProblem::TooShort));
        assert_eq!(check("ééééééé"), Err(PasswordProblem::TooShort));
        assert_eq!(check("パスワードでない!"), Ok(()));
        assert_eq!(check(&"x".repeat(1024)), Ok(()));
        assert_eq!(check(&"x".repeat(1025)), Err(PasswordProblem::TooLong));
        assert_eq!(check(&"é".repeat(513)), Err(PasswordProblem::TooLong));
    }

    #[test]
    fn well_known_and_own_names_are_refused_whatever_their_case() {
        for known in ["password", "PassWord", "12345678", "Password123", "qwertyuiop"] {
            assert_eq!(check(known), Err(PasswordProblem::Common), "{known}");
        }
        for own in ["MargaretHamilton", "margaret.h@EXAMPLE.com", "margaret.h"] {
            assert_eq!(check(own), Err(PasswordProblem::OwnName), "{own}");
        }
        assert_eq!(check("password of a lighthouse"), Ok(()), "compared whole");
    }
}
