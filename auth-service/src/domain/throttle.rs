//! How failed sign-ins slow down who makes them (NIST SP 800-63B 3.2.2, OWASP ASVS 6.3.1).
//!
//! Two counts: per login and source, which grows a delay; and per account whatever the source, with a ceiling. Neither keeps the
//! owner from a new password by mail, which ends both.

use aws_lc_rs::digest::{SHA256, digest};
use chrono::TimeDelta;
use uuid::Uuid;

use super::login_key::fold;

/// Failures without a delay: people mistype, and try their other passwords.
const FREE_FAILURES: i32 = 10;
/// The first delay; each further failure doubles it.
const FIRST_DELAY: TimeDelta = TimeDelta::seconds(1);
const LONGEST_DELAY: TimeDelta = TimeDelta::minutes(15);
/// Consecutive failures of one account, whatever their sources (NIST SP 800-63B: no more than 100).
const CEILING: i32 = 100;
/// From there on one more attempt is let through after this time.
const CEILING_DELAY: TimeDelta = TimeDelta::hours(24);

/// How long a count of a source, or of a login that no account has, is kept after its last failure.
const FORGET_SOURCE: TimeDelta = TimeDelta::hours(24);
/// And of an account: consecutive failures stay consecutive.
const FORGET_ACCOUNT: TimeDelta = TimeDelta::days(365);

/// Which counts an attempt belongs to. Hashes, so that the table holds no login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThrottleKeys {
    /// What was tried: a login, or an account by its own password.
    pub tried: String,
    /// From where; empty if that is unknown.
    pub source: String,
    /// The account; where there is none the login stands for it, so that both are answered alike.
    pub account: String,
    is_known: bool,
}

impl ThrottleKeys {
    /// Of a sign-in.
    pub fn of_login(login: &str, account: Option<Uuid>, source: Option<&str>) -> Self {
        let tried = key_of_login(login);
        Self {
            account: account.map_or_else(|| tried.clone(), key_of_account),
            tried,
            source: source.unwrap_or_default().to_owned(),
            is_known: account.is_some(),
        }
    }

    /// Of who signed in and says the password once more.
    pub fn of_account(account: Uuid, source: Option<&str>) -> Self {
        let key = key_of_account(account);
        Self { tried: key.clone(), source: source.unwrap_or_default().to_owned(), account: key, is_known: true }
    }

    /// How long the count of the account is kept.
    pub fn account_kept(&self) -> TimeDelta {
        if self.is_known { FORGET_ACCOUNT } else { FORGET_SOURCE }
    }

    /// How long the count of the source is kept.
    pub fn source_kept(&self) -> TimeDelta {
        FORGET_SOURCE
    }
}

/// All keys under which failures of an account are counted.
pub fn keys_of_account(account: Uuid, email: &str, username: &str) -> [String; 3] {
    [key_of_account(account), key_of_login(email), key_of_login(username)]
}

fn key_of_account(account: Uuid) -> String {
    hash(b"account\0", account.as_bytes())
}

fn key_of_login(login: &str) -> String {
    hash(b"login\0", fold(login).as_bytes())
}

fn hash(purpose: &[u8], what: &[u8]) -> String {
    use std::fmt::Write as _;
    let digest = digest(&SHA256, &[purpose, what].concat());
    digest.as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The delay after so many failures in a row from one source.
pub fn source_delay(failures: i32) -> TimeDelta {
    match u32::try_from(failures - FREE_FAILURES) {
        Ok(beyond) => (FIRST_DELAY * 2_i32.pow(beyond.min(16))).min(LONGEST_DELAY),
        Err(_) => TimeDelta::zero(),
    }
}

/// The delay after so many failures in a row of one account.
pub fn account_delay(failures: i32) -> TimeDelta {
    if failures < CEILING { TimeDelta::zero() } else { CEILING_DELAY }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_grows_to_a_bound() {
        let seconds: Vec<i64> = (8..24).map(|failures| source_delay(failures).num_seconds()).collect();
        assert_eq!(seconds, [0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900, 900]);
        assert_eq!(source_delay(i32::MAX), LONGEST_DELAY);
        assert_eq!((account_delay(99), account_delay(100)), (TimeDelta::zero(), CEILING_DELAY));
    }

    #[test]
    fn one_account_has_one_count_whatever_the_login() {
        let account = Uuid::now_v7();
        let by_email = ThrottleKeys::of_login("Ann@example.com", Some(account), Some("::1"));
        let by_name = ThrottleKeys::of_login("ann", Some(account), None);
        assert_eq!(by_email.account, by_name.account);
        assert_ne!(by_email.tried, by_name.tried);
        assert_eq!(by_email.tried, ThrottleKeys::of_login("ann@EXAMPLE.com", None, None).tried);
        assert!(keys_of_account(account, "ann@example.com", "ann").contains(&by_email.tried));
        assert!(keys_of_account(account, "ann@example.com", "ann").contains(&by_name.account));
    }
}
