//! Connections and statements: waiting for a database that is away, session settings, and a ladder of retries for
//! statements that wait for somebody's lock.

use std::time::{Duration, Instant, SystemTime};

use futures_util::future::BoxFuture;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::backup::ToolSettings;
use crate::error::{ConnectError, EngineError, postgres_message};
use crate::repair::Step;
use crate::split::summary;

/// The oldest major version that is supported: `client_connection_check_interval` came with it.
const OLDEST: u32 = 140_000;
/// How long a statement may queue for a lock, with everybody else queueing behind it.
const LOCK_TIMEOUT: &str = "2s";
/// How long a look at rows waits for somebody who has locked the whole table; `verify` must not hang.
const READ_LOCK_TIMEOUT: &str = "30s";
/// How long one attempt to connect may take at least, however short the wait.
const ONE_ATTEMPT: Duration = Duration::from_secs(2);
/// How often a statement is tried again when the lock did not come.
const ATTEMPTS: u32 = 15;

/// Makes connections. The engine needs two at a time, and more after a loss.
pub trait Connect: Send + Sync {
    /// A new connection whose driver is already running.
    fn connect(&self) -> BoxFuture<'_, Result<Client, ConnectError>>;

    /// How PostgreSQL's own tools reach the same database.
    fn tool_settings(&self) -> ToolSettings;
}

/// Connects, waiting up to `wait` for a database that does not answer.
pub(crate) async fn connect(connector: &dyn Connect, wait: Duration) -> Result<Client, EngineError> {
    let deadline = Instant::now() + wait;
    let mut pause = Duration::from_millis(100);
    let client = loop {
        // A host that swallows packets would hold one attempt for minutes.
        let answer =
            tokio::time::timeout_at(deadline.max(Instant::now() + ONE_ATTEMPT).into(), connector.connect()).await;
        match answer.unwrap_or_else(|_| Err(ConnectError::Unreachable("no answer".to_owned()))) {
            Ok(client) => break client,
            Err(ConnectError::Refused(reason)) => return Err(EngineError::Refused(reason)),
            Err(ConnectError::Unreachable(reason)) => {
                if Instant::now() + pause > deadline {
                    let waited = humantime::format_duration(wait).to_string();
                    return Err(EngineError::Unreachable { waited, reason });
                }
                tracing::debug!(reason, "database unreachable, trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(2));
            }
        }
    };
    settle(&client).await?;
    Ok(client)
}

async fn settle(client: &Client) -> Result<(), EngineError> {
    let row = client
        .query_one("SELECT pg_catalog.current_setting('server_version_num')::int4, pg_catalog.current_setting('server_version')", &[])
        .await?;
    let number: i32 = row.try_get(0)?;
    if u32::try_from(number).unwrap_or_default() < OLDEST {
        return Err(EngineError::TooOld(row.try_get(1)?));
    }
    // Defaults of a role or database must not reach into a run, nor into the text forms that are compared.
    client
        .batch_execute(&format!(
            "SET search_path = public; SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
             SET idle_session_timeout = 0; SET lock_timeout = '{READ_LOCK_TIMEOUT}'; SET client_min_messages = warning; \
             SET default_transaction_isolation = 'read committed'; \
             SET default_transaction_deferrable = off; SET quote_all_identifiers = off; \
             SET standard_conforming_strings = on; SET transform_null_equals = off; SET array_nulls = on; SET DateStyle = ISO; \
             SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name = 'transaction_timeout'"
        ))
        .await?;
    // Frees the lock of a killed runner within a second. A server on a system that cannot watch sockets refuses it; there the
    // lock goes when the statement ends.
    let _ = client.batch_execute("SET client_connection_check_interval = '1s'").await;
    Ok(())
}

/// Runs one statement and answers how many rows it touched.
pub(crate) async fn execute(client: &Client, sql: &str, context: &str) -> Result<u64, EngineError> {
    let messages = client.simple_query(sql).await.map_err(|error| statement_error(&error, sql, context))?;
    Ok(messages
        .iter()
        .map(|message| if let SimpleQueryMessage::CommandComplete(rows) = message { *rows } else { 0 })
        .sum())
}

fn statement_error(error: &tokio_postgres::Error, sql: &str, context: &str) -> EngineError {
    EngineError::Statement {
        context: context.to_owned(),
        statement: summary(sql),
        message: postgres_message(error),
        code: error.code().cloned(),
        lost: error.is_closed() || matches!(error.code(), Some(code) if is_loss(code)),
    }
}

/// Whether the code says that the session is gone: a shutdown, a crash, a failover.
pub(crate) fn is_loss(code: &SqlState) -> bool {
    [
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::CONNECTION_FAILURE,
        SqlState::CONNECTION_EXCEPTION,
        SqlState::CONNECTION_DOES_NOT_EXIST,
        SqlState::READ_ONLY_SQL_TRANSACTION,
    ]
    .contains(code)
}

/// Runs a step of a repair, again while locks are in the way.
pub(crate) async fn run_step(client: &Client, step: &Step, context: &str) -> Result<u64, EngineError> {
    match step {
        // A timeout in a concurrent build would leave an INVALID index behind.
        Step::Alone(sql) => {
            client.batch_execute("SET lock_timeout = 0").await?;
            let rows = execute(client, sql, context).await?;
            client.batch_execute(&format!("SET lock_timeout = '{READ_LOCK_TIMEOUT}'")).await?;
            Ok(rows)
        }
        Step::Transaction(statements) => {
            retrying(
                || async {
                    begin(client).await?;
                    let mut rows = 0;
                    for sql in statements {
                        rows += execute(client, sql, context).await?;
                    }
                    execute(client, "COMMIT", context).await?;
                    Ok(rows)
                },
                client,
            )
            .await
        }
    }
}

/// Opens a transaction in which no statement queues long for a lock.
pub(crate) async fn begin(client: &Client) -> Result<(), EngineError> {
    client.batch_execute(&format!("BEGIN; SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")).await?;
    Ok(())
}

/// Tries `attempt` again, with growing pauses and jitter, while it fails for a lock or a deadlock.
pub(crate) async fn retrying<T, F>(attempt: impl Fn() -> F, client: &Client) -> Result<T, EngineError>
where
    F: Future<Output = Result<T, EngineError>>,
{
    let mut tries = 0;
    loop {
        let error = match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        // The transaction is over either way; a lost connection fails here too, and `error` says why.
        let _ = client.batch_execute("ROLLBACK").await;
        tries += 1;
        if !error.is_lock_conflict() || tries >= ATTEMPTS {
            return Err(error);
        }
        let pause = Duration::from_millis(50 * 2_u64.pow(tries.min(6))) + jitter();
        tracing::info!(tries, pause_ms = pause.as_millis() as u64, "a lock is in the way, trying again");
        tokio::time::sleep(pause).await;
    }
}

/// Up to 100 ms, so that two runners do not meet again and again.
fn jitter() -> Duration {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.subsec_nanos());
    Duration::from_micros(u64::from(nanos % 100_000))
}
