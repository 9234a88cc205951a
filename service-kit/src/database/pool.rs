//! The pool's connections: how one is made, when one is fit for another use, and how a dirty one ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use deadpool::Runtime;
use deadpool::managed::{self, Metrics, Object, PoolError, RecycleError, RecycleResult, TimeoutType, Timeouts};
use diesel_async::pooled_connection::PoolableConnection as _;
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection as _};
use tokio::task::AbortHandle;
use tokio_postgres::CancelToken;

use super::{DatabaseError, PoolStatus};
use crate::deadline;
use crate::postgres::{ConnectError, ConnectErrorKind, DatabaseUrl, TlsSetup, connect_with};

/// Longest wait for a connection that others use; beyond it the service is overloaded and says so.
const WAIT: Duration = Duration::from_secs(5);
/// Longest time to open a connection, TLS and settings included.
const CREATE: Duration = Duration::from_secs(10);
/// A ping waits this long for a connection of the pool.
const PING_WAIT: Duration = Duration::from_millis(250);
/// Longest time a discarded connection's query is asked to stop.
const CANCEL: Duration = Duration::from_secs(5);

/// What every connection starts with. One round trip.
/// - `search_path`: a schema named like the user must not shadow ours.
/// - `statement_timeout`: nothing outlives the longest deadline a call can have; the call's own deadline is shorter.
/// - `idle_in_transaction_session_timeout`: a hung process must not hold locks for ever.
/// - `client_connection_check_interval`: a cancel that arrives between two statements stops nothing; then the closed socket ends
///   the second one. A server on a system that cannot watch sockets refuses the setting and goes without.
/// - `lc_messages`: some errors are told apart by their English text; only superusers may set it, others keep the server's.
const SETTINGS: &str = "SET search_path TO public;\
    SET statement_timeout TO '30s';\
    SET idle_in_transaction_session_timeout TO '60s';\
    DO $$ BEGIN PERFORM set_config('lc_messages', 'C', false); EXCEPTION WHEN OTHERS THEN NULL; END $$;\
    DO $$ BEGIN PERFORM set_config('client_connection_check_interval', '1s', false); EXCEPTION WHEN OTHERS THEN NULL; END $$";

/// One connection of the pool.
pub(super) struct Pooled {
    pub(super) conn: AsyncPgConnection,
    closed: Arc<AtomicBool>,
    driver: AbortHandle,
    cancel: CancelToken,
    tls: TlsSetup,
}

impl Pooled {
    /// Whether the connection is open and outside of any transaction.
    fn is_fit(&mut self) -> bool {
        !self.closed.load(Ordering::Relaxed) && !self.conn.is_broken()
    }

    /// Stops the query that may be running and closes the socket, in the background.
    fn discard(self) {
        metrics::counter!("database_connections_discarded_total").increment(1);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let Self { conn, cancel, driver, tls, closed } = self;
        // Bounded, and nobody waits for its outcome: the connection is out of the pool already.
        runtime.spawn(async move {
            if !closed.load(Ordering::Relaxed) {
                let _ = tokio::time::timeout(CANCEL, cancel.cancel_query(tls.connector())).await;
            }
            drop(conn);
            driver.abort();
        });
    }
}

/// Makes connections.
pub(super) struct Manager {
    url: DatabaseUrl,
    tls: RwLock<TlsSetup>,
}

impl Manager {
    async fn open(&self) -> Result<Pooled, ConnectError> {
        let tls = self.tls.read().unwrap_or_else(PoisonError::into_inner).clone();
        match connect_with(&self.url, &tls).await {
            // The authority's file may have been replaced since it was read.
            Err(error) if error.kind() == ConnectErrorKind::Tls => {
                let fresh = TlsSetup::load(&self.url)?;
                *self.tls.write().unwrap_or_else(PoisonError::into_inner) = fresh.clone();
                let opened = connect_with(&self.url, &fresh).await?;
                prepare(opened, fresh).await
            }
            opened => prepare(opened?, tls).await,
        }
    }
}

async fn prepare(
    (client, connection): (tokio_postgres::Client, crate::postgres::Connection),
    tls: TlsSetup,
) -> Result<Pooled, ConnectError> {
    let closed = Arc::new(AtomicBool::new(false));
    let cancel = client.cancel_token();
    let ended = Arc::clone(&closed);
    // Ends with its connection, and the pool looks at the flag; its error reaches whoever waits for an answer.
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a database connection broke");
        }
        ended.store(true, Ordering::Relaxed);
    });
    let failed = |error: &dyn std::fmt::Display| {
        ConnectError::unreachable(format!("a new database connection could not be set up: {error}"))
    };
    let mut conn = AsyncPgConnection::try_from(client).await.map_err(|error| failed(&error))?;
    conn.batch_execute(SETTINGS).await.map_err(|error| failed(&error))?;
    Ok(Pooled { conn, closed, driver: driver.abort_handle(), cancel, tls })
}

