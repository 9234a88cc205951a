//! The deadline of the call at hand: set once by the tower stack from `grpc-timeout`, read by whatever waits on the call's behalf.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

tokio::task_local! {
    static DEADLINE: Instant;
}

/// Runs `future` with `deadline` as the call's deadline. It only announces it; whoever sets it also enforces it.
pub async fn scope<F: Future>(deadline: Instant, future: F) -> F::Output {
    DEADLINE.scope(deadline, future).await
}

/// The deadline of the call this task works for; `None` outside of calls and in streams without `grpc-timeout`.
pub fn current() -> Option<Instant> {
    DEADLINE.try_with(|deadline| *deadline).ok()
}

/// Time left of the call, capped at `most`; zero when it is spent.
pub fn remaining(most: Duration) -> Duration {
    current().map_or(most, |deadline| deadline.saturating_duration_since(Instant::now()).min(most))
}

/// Parses `grpc-timeout`: at most 8 digits and a unit (H, M, S, m, u, n), as the gRPC protocol over HTTP/2 writes it.
pub fn parse_grpc_timeout(value: &str) -> Option<Duration> {
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_protocols_units_only() {
        assert_eq!(parse_grpc_timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse_grpc_timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for bad in ["", "S", "1", "123456789S", "-1S", "1s", "1 S", "é"] {
            assert_eq!(parse_grpc_timeout(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn is_seen_inside_the_scope_only() {
        assert_eq!(current(), None);
        assert_eq!(remaining(Duration::from_secs(9)), Duration::from_secs(9));
        let deadline = Instant::now() + Duration::from_secs(1);
        scope(deadline, async { assert_eq!(current(), Some(deadline)) }).await;
    }
}
