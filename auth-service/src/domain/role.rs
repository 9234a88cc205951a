//! Roles: a name, and what its holders may do.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// Most characters of a role's name: the column's width.
const LONGEST_NAME: usize = 50;

/// A role as administrators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Its id.
    pub id: Uuid,
    /// What accounts and tokens carry.
    pub name: String,
    /// For people.
    pub display_name: String,
    /// What it is for.
    pub description: String,
    /// From the catalogue.
    pub permissions: BTreeSet<String>,
    /// Whether it is there from the beginning.
    pub is_system: bool,
    /// Whether it can be assigned, and its permissions count.
    pub is_active: bool,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

/// What of a role changes; `None` leaves it.
#[derive(Debug, Clone, Default)]
pub struct RoleChange {
    /// The name.
    pub name: Option<RoleName>,
    /// The name for people.
    pub display_name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// What its holders may do.
    pub permissions: Option<BTreeSet<String>>,
    /// Whether it counts.
    pub is_active: Option<bool>,
}

/// A role that is to be made.
#[derive(Debug, Clone)]
pub struct NewRole {
    /// Its id.
    pub id: Uuid,
    /// Checked.
    pub name: RoleName,
    /// For people.
    pub display_name: String,
    /// What it is for.
    pub description: String,
    /// From the catalogue.
    pub permissions: BTreeSet<String>,
}

/// A well-formed name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleName(String);

impl RoleName {
    /// Checks the form: 1 to 50 characters of `a` to `z`, `0` to `9`, `_` and `-`, a letter first.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
        let is_name = text.len() <= LONGEST_NAME
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.chars().all(allowed);
        if is_name {
            Ok(Self(text.to_owned()))
        } else {
            Err("expected 1 to 50 characters of a to z, 0 to 9, _ and -, a letter first")
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The permissions of a request: each must be in the catalogue.
///
/// # Errors
/// The place of the first that is not.
pub fn permissions(names: &[String]) -> Result<BTreeSet<String>, usize> {
    let catalogue = proto::policy::permissions();
    let known = |(place, name): (usize, &String)| catalogue.get(name).cloned().ok_or(place);
    names.iter().enumerate().map(known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "admin", "on-call_2", &"a".repeat(50)] {
            assert_eq!(RoleName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "A", "2a", "-a", "a b", "ä", "a\0", &"a".repeat(51)] {
            assert!(RoleName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn permissions_are_those_of_the_catalogue() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let held = permissions(&names(&["users.write", "users.read", "users.read"])).unwrap();
        assert_eq!(held.into_iter().collect::<Vec<_>>(), ["users.read", "users.write"]);
        assert_eq!(permissions(&names(&["users.read", "everything"])), Err(1));
    }
}
