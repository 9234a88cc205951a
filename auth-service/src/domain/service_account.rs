//! Service accounts: programs that sign in with an id and a secret.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

/// How long the secret before stays good without more said.
pub const OVERLAP: TimeDelta = TimeDelta::hours(24);
/// Most characters of a name: the column's width.
const LONGEST_NAME: usize = 100;

/// A service account as administrators see it.
#[derive(Debug, Clone)]
pub struct ServiceAccount {
    /// Its id, and the subject of its tokens.
    pub id: Uuid,
    /// For people.
    pub name: String,
    /// For signing in.
    pub client_id: String,
    /// From the catalogue.
    pub permissions: BTreeSet<String>,
    /// Those that are good now, the newest first.
    pub secrets: Vec<Secret>,
    /// When a token was last issued.
    pub last_used_at: Option<DateTime<Utc>>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

/// What is known of a secret.
#[derive(Debug, Clone)]
pub struct Secret {
    /// Its id.
    pub id: Uuid,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ends; `None`: when it is rotated.
    pub expires_at: Option<DateTime<Utc>>,
    /// When a token was last issued for it.
    pub last_used_at: Option<DateTime<Utc>>,
}

/// A service account that is to be made.
#[derive(Debug, Clone)]
pub struct NewServiceAccount {
    /// Its id.
    pub id: Uuid,
    /// Checked.
    pub name: String,
    /// For signing in.
    pub client_id: String,
    /// From the catalogue.
    pub permissions: BTreeSet<String>,
}

impl NewServiceAccount {
    /// With an id to sign in with: no secret, and not the name for people, which may change.
    pub fn new(name: String, permissions: BTreeSet<String>) -> Self {
        let id = Uuid::now_v7();
        Self { id, name, client_id: format!("svc-{}", id.simple()), permissions }
    }
}

/// An id to sign in with that somebody chose.
///
/// # Errors
/// What was expected.
pub fn client_id(text: &str) -> Result<String, &'static str> {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let fits = (1..=64).contains(&text.len()) && text.chars().all(is_allowed);
    fits.then(|| text.to_owned()).ok_or("expected 1 to 64 lower-case letters, digits and hyphens")
}

/// A name for people, without white space around it.
///
/// # Errors
/// What was expected.
pub fn name(text: &str) -> Result<String, &'static str> {
    let name = text.trim();
    let fits = !name.is_empty() && name.chars().count() <= LONGEST_NAME && !name.chars().any(char::is_control);
    fits.then(|| name.to_owned()).ok_or("expected 1 to 100 characters, no control characters, not only white space")
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn names() {
        assert_eq!(name(" Reporting, nightly ").unwrap(), "Reporting, nightly");
        assert_eq!(name(&"é".repeat(100)).unwrap().chars().count(), 100);
        for bad in ["", "  ", "a\nb", "a\0", &"é".repeat(101)] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }
}
