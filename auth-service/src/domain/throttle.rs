//! How failed sign-ins slow down who makes them (NIST SP 800-63B 3.2.2, OWASP ASVS 6.3.1).
//!
//! Two counts: per login and source, which grows a delay; and per login whatever the source, with a ceiling. Neither keeps the
//! owner from a new password by mail, which ends both. Nothing is counted by account: what one login is refused would tell that
//! another one is of the same account.

use std::net::{IpAddr, Ipv6Addr};

use aws_lc_rs::digest::{SHA256, digest};
use chrono::TimeDelta;
use uuid::Uuid;

use super::login_key::fold;

/// Failures without a delay: people mistype, and try their other passwords.
const FREE_FAILURES: i32 = 10;
/// The first delay; each further failure doubles it.
const FIRST_DELAY: TimeDelta = TimeDelta::seconds(1);
const LONGEST_DELAY: TimeDelta = TimeDelta::minutes(15);
/// Consecutive failures of one login, whatever their sources. An account has two, and takes no more than 100 (NIST SP 800-63B).
const CEILING: i32 = 50;
/// From there on one more attempt is let through after this time.
const CEILING_DELAY: TimeDelta = TimeDelta::hours(24);

/// How long a count is kept after its last failure, whether there is such an account or not.
pub const KEPT: TimeDelta = TimeDelta::days(30);

/// Which counts an attempt belongs to. A hash, so that the table holds no login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThrottleKeys {
    /// What was tried: a login, or an account by its own password.
    pub tried: String,
    /// From where; empty if that is unknown.
    pub source: String,
}

impl ThrottleKeys {
    /// Of a sign-in.
    pub fn of_login(login: &str, source: Option<&str>) -> Self {
        Self { tried: key_of_login(login), source: source.map(network).unwrap_or_default() }
    }

    /// Of who signed in and says the password once more: failures of strangers do not count here.
    pub fn of_account(account: Uuid, source: Option<&str>) -> Self {
        Self { tried: key_of_account(account), source: source.map(network).unwrap_or_default() }
    }
}

/// Whoever has one IPv6 address has the 2^64 around it.
fn network(source: &str) -> String {
    match source.parse() {
        Ok(IpAddr::V6(address)) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            format!("{}/64", Ipv6Addr::from(network))
        }
        _ => source.to_owned(),
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
    hex::encode(digest(&SHA256, &[purpose, what].concat()))
}

/// The delay after so many failures in a row from one source.
pub fn source_delay(failures: i32) -> TimeDelta {
    match u32::try_from(failures - FREE_FAILURES) {
        Ok(beyond) => (FIRST_DELAY * 2_i32.pow(beyond.min(16))).min(LONGEST_DELAY),
        Err(_) => TimeDelta::zero(),
    }
}

/// The delay after so many failures in a row from all sources together.
pub fn overall_delay(failures: i32) -> TimeDelta {
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
        assert_eq!((overall_delay(49), overall_delay(50)), (TimeDelta::zero(), CEILING_DELAY));
    }

    #[test]
    fn a_login_has_one_count_in_any_case_and_a_network_is_one_source() {
        let of = |login: &str, source: &str| ThrottleKeys::of_login(login, Some(source));
        assert_eq!(of("Ann@example.com", "127.0.0.1"), of("ann@EXAMPLE.com", "127.0.0.1"));
        assert_ne!(of("ann", "127.0.0.1"), of("ann", "127.0.0.2"));
        assert_eq!(of("ann", "2001:db8::1"), of("ann", "2001:db8::ffff:0:1"));
        assert_ne!(of("ann", "2001:db8::1"), of("ann", "2001:db8:0:1::1"));
        let account = Uuid::now_v7();
        let keys = keys_of_account(account, "ann@example.com", "ann");
        assert!(keys.contains(&of("ANN", "").tried) && keys.contains(&of("ann@example.com", "").tried));
        assert!(keys.contains(&ThrottleKeys::of_account(account, None).tried));
    }
}
