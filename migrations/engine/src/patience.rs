//! Patience with other people's locks: a ladder of short lock timeouts with growing pauses between, so that whoever queues
//! behind us waits for moments only.

use std::time::{Duration, Instant, SystemTime};

use crate::activity;
use crate::error::EngineError;
use crate::session::Session;

/// How long the first attempt queues for a lock, with everybody else queueing behind it.
const FIRST_TIMEOUT: Duration = Duration::from_millis(100);
/// And the later ones at most: less than `deadlock_timeout` (1 s by default), so that of two who wait for each other it is
/// always the run that gives way, never the statement of a client.
const LAST_TIMEOUT: Duration = Duration::from_millis(700);
/// The first pause; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(3);

/// Tries a transaction again while a lock, a deadlock or a serialization failure ends it, for `wait` at most. `attempt` gets
/// the lock timeout that it may use.
pub(crate) async fn retrying<T>(
    session: &Session<'_>,
    tables: &[String],
    wait: Duration,
    mut attempt: impl AsyncFnMut(Duration) -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    let deadline = Instant::now() + wait;
    let (mut timeout, mut pause) = (FIRST_TIMEOUT, FIRST_PAUSE);
    loop {
        let error = match attempt(timeout).await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        session.rollback().await;
        if !error.is_lock_conflict() {
            return Err(error);
        }
        let holders = activity::holders(session.scope(), tables).await;
        if Instant::now() + pause > deadline {
            return Err(error.with_holders(&holders));
        }
        tracing::info!(
            pause_ms = u64::try_from(pause.as_millis()).unwrap_or_default(),
            holders = holders.join("; "),
            "a lock is in the way, trying again"
        );
        session.interrupt().sleep(pause + jitter()).await?;
        timeout = (timeout * 3 / 2).min(LAST_TIMEOUT);
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// Up to 100 ms, so that two runners do not meet again and again.
fn jitter() -> Duration {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.subsec_nanos());
    Duration::from_micros(u64::from(nanos % 100_000))
}
