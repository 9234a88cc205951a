//! Accounts whose stored hash cannot be computed. An operator must hear of them; whoever tries such an account all day must not
//! fill the log.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

/// An account is named in the log this often at most.
const SILENCE: Duration = Duration::from_secs(3600);
/// Accounts that are remembered; while more than these are tried within the hour, further ones are counted only.
const MOST: usize = 1024;

/// Why a stored hash is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// It asks for more memory, passes or lanes than the ceiling.
    AboveCeiling,
    /// It is no Argon2 PHC string.
    Malformed,
}

/// Counts each attempt and names each account once an hour. Cheap to clone; all clones share it.
#[derive(Clone, Default)]
pub struct UnusableHashes {
    told: Arc<Mutex<HashMap<Uuid, Instant>>>,
}

impl UnusableHashes {
    /// Notes an attempt against such an account.
    pub fn note(&self, user_id: Uuid, unusable: Unusable) {
        let reason = match unusable {
            Unusable::AboveCeiling => "above_ceiling",
            Unusable::Malformed => "malformed",
        };
        metrics::counter!("unusable_password_hashes_total", "reason" => reason).increment(1);
        if !self.is_due(user_id, Instant::now()) {
            return;
        }
        match unusable {
            Unusable::AboveCeiling => tracing::error!(
                %user_id,
                "the stored password hash asks for more than the ceiling; raise PASSWORD_HASH_MAX_* or reset the password"
            ),
            Unusable::Malformed => tracing::error!(
                %user_id,
                "the stored password hash is not an Argon2 PHC string; no password fits it until it is reset"
            ),
        }
    }

    fn is_due(&self, user_id: Uuid, now: Instant) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |since: &Instant| now.saturating_duration_since(*since) < SILENCE;
        if told.get(&user_id).is_some_and(is_recent) {
            return false;
        }
        if told.len() >= MOST {
            told.retain(|_, since| is_recent(since));
        }
        if told.len() >= MOST {
            return false;
        }
        told.insert(user_id, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_named_once_an_hour() {
        let (hashes, now) = (UnusableHashes::default(), Instant::now());
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert!(hashes.is_due(one, now) && hashes.is_due(other, now));
        assert!(!hashes.is_due(one, now) && !hashes.is_due(one, now + SILENCE / 2));
        assert!(hashes.is_due(one, now + SILENCE));
    }

    #[test]
    fn memory_is_bounded_and_frees_itself() {
        let (hashes, now) = (UnusableHashes::default(), Instant::now());
        let named = (0..5 * MOST as u128).filter(|id| hashes.is_due(Uuid::from_u128(*id), now)).count();
        assert_eq!((named, hashes.told.lock().unwrap().len()), (MOST, MOST));
        assert!(hashes.is_due(Uuid::from_u128(u128::MAX), now + SILENCE));
        assert_eq!(hashes.told.lock().unwrap().len(), 1);
    }
}