impl managed::Manager for Manager {
    type Type = Pooled;
    type Error = ConnectError;

    async fn create(&self) -> Result<Pooled, ConnectError> {
        // On the heap, since it is large and rare: it would be part of every future that asks the pool, and of every stack below.
        Box::pin(self.open()).await
    }

    async fn recycle(&self, pooled: &mut Pooled, _: &Metrics) -> RecycleResult<ConnectError> {
        // No round trip: a connection that broke while idle has its flag up.
        if pooled.is_fit() { Ok(()) } else { Err(RecycleError::message("closed or inside a transaction")) }
    }
}

/// What [`super::Database`] shares.
pub(super) struct Inner {
    pool: managed::Pool<Manager>,
}

impl Inner {
    pub(super) fn new(url: &DatabaseUrl, max: u32) -> Result<Self, ConnectError> {
        let manager = Manager { url: url.clone(), tls: RwLock::new(TlsSetup::load(url)?) };
        let max = usize::try_from(max.max(1)).unwrap_or(1);
        let pool = managed::Pool::builder(manager).max_size(max).runtime(Runtime::Tokio1).build();
        Ok(Self { pool: pool.map_err(|error| ConnectError::unreachable(format!("the pool cannot be made: {error}")))? })
    }

    /// A connection for one piece of work.
    pub(super) async fn lease(&self) -> Result<Lease, DatabaseError> {
        let started = Instant::now();
        let timeouts = Timeouts { wait: Some(deadline::remaining(WAIT)), create: Some(CREATE), recycle: None };
        let leased = self.pool.timeout_get(&timeouts).await;
        metrics::histogram!("database_pool_wait_seconds").record(started.elapsed());
        match leased {
            Ok(object) => Ok(Lease { object: Some(object) }),
            Err(PoolError::Timeout(TimeoutType::Wait)) if deadline::remaining(WAIT).is_zero() => {
                Err(DatabaseError::Timeout)
            }
            Err(PoolError::Timeout(TimeoutType::Wait)) => {
                Err(DatabaseError::unavailable("all connections of the pool are in use"))
            }
            Err(PoolError::Timeout(_)) => Err(DatabaseError::unavailable("the database does not answer")),
            Err(PoolError::Closed) => Err(DatabaseError::unavailable("the service is shutting down")),
            // It names the place and what is wrong, never the password: operators read it in `/readyz`.
            Err(PoolError::Backend(error)) => {
                Err(DatabaseError::Unavailable { reason: error.to_string(), source: Some(Box::new(error)) })
            }
            Err(error) => Err(DatabaseError::unavailable(error.to_string())),
        }
    }

    /// One trivial statement. A pool whose connections are all in use is busy, not broken: then a connection beside it is tried.
    pub(super) async fn ping(&self) -> Result<(), DatabaseError> {
        let timeouts = Timeouts { wait: Some(PING_WAIT), create: Some(CREATE), recycle: None };
        let broken = |error: ConnectError| DatabaseError::Unavailable {
            reason: error.to_string(),
            source: Some(Box::new(error)),
        };
        match self.pool.timeout_get(&timeouts).await {
            Ok(object) => {
                let mut lease = Lease { object: Some(object) };
                lease.conn()?.batch_execute("SELECT 1").await?;
                lease.give_back();
                Ok(())
            }
            Err(PoolError::Timeout(TimeoutType::Wait)) => {
                let mut beside = self.pool.manager().open().await.map_err(broken)?;
                Ok(beside.conn.batch_execute("SELECT 1").await?)
            }
            Err(PoolError::Backend(error)) => Err(broken(error)),
            Err(error) => Err(DatabaseError::unavailable(error.to_string())),
        }
    }

    pub(super) fn status(&self) -> PoolStatus {
        let status = self.pool.status();
        PoolStatus {
            max: status.max_size,
            connections: status.size,
            available: status.available,
            waiting: status.waiting,
        }
    }

    pub(super) fn close(&self) {
        self.pool.close();
    }
}

/// A connection on loan. Dropped before [`Lease::give_back`], its work was cut short: then it never returns to the pool.
pub(super) struct Lease {
    object: Option<Object<Manager>>,
}

impl Lease {
    /// The connection; an error when it was given back.
    pub(super) fn conn(&mut self) -> Result<&mut AsyncPgConnection, DatabaseError> {
        let object = self.object.as_mut().ok_or_else(|| DatabaseError::unavailable("the connection is gone"))?;
        Ok(&mut object.conn)
    }

    /// The work is done: back to the pool, unless the work broke the connection.
    pub(super) fn give_back(mut self) {
        if let Some(mut object) = self.object.take()
            && !object.is_fit()
        {
            Object::take(object).discard();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            Object::take(object).discard();
        }
    }
}
