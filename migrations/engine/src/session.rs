//! Connections and statements: waiting for a database that is away, session settings, statements that an interrupt
//! cancels, and the place that a rehearsal puts in the room of the schema `public`.

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::backup::ToolSettings;
use crate::error::{ConnectError, EngineError, postgres_message};
use crate::interrupt::Interrupt;
use crate::scope::{Scope, Shadow, first};
use crate::split::summary;

/// The oldest major version that is supported: `client_connection_check_interval` came with it.
const OLDEST: u32 = 140_000;
/// How long a look at rows waits for somebody who has locked the whole table; `verify` must not hang.
pub(crate) const READ_LOCK_TIMEOUT: &str = "30s";
/// How long such a lock is waited for where nobody says how long.
const LOOK_PATIENCE: Duration = Duration::from_secs(30);
/// How long one attempt to connect may take at least, however short the wait.
const ONE_ATTEMPT: Duration = Duration::from_secs(2);
/// How long a cancelled statement may take to end.
const CANCEL_PATIENCE: Duration = Duration::from_secs(5);

/// Settings of a role or database must not reach into a run, nor into the text forms that are compared.
const SETTINGS: &str = "SET search_path = public; SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
    SET idle_session_timeout = 0; SET lock_timeout = '30s'; SET client_min_messages = warning; \
    SET default_transaction_isolation = 'read committed'; \
    SET default_transaction_deferrable = off; SET quote_all_identifiers = off; \
    SET standard_conforming_strings = on; SET transform_null_equals = off; SET array_nulls = on; SET DateStyle = ISO; \
    SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name = 'transaction_timeout'";
/// Frees the lock of a killed runner within a second. A server on a system that cannot watch sockets refuses it; there the
/// lock goes when the statement ends.
const WATCH_SOCKET: &str = "SET client_connection_check_interval = '1s'";
const VERSION: &str = "SELECT pg_catalog.current_setting('server_version_num'), \
    pg_catalog.current_setting('server_version'), pg_catalog.pg_backend_pid()";

/// Makes connections. The engine needs two at a time, and more after a loss.
pub trait Connect: Send + Sync {
    /// A new connection whose driver is already running.
    fn connect(&self) -> BoxFuture<'_, Result<Client, ConnectError>>;

    /// How PostgreSQL's own tools reach the same database.
    fn tool_settings(&self) -> ToolSettings;
}

/// One connection of the engine.
pub(crate) struct Session<'a> {
    client: Client,
    connector: &'a dyn Connect,
    interrupt: Interrupt,
    /// The server process, as the server names it.
    pub(crate) pid: String,
    /// How long somebody's lock on a whole table is waited for when its definition is read.
    patience: Duration,
    /// The schema that stands for `public`, and then everything happens in one transaction: a rehearsal.
    shadow: Option<Shadow>,
}

