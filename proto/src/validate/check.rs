//! What each rule means. The generated code calls these and nothing else.
//!
//! Lengths are counted in Unicode code points, as `buf.validate` defines it, where the name does not say bytes.

use prost_types::{Duration, Timestamp};

use super::{MAX_VIOLATIONS, Path, Violation};
use crate::time;

fn report(at: &Path<'_>, out: &mut Vec<Violation>, description: String) {
    if out.len() < MAX_VIOLATIONS {
        out.push(Violation { field: at.to_string(), description });
    }
}

pub(super) fn missing(at: &Path<'_>, out: &mut Vec<Violation>) {
    report(at, out, "expected a value; it is missing".to_owned());
}

pub(super) fn min_len(value: &str, bound: usize, at: &Path<'_>, out: &mut Vec<Violation>) {
    if value.chars().take(bound).count() < bound {
        report(at, out, format!("expected at least {}", counted(bound, "character")));
    }
}

pub(super) fn max_len(value: &str, bound: usize, at: &Path<'_>, out: &mut Vec<Violation>) {
    if value.chars().nth(bound).is_some() {
        report(at, out, format!("expected at most {}", counted(bound, "character")));
    }
}

pub(super) fn max_bytes(value: &str, bound: usize, at: &Path<'_>, out: &mut Vec<Violation>) {
    if value.len() > bound {
        report(at, out, format!("expected at most {} in UTF-8", counted(bound, "byte")));
    }
}

/// The form of RFC 9562: 8-4-4-4-12 hexadecimal digits, in either case. Any version, the nil UUID too.
pub(super) fn uuid(value: &str, at: &Path<'_>, out: &mut Vec<Violation>) {
    let fits = value.len() == 36
        && value.bytes().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    if !fits {
        report(at, out, "expected a UUID, as in 0198c7f0-5b1e-7c3a-9d42-6f0e8a1b2c3d".to_owned());
    }
}

pub(super) fn not_contains(value: &str, part: &str, at: &Path<'_>, out: &mut Vec<Violation>) {
    if value.contains(part) {
        report(at, out, format!("expected no {} in it", part.escape_debug()));
    }
}

pub(super) fn at_least(value: i64, bound: i64, at: &Path<'_>, out: &mut Vec<Violation>) {
    if value < bound {
        report(at, out, format!("expected {bound} or more"));
    }
}

pub(super) fn one_of(value: i32, numbers: &[i32], names: &str, at: &Path<'_>, out: &mut Vec<Violation>) {
    if !numbers.contains(&value) {
        report(at, out, format!("expected one of {names}"));
    }
}

pub(super) fn min_items(count: usize, bound: usize, at: &Path<'_>, out: &mut Vec<Violation>) {
    if count < bound {
        report(at, out, format!("expected at least {}", counted(bound, "item")));
    }
}

pub(super) fn max_items(count: usize, bound: usize, at: &Path<'_>, out: &mut Vec<Violation>) {
    if count > bound {
        report(at, out, format!("expected at most {}", counted(bound, "item")));
    }
}

/// What google/protobuf/timestamp.proto calls valid.
pub(super) fn timestamp(value: &Timestamp, at: &Path<'_>, out: &mut Vec<Violation>) {
    if !time::is_valid(value) {
        report(at, out, "expected a time from 0001-01-01T00:00:00Z to 9999-12-31T23:59:59.999999999Z".to_owned());
    }
}

/// What google/protobuf/duration.proto calls valid, and from `min` to `max` seconds.
pub(super) fn duration(value: &Duration, min: Option<i64>, max: Option<i64>, at: &Path<'_>, out: &mut Vec<Violation>) {
    /// 10,000 years, the widest span that the type allows.
    const WIDEST: i64 = 315_576_000_000;
    let well_formed = (-999_999_999..=999_999_999).contains(&value.nanos)
        && (value.seconds == 0 || value.nanos == 0 || (value.seconds < 0) == (value.nanos < 0));
    let (min, max) = (min.unwrap_or(-WIDEST), max.unwrap_or(WIDEST));
    let place = (value.seconds, value.nanos);
    if !well_formed || place < (min, 0) || place > (max, 0) {
        report(at, out, format!("expected a duration of {min} to {max} seconds"));
    }
}

fn counted(count: usize, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{plural}")
}
