//! The connection pool and the two ways to use it: [`Database::run`] and [`Database::transaction`].
//!
//! ```no_run
//! # use diesel::prelude::*;
//! # use diesel_async::RunQueryDsl;
//! # use service_kit::database::{Database, DatabaseError};
//! # diesel::table! { tasks (id) { id -> Integer, title -> Text } }
//! async fn task_title(database: &Database, id: i32) -> Result<Option<String>, DatabaseError> {
//!     database
//!         .run("task_title", async |conn| {
//!             Ok(tasks::table.find(id).select(tasks::title).first(conn).await.optional()?)
//!         })
//!         .await
//! }
//! ```
//!
//! Rules for the closures:
//! - Write `async |conn| { … }` without `move`: it may run again, so it borrows what it uses and clones what it must own.
//! - It returns `Result<T, E>` with `E:` [`StoreError`]: [`DatabaseError`] itself, or a store's own enum with one variant for it
//!   (see [`crate::store_error!`]). A domain error rolls the transaction back and passes through untouched.
//! - It is bounded by the deadline of the call at hand ([`crate::deadline`]); when that passes, or the caller goes away, the
//!   statement is cancelled in the server and the connection is closed, never given to another caller.

mod error;
mod pool;
mod work;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use diesel_async::AsyncPgConnection;

pub use error::{ConflictKind, DatabaseError, StoreError};

use crate::postgres::{ConnectError, DatabaseUrl};
use work::{Shape, work};

/// A database that takes longer than this for nothing is not one to send work to.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// An async closure whose future can be sent between threads; every `async |conn| …` without `move` is one.
pub trait AsyncCall<A, R>: AsyncFn(A) -> R + Fn(A) -> <Self as AsyncCall<A, R>>::Fut {
    /// What the closure returns.
    type Fut: Future<Output = R>;
}

impl<F, A, Fut, R> AsyncCall<A, R> for F
where
    F: AsyncFn(A) -> R + Fn(A) -> Fut,
    Fut: Future<Output = R>,
{
    type Fut = Fut;
}

/// The pool. Cheap to clone.
#[derive(Clone)]
pub struct Database {
    inner: Arc<pool::Inner>,
}

/// How the pool stands at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolStatus {
    /// Most connections there may be.
    pub max: usize,
    /// Connections that exist.
    pub connections: usize,
    /// Connections that nobody uses.
    pub available: usize,
    /// Callers waiting for a connection.
    pub waiting: usize,
}

impl Database {
    /// Makes the pool; opens nothing yet. Fails when the TLS settings of the URL cannot be read.
    pub fn new(url: &DatabaseUrl, max_connections: u32) -> Result<Self, ConnectError> {
        Ok(Self { inner: Arc::new(pool::Inner::new(url, max_connections)?) })
    }

    /// Runs `statements` on one connection, each statement its own transaction. Not retried.
    ///
    /// `operation` names the metric's label: a constant, resource first (`task_list`).
    #[expect(
        clippy::manual_async_fn,
        reason = "Send is promised here, so that its lack shows in the closure and not far away"
    )]
    pub fn run<'a, T, E, F>(
        &'a self,
        operation: &'static str,
        statements: F,
    ) -> impl Future<Output = Result<T, E>> + Send + 'a
    where
        F: for<'c> AsyncFn(&'c mut AsyncPgConnection) -> Result<T, E>
            + for<'c> AsyncCall<&'c mut AsyncPgConnection, Result<T, E>, Fut: Send>
            + Send
            + Sync
            + 'a,
        T: Send + 'a,
        E: StoreError + 'a,
    {
        async move { work(&self.inner, operation, Shape::Single, &statements).await }
    }

    /// Runs `statements` in one transaction (read committed). Serialization failures and deadlocks are retried with jitter, a
    /// bounded number of times; the closure then runs again from its start.
    #[expect(
        clippy::manual_async_fn,
        reason = "Send is promised here, so that its lack shows in the closure and not far away"
    )]
    pub fn transaction<'a, T, E, F>(
        &'a self,
        operation: &'static str,
        statements: F,
    ) -> impl Future<Output = Result<T, E>> + Send + 'a
    where
        F: for<'c> AsyncFn(&'c mut AsyncPgConnection) -> Result<T, E>
            + for<'c> AsyncCall<&'c mut AsyncPgConnection, Result<T, E>, Fut: Send>
            + Send
            + Sync
            + 'a,
        T: Send + 'a,
        E: StoreError + 'a,
    {
        async move { work(&self.inner, operation, Shape::Transaction, &statements).await }
    }

    /// One trivial statement within two seconds: whether the database answers at all. A busy pool does not make it fail.
    pub async fn ping(&self) -> Result<(), DatabaseError> {
        tokio::time::timeout(PING_TIMEOUT, self.inner.ping()).await.unwrap_or(Err(DatabaseError::Timeout))
    }

    /// How the pool stands at the moment.
    pub fn status(&self) -> PoolStatus {
        self.inner.status()
    }

    /// Writes the pool's gauges; to be registered with [`crate::telemetry::Metrics::before_scrape`].
    pub fn record_metrics(&self) {
        let status = self.status();
        let gauge = |name, value: usize| metrics::gauge!(name).set(value as f64);
        let used = status.connections.saturating_sub(status.available);
        metrics::gauge!("database_pool_connections", "state" => "used").set(used as f64);
        metrics::gauge!("database_pool_connections", "state" => "idle").set(status.available as f64);
        gauge("database_pool_max_connections", status.max);
        gauge("database_pool_waiting", status.waiting);
    }

    /// Closes the pool: idle connections end now, those in use when they come back.
    pub fn close(&self) {
        self.inner.close();
    }
}