impl<'a> Session<'a> {
    /// Connects, waiting up to `wait` for a database that does not answer.
    pub(crate) async fn open(
        connector: &'a dyn Connect,
        wait: Duration,
        interrupt: &Interrupt,
    ) -> Result<Self, EngineError> {
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
                    interrupt.sleep(pause).await?;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
            }
        };
        let mut session = Self {
            client,
            connector,
            interrupt: interrupt.clone(),
            pid: String::new(),
            patience: LOOK_PATIENCE,
            shadow: None,
        };
        session.settle().await?;
        Ok(session)
    }

    /// Waits at most this long for somebody's lock when it looks at the tables.
    pub(crate) fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// Another one like this.
    pub(crate) async fn another(&self, wait: Duration) -> Result<Session<'a>, EngineError> {
        Ok(Session::open(self.connector, wait, &self.interrupt).await?.with_patience(self.patience))
    }

    /// All in one round trip: the messages are sent before the first answer is read.
    async fn settle(&mut self) -> Result<(), EngineError> {
        let (version, settings, watch) = tokio::join!(
            self.client.simple_query(VERSION),
            self.client.batch_execute(SETTINGS),
            self.client.batch_execute(WATCH_SOCKET)
        );
        let row = first(version?);
        let number: u32 = row.first().and_then(|text| text.parse().ok()).unwrap_or_default();
        if number < OLDEST {
            return Err(EngineError::TooOld(row.get(1).cloned().unwrap_or_default()));
        }
        self.pid = row.get(2).cloned().unwrap_or_default();
        settings?;
        if let Err(error) = watch {
            tracing::debug!(%error, "the server cannot watch its sockets");
        }
        Ok(())
    }

    pub(crate) fn connector(&self) -> &'a dyn Connect {
        self.connector
    }

    pub(crate) fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// Whether everything happens in the one transaction of a rehearsal.
    pub(crate) fn is_shadow(&self) -> bool {
        self.shadow.is_some()
    }

    /// From here on `shadow` stands for `public`.
    pub(crate) fn enter_shadow(&mut self, shadow: Shadow) {
        self.shadow = Some(shadow);
    }

    pub(crate) fn leave_shadow(&mut self) {
        self.shadow = None;
    }

    /// Where its statements are looked up.
    pub(crate) fn scope(&self) -> Scope<'_> {
        match &self.shadow {
            None => Scope::public(&self.client),
            Some(shadow) => Scope::shadow(&self.client, shadow),
        }
    }

    /// Runs one statement and answers how many rows it touched. An interrupt cancels it.
    pub(crate) async fn execute(&self, sql: &str, context: &str) -> Result<u64, EngineError> {
        self.interrupt.check()?;
        let text = self.scope().text(sql);
        let running = self.client.simple_query(&text);
        tokio::pin!(running);
        let answer = tokio::select! {
            answer = &mut running => answer,
            () = self.interrupt.fired() => {
                self.cancel().await;
                // Its end is awaited, so that what comes after finds a quiet session.
                let _ended = tokio::time::timeout(CANCEL_PATIENCE, &mut running).await;
                return Err(EngineError::Interrupted);
            }
        };
        let messages = answer.map_err(|error| statement_error(&error, sql, context))?;
        Ok(messages
            .iter()
            .map(|message| if let SimpleQueryMessage::CommandComplete(rows) = message { *rows } else { 0 })
            .sum())
    }

    /// Asks the server to cancel what this session runs: through SQL, so that TLS and poolers are as for everything else.
    async fn cancel(&self) {
        let asked = tokio::time::timeout(CANCEL_PATIENCE, async {
            let client = self.connector.connect().await.map_err(|error| error.to_string())?;
            let sql = format!("SELECT pg_catalog.pg_cancel_backend({})", self.pid);
            client.batch_execute(&sql).await.map_err(|error| error.to_string())
        });
        if let Ok(Err(error)) = asked.await {
            tracing::warn!(error, "the running statement could not be cancelled");
        }
    }

    /// Opens a transaction in which no statement queues longer than `lock_timeout` for a lock.
    pub(crate) async fn begin(&self, lock_timeout: Duration) -> Result<(), EngineError> {
        self.interrupt.check()?;
        if self.is_shadow() {
            return Ok(self.scope().batch("SAVEPOINT step").await?);
        }
        Ok(self.scope().batch(&format!("BEGIN; SET LOCAL lock_timeout = '{}ms'", lock_timeout.as_millis())).await?)
    }

    pub(crate) async fn commit(&self, context: &str) -> Result<(), EngineError> {
        let end = if self.is_shadow() { "RELEASE SAVEPOINT step" } else { "COMMIT" };
        self.scope().batch(end).await.map_err(|error| statement_error(&error, end, context))
    }

    /// Ends a transaction that failed; on a lost connection it is over anyway.
    pub(crate) async fn rollback(&self) {
        let end = if self.is_shadow() { "ROLLBACK TO SAVEPOINT step" } else { "ROLLBACK" };
        if let Err(error) = self.scope().batch(end).await {
            tracing::debug!(%error, "rollback");
        }
    }
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
