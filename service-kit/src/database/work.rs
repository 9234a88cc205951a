//! One piece of work on one connection: deadline, transaction, retry, metrics.

use std::time::{Duration, Instant};

use diesel_async::{AnsiTransactionManager, AsyncPgConnection, TransactionManager as _};

use super::pool::Inner;
use super::{AsyncCall, DatabaseError, StoreError};
use crate::deadline;

/// Runs of a transaction before its serialization failure is the caller's.
const MAX_RUNS: u32 = 5;
/// First pause before another run; doubles each time, up to half of it taken off at random.
const PAUSE: Duration = Duration::from_millis(10);

/// Whether the statements share a transaction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Single,
    Transaction,
}

/// Runs the work, again after a serialization failure when it is a transaction, and tells the metrics.
pub(super) async fn work<T, E, F>(inner: &Inner, operation: &'static str, shape: Shape, statements: &F) -> Result<T, E>
where
    F: for<'c> AsyncFn(&'c mut AsyncPgConnection) -> Result<T, E>
        + for<'c> AsyncCall<&'c mut AsyncPgConnection, Result<T, E>, Fut: Send>
        + Send
        + Sync,
    T: Send,
    E: StoreError,
{
    let started = Instant::now();
    let mut run = 1;
    let result = loop {
        let result = within_deadline(inner, shape, statements).await;
        let again =
            matches!(&result, Err(error) if matches!(error.as_database(), Some(DatabaseError::Serialization(_))));
        if !again || shape == Shape::Single || run == MAX_RUNS {
            break result;
        }
        metrics::counter!("database_retries_total", "operation" => operation).increment(1);
        tokio::time::sleep(pause(run)).await;
        run += 1;
    };
    let outcome = match &result {
        Ok(_) => "ok",
        Err(error) => error.as_database().map_or("refused", DatabaseError::class),
    };
    metrics::histogram!("database_operation_duration_seconds", "operation" => operation, "outcome" => outcome)
        .record(started.elapsed());
    result
}

fn pause(run: u32) -> Duration {
    let most = PAUSE * 2_u32.saturating_pow(run - 1);
    let half = u64::try_from(most.as_micros() / 2).unwrap_or_default();
    most - Duration::from_micros(crate::jitter_below(half))
}

async fn within_deadline<T, E, F>(inner: &Inner, shape: Shape, statements: &F) -> Result<T, E>
where
    F: for<'c> AsyncFn(&'c mut AsyncPgConnection) -> Result<T, E>
        + for<'c> AsyncCall<&'c mut AsyncPgConnection, Result<T, E>, Fut: Send>
        + Send
        + Sync,
    T: Send,
    E: StoreError,
{
    let mut lease = inner.lease().await?;
    let work = async {
        let conn = lease.conn()?;
        match shape {
            Shape::Single => statements(conn).await,
            Shape::Transaction => in_transaction(conn, statements).await,
        }
    };
    let result = match deadline::current() {
        Some(deadline) => match tokio::time::timeout_at(deadline, work).await {
            Ok(result) => result,
            // The lease is dropped with its work half done, which cancels the statement.
            Err(_) => return Err(DatabaseError::Timeout.into()),
        },
        None => work.await,
    };
    match &result {
        // The server told its reason, the end of the socket comes a moment later: nobody else is to run into it.
        Err(error) if matches!(error.as_database(), Some(DatabaseError::Unavailable { .. })) => drop(lease),
        _ => lease.give_back(),
    }
    result
}

async fn in_transaction<T, E, F>(conn: &mut AsyncPgConnection, statements: &F) -> Result<T, E>
where
    F: for<'c> AsyncFn(&'c mut AsyncPgConnection) -> Result<T, E>
        + for<'c> AsyncCall<&'c mut AsyncPgConnection, Result<T, E>, Fut: Send>
        + Send
        + Sync,
    T: Send,
    E: StoreError,
{
    // The server stops by itself what outlives the call, even when this process dies.
    let begin = match deadline::current() {
        Some(_) => {
            let left = deadline::remaining(Duration::from_secs(30)).as_millis().max(1);
            format!("BEGIN; SET LOCAL statement_timeout TO {left}")
        }
        None => "BEGIN".to_owned(),
    };
    AnsiTransactionManager::begin_transaction_sql(conn, &begin).await?;
    match statements(conn).await {
        Ok(value) => {
            AnsiTransactionManager::commit_transaction(conn).await?;
            Ok(value)
        }
        Err(error) => {
            // A failed rollback leaves the connection broken, and the pool sees that; the first error is the one to tell.
            let _ = AnsiTransactionManager::rollback_transaction(conn).await;
            Err(error)
        }
    }
}
