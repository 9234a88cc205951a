//! Accounts, and which account a login means.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::account::{Email, Username};

/// An account as its owner may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub id: Uuid,
    /// In the user's spelling.
    pub email: String,
    /// In the user's spelling.
    pub username: String,
    /// Name of the role.
    pub role: String,
    /// Whether it may sign in.
    pub is_active: bool,
    /// Whether mail arrives there.
    pub email_verified: bool,
    /// Last successful sign-in.
    pub last_login_at: Option<DateTime<Utc>>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed; a sign-in is no change.
    pub updated_at: DateTime<Utc>,
}

/// How many accounts there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserCounts {
    /// Those that can sign in.
    pub active: i64,
    /// Those that were deactivated.
    pub inactive: i64,
    /// Those whose address is verified.
    pub email_verified: i64,
    /// By role, in the order of the names; roles that nobody has are there with 0.
    pub by_role: Vec<(String, i64)>,
}

impl UserCounts {
    /// From counts by role, whether active and whether verified; a role that nobody has comes once, with nothing.
    pub fn sum(rows: impl IntoIterator<Item = (String, Option<bool>, Option<bool>, i64)>) -> Self {
        let mut counts = Self::default();
        for (role, is_active, is_verified, count) in rows {
            match is_active {
                Some(true) => counts.active += count,
                Some(false) => counts.inactive += count,
                None => {}
            }
            if is_verified == Some(true) {
                counts.email_verified += count;
            }
            match counts.by_role.last_mut().filter(|(last, _)| *last == role) {
                Some((_, sum)) => *sum += count,
                None => counts.by_role.push((role, count)),
            }
        }
        counts
    }
}

/// An account of another system that is to be taken over.
#[derive(Debug, Clone)]
pub struct ImportedUser {
    /// Its id here.
    pub id: Uuid,
    /// Whether the id is that of the other system.
    pub has_own_id: bool,
    /// The address.
    pub email: Email,
    /// The name.
    pub username: Username,
    /// The hash as it is there; checked.
    pub password_hash: String,
    /// Whether mail is known to arrive.
    pub email_verified: bool,
    /// Whether it may sign in.
    pub is_active: bool,
    /// The name of its role.
    pub role: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// An account that is to be made.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// Its id.
    pub id: Uuid,
    /// Checked.
    pub email: Email,
    /// Checked.
    pub username: Username,
}

/// An account with what a sign-in is checked against.
#[derive(Clone)]
pub struct Credentials {
    /// The account.
    pub user: User,
    /// As stored, whatever it is.
    pub password_hash: String,
    /// Folded e-mail; `None` on a duplicate by case.
    pub email_key: Option<String>,
    /// Folded user name; `None` on a duplicate by case.
    pub username_key: Option<String>,
}

/// Of the accounts that a login may mean the one it does: exact e-mail, exact user name, e-mail ignoring case, user name
/// ignoring case. Legacy accounts may differ by case only, and a legacy user name may be another's address.
pub fn best_match(candidates: impl IntoIterator<Item = Credentials>, login: &str, key: &str) -> Option<Credentials> {
    let rank = |candidate: &Credentials| {
        let fits = [
            candidate.user.email == login,
            candidate.user.username == login,
            candidate.email_key.as_deref() == Some(key),
            candidate.username_key.as_deref() == Some(key),
        ];
        fits.iter().position(|fits| *fits)
    };
    let ranked = candidates.into_iter().filter_map(|candidate| Some((rank(&candidate)?, candidate)));
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::login_key::fold;

    fn account(email: &str, username: &str, keyed: bool) -> Credentials {
        let user = User {
            id: Uuid::now_v7(),
            email: email.to_owned(),
            username: username.to_owned(),
            role: "member".to_owned(),
            is_active: true,
            email_verified: false,
            last_login_at: None,
            created_at: DateTime::UNIX_EPOCH,
            updated_at: DateTime::UNIX_EPOCH,
        };
        Credentials {
            user,
            password_hash: String::new(),
            email_key: keyed.then(|| fold(email)),
            username_key: keyed.then(|| fold(username)),
        }
    }

    #[test]
    fn exact_spelling_wins_over_case_and_e_mail_over_name() {
        let older = account("Bob@x", "Bob", true);
        let younger = account("bob@x", "bob", false);
        let squatter = account("mallory@x", "bob@x", true);
        let meant = |login: &str| {
            best_match([squatter.clone(), younger.clone(), older.clone()], login, &fold(login))
                .map(|account| account.user.email)
        };
        assert_eq!(meant("bob@x").as_deref(), Some("bob@x"));
        assert_eq!(meant("Bob@x").as_deref(), Some("Bob@x"));
        assert_eq!(meant("BOB@X").as_deref(), Some("Bob@x"), "ignoring case the account that has the key");
        assert_eq!(meant("bob").as_deref(), Some("bob@x"));
        assert_eq!(meant("bOB").as_deref(), Some("Bob@x"));
        assert_eq!(meant("nobody"), None);
    }
}
