//! Resume tokens: how far a watcher has come, sealed so that only this service can have made it and only for this watch.
//!
//! Layout of the content: version (1 byte), when it was current in microseconds since 1970 (8), the position.

use chrono::{DateTime, TimeDelta, Utc};
use service_kit::page_token::{Bound, PageTokenInvalid};

use super::access::Scope;
use super::ids::UserId;
use super::page_token::PageTokens;
use super::position::Position;

/// First byte of every token; another layout gets another number.
const VERSION: u8 = 1;

/// How long changes are kept.
pub const CHANGES_KEPT: TimeDelta = TimeDelta::hours(2);
/// A token is good for less: clocks may differ, a change is as old as its statement and not as its commit, and who resumes reads on
/// for a while.
pub const RESUMABLE_FOR: TimeDelta = TimeDelta::hours(1);

/// Makes the token of a watcher who has come so far; `current_at` is when nothing lay behind that.
pub fn seal(
    tokens: &PageTokens,
    caller: UserId,
    scope: Scope,
    position: &Position,
    current_at: DateTime<Utc>,
) -> String {
    let mut content = vec![VERSION];
    content.extend_from_slice(&current_at.timestamp_micros().to_be_bytes());
    content.extend_from_slice(&position.to_bytes());
    tokens.seal_bytes(&bound(caller, scope), &content)
}

/// The position in a token, and when it was current; `None` when it is too old to resume from.
///
/// # Errors
/// [`PageTokenInvalid`] for every token that [`seal`] did not make for this caller and this watch.
pub fn open(
    tokens: &PageTokens,
    caller: UserId,
    scope: Scope,
    token: &str,
    now: DateTime<Utc>,
) -> Result<Option<(Position, DateTime<Utc>)>, PageTokenInvalid> {
    let content = tokens.open_bytes(&bound(caller, scope), token)?;
    let (current_at, position) = content_read(&content).ok_or(PageTokenInvalid)?;
    Ok((now - current_at < RESUMABLE_FOR).then_some((position, current_at)))
}

fn content_read(content: &[u8]) -> Option<(DateTime<Utc>, Position)> {
    let (&version, rest) = content.split_first()?;
    let (micros, rest) = rest.split_first_chunk::<8>()?;
    let current_at = DateTime::from_timestamp_micros(i64::from_be_bytes(*micros))?;
    (version == VERSION).then_some((current_at, Position::from_bytes(rest)?))
}

/// The watch that a token belongs to.
fn bound(caller: UserId, scope: Scope) -> Bound {
    let bound = Bound::new("watch", caller.0.as_bytes());
    match scope {
        Scope::All => bound.part(&[0]),
        Scope::Of(owner) => bound.part(&[1]).part(owner.0.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_token_belongs_to_one_watch_and_grows_old() {
        let tokens = PageTokens::from_secret(&[7; 32]).unwrap();
        let position = Position::from_snapshot("10:20:10,14").unwrap();
        let (ann, bob) = (UserId(Uuid::from_u128(1)), UserId(Uuid::from_u128(2)));
        let now = crate::domain::time::now();
        let token = seal(&tokens, ann, Scope::Of(ann), &position, now);
        assert_eq!(open(&tokens, ann, Scope::Of(ann), &token, now), Ok(Some((position.clone(), now))));
        assert_eq!(open(&tokens, ann, Scope::Of(ann), &token, now + RESUMABLE_FOR), Ok(None));
        for (caller, scope) in [(bob, Scope::Of(ann)), (ann, Scope::Of(bob)), (ann, Scope::All)] {
            assert_eq!(open(&tokens, caller, scope, &token, now), Err(PageTokenInvalid));
        }
        for bad in ["x", "", &token[1..]] {
            assert_eq!(open(&tokens, ann, Scope::Of(ann), bad, now), Err(PageTokenInvalid), "{bad}");
        }
        let other = PageTokens::from_secret(&[8; 32]).unwrap();
        assert_eq!(open(&other, ann, Scope::Of(ann), &token, now), Err(PageTokenInvalid));
    }
}
