//! Pages of lists that are ordered by a time and an id.

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// Entries on a page when the caller does not say.
const PAGE_SIZE_DEFAULT: i64 = 50;
/// Most entries on a page; who asks for more gets this many.
const PAGE_SIZE_MAX: i64 = 1000;

/// The last entry of a page: the next one begins right behind it, whether or not the entry is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeCursor {
    /// The time that the list is ordered by.
    pub time: DateTime<Utc>,
    /// The id, which breaks ties.
    pub id: Uuid,
}

impl TimeCursor {
    /// For a page token.
    pub fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.time.timestamp_micros().to_be_bytes());
        bytes[8..].copy_from_slice(self.id.as_bytes());
        bytes
    }

    /// From a page token; `None`: these are other bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (time, id) = bytes.split_first_chunk::<8>()?;
        let time = DateTime::from_timestamp_micros(i64::from_be_bytes(*time))?;
        Some(Self { time, id: Uuid::from_slice(id).ok()? })
    }
}

/// How many entries a page has, from what the caller asked for. Negative numbers have been refused.
pub fn page_size(asked: i32) -> i64 {
    match i64::from(asked) {
        ..=0 => PAGE_SIZE_DEFAULT,
        asked => asked.min(PAGE_SIZE_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back() {
        let cursor = TimeCursor { time: DateTime::from_timestamp_micros(-7).unwrap(), id: Uuid::from_u128(9) };
        assert_eq!(TimeCursor::from_bytes(&cursor.to_bytes()), Some(cursor));
        assert_eq!(TimeCursor::from_bytes(&cursor.to_bytes()[1..]), None);
    }

    #[test]
    fn sizes_are_bounded() {
        assert_eq!([0, 1, 1000, 1001, i32::MAX].map(page_size), [50, 1, 1000, 1000, 1000]);
    }
}
