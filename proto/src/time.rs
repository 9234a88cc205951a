//! Protobuf times to and from `chrono`.
//!
//! PostgreSQL keeps microseconds; what is finer is cut off on the way in, so that a time reads back as it was answered.

use chrono::{DateTime, SubsecRound as _, Utc};
use prost_types::Timestamp;

/// 0001-01-01T00:00:00Z, the first second that `google.protobuf.Timestamp` allows.
const FIRST_SECOND: i64 = -62_135_596_800;
/// 9999-12-31T23:59:59Z, the last one.
const LAST_SECOND: i64 = 253_402_300_799;

/// Whether the time lies in the years 1 to 9999 and its nanoseconds are those of one second.
pub fn is_valid(time: &Timestamp) -> bool {
    (FIRST_SECOND..=LAST_SECOND).contains(&time.seconds) && (0..1_000_000_000).contains(&time.nanos)
}

/// The time to the microsecond; none when it is not valid.
pub fn to_utc(time: &Timestamp) -> Option<DateTime<Utc>> {
    if !is_valid(time) {
        return None;
    }
    let nanos = u32::try_from(time.nanos).ok()?;
    DateTime::from_timestamp(time.seconds, nanos).map(|time| time.trunc_subsecs(6))
}

/// The time as a protobuf message. A time outside the years 1 to 9999, which a database can hold and a message cannot, is moved to
/// the nearest one inside: an illegal time would fail the whole message.
pub fn from_utc(time: DateTime<Utc>) -> Timestamp {
    if time.timestamp() < FIRST_SECOND {
        return Timestamp { seconds: FIRST_SECOND, nanos: 0 };
    }
    if time.timestamp() > LAST_SECOND {
        return Timestamp { seconds: LAST_SECOND, nanos: 999_999_999 };
    }
    // chrono counts a leap second as nanoseconds beyond one second, which protobuf does not allow.
    let nanos = time.timestamp_subsec_nanos().min(999_999_999);
    Timestamp { seconds: time.timestamp(), nanos: i32::try_from(nanos).unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_the_way_there_and_back() {
        for (seconds, nanos) in [(0, 0), (-1, 999_999_000), (FIRST_SECOND, 0), (LAST_SECOND, 999_999_000)] {
            let time = Timestamp { seconds, nanos };
            assert_eq!(to_utc(&time).map(from_utc), Some(time));
        }
    }

    #[test]
    fn times_outside_are_moved_to_the_nearest_inside() {
        let moved = |seconds, nanos| DateTime::from_timestamp(seconds, nanos).map(from_utc);
        let first = Some(Timestamp { seconds: FIRST_SECOND, nanos: 0 });
        let last = Some(Timestamp { seconds: LAST_SECOND, nanos: 999_999_999 });
        assert_eq!(moved(FIRST_SECOND - 1, 999_999_999), first);
        assert_eq!(moved(LAST_SECOND + 1, 0), last);
        assert_eq!(from_utc(DateTime::<Utc>::MIN_UTC), Timestamp { seconds: FIRST_SECOND, nanos: 0 });
        assert_eq!(from_utc(DateTime::<Utc>::MAX_UTC), Timestamp { seconds: LAST_SECOND, nanos: 999_999_999 });
        assert!(first.is_some_and(|time| is_valid(&time)) && last.is_some_and(|time| is_valid(&time)));
    }

    #[test]
    fn nanoseconds_are_cut_off() {
        let cut = to_utc(&Timestamp { seconds: -1, nanos: 999_999_999 }).map(from_utc);
        assert_eq!(cut, Some(Timestamp { seconds: -1, nanos: 999_999_000 }));
    }

    #[test]
    fn times_out_of_range_are_refused() {
        for (seconds, nanos) in [(FIRST_SECOND - 1, 0), (LAST_SECOND + 1, 0), (0, -1), (0, 1_000_000_000)] {
            assert_eq!(to_utc(&Timestamp { seconds, nanos }), None);
        }
    }
}
