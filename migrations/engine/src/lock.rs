//! One runner at a time per service and database: a session advisory lock on a connection of its own.
//!
//! Polled in autocommit. A blocking `pg_advisory_lock` would hold a snapshot while it waits, and the holder's
//! CREATE INDEX CONCURRENTLY would wait for that snapshot: a deadlock that leaves an INVALID index.
//!
//! A pooler in transaction mode lends one server session to many clients: the lock would stay behind in it, and a second
//! runner that is lent the same session would be told that it holds the lock too. Both are looked for, before and during.

use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::error::EngineError;
use crate::session::Session;

/// How often the lock is tried.
const POLL: Duration = Duration::from_millis(200);

/// A setting of the session that only this run knows.
const MARK: &str = "migration_engine.session";

/// The held lock; it goes with its session.
pub(crate) struct Lock<'a> {
    session: Session<'a>,
    key: i64,
    mark: String,
}

impl<'a> Lock<'a> {
    /// Waits up to `wait` for the lock of `name`, on a session of its own. `working` is the session that will work.
    pub(crate) async fn acquire(
        session: Session<'a>,
        working: &Session<'_>,
        name: &str,
        wait: Duration,
    ) -> Result<Self, EngineError> {
        let lock = Self { session, key: key(name), mark: Uuid::new_v4().to_string() };
        lock.refuse_pooler(working).await?;
        let deadline = Instant::now() + wait;
        let mut told = false;
        // Tried only where this session does not hold it yet: it would be given a second time.
        let attempt = format!(
            "SELECT held.already, CASE WHEN held.already THEN false ELSE pg_catalog.pg_try_advisory_lock({}) END, \
             pg_catalog.pg_backend_pid() \
             FROM (SELECT EXISTS (SELECT FROM pg_catalog.pg_locks WHERE pid = pg_catalog.pg_backend_pid() AND granted AND {}) AS already) held",
            lock.key,
            condition(lock.key)
        );
        loop {
            let row = lock.session.scope().first_row(&attempt).await?;
            let is_true = |at: usize| row.get(at).is_some_and(|text| text == "t");
            if is_true(0) || row.get(2) != Some(&lock.session.pid) {
                return Err(EngineError::Pooler);
            }
            if is_true(1) {
                return Ok(lock);
            }
            if !told {
                told = true;
                tracing::info!(lock = name, holder = lock.holder().await?, "waiting for another migration run");
            }
            if Instant::now() + POLL > deadline {
                return Err(EngineError::Locked {
                    service: name.to_owned(),
                    waited: humantime::format_duration(wait).to_string(),
                    holder: lock.holder().await?,
                });
            }
            lock.session.interrupt().sleep(POLL).await?;
        }
    }

    /// Whether a session of ours is lent to others between two statements: then a mark that one connection leaves shows on
    /// the other, or is gone.
    async fn refuse_pooler(&self, working: &Session<'_>) -> Result<(), EngineError> {
        self.session.scope().batch(&format!("SET {MARK} = '{}'", self.mark)).await?;
        let read = format!("SELECT pg_catalog.current_setting('{MARK}', true), pg_catalog.pg_backend_pid()");
        let other = working.scope().first_row(&read).await?;
        let own = self.session.scope().first_row(&read).await?;
        let same = |row: &[String], mark: &str, pid: &str| {
            row.first().is_some_and(|text| text == mark) && row.get(1).is_some_and(|text| text == pid)
        };
        if other.first() == Some(&self.mark)
            || other.get(1) != Some(&working.pid)
            || !same(&own, &self.mark, &self.session.pid)
        {
            return Err(EngineError::Pooler);
        }
        Ok(())
    }

    /// Proves that the lock is still ours, and that `working` is still the session it was.
    pub(crate) async fn prove(&self, working: &Session<'_>) -> Result<(), EngineError> {
        let held = format!(
            "SELECT pg_catalog.pg_backend_pid(), EXISTS (SELECT FROM pg_catalog.pg_locks WHERE pid = pg_catalog.pg_backend_pid() AND granted AND {}), \
             pg_catalog.current_setting('{MARK}', true)",
            condition(self.key)
        );
        let (own, other) = tokio::join!(
            self.session.scope().first_row(&held),
            working.scope().first_row("SELECT pg_catalog.pg_backend_pid()")
        );
        let (own, other) = (own?, other?);
        for (now, before) in [(own.first(), &self.session.pid), (other.first(), &working.pid)] {
            if now != Some(before) {
                return Err(EngineError::LockLost(format!(
                    "the server session changed from {before} to {}, as behind a pooler in transaction mode",
                    now.map_or("", String::as_str)
                )));
            }
        }
        if own.get(1).is_none_or(|text| text != "t") {
            return Err(EngineError::LockLost("the session no longer holds it".to_owned()));
        }
        if own.get(2) != Some(&self.mark) {
            return Err(EngineError::LockLost(
                "another client works in the same server session, as behind a pooler in transaction mode".to_owned(),
            ));
        }
        Ok(())
    }

    /// The lock's own session, idle while the other one works.
    pub(crate) fn session(&self) -> &Session<'a> {
        &self.session
    }

    /// Gives the lock back at once, rather than when the server notices the closed connection.
    pub(crate) async fn release(self) -> Result<(), EngineError> {
        self.session.scope().first_row(&format!("SELECT pg_catalog.pg_advisory_unlock({})", self.key)).await?;
        Ok(())
    }

    async fn holder(&self) -> Result<String, EngineError> {
        let row = self
            .session
            .scope()
            .first_row(&format!(
                "SELECT 'pid ' || a.pid || ', user ' || coalesce(a.usename, '?') || ', from ' || coalesce(host(a.client_addr), 'a local socket') \
                 || ', since ' || a.backend_start FROM (SELECT pid FROM pg_catalog.pg_locks WHERE granted AND {}) l \
                 JOIN pg_catalog.pg_stat_activity a USING (pid)",
                condition(self.key)
            ))
            .await?;
        Ok(row.into_iter().next().unwrap_or_else(|| "gone in the meantime".to_owned()))
    }
}

/// The advisory lock of a service, as `pg_locks` shows it: the same for every release of the engine.
pub fn key(name: &str) -> i64 {
    let digest = Sha256::digest(format!("migration-engine/{name}").as_bytes());
    let mut bytes = [0_u8; 8];
    bytes.copy_from_slice(&digest[..8]);
    i64::from_be_bytes(bytes)
}

/// How `pg_locks` shows a lock with one 64-bit key in this database.
fn condition(key: i64) -> String {
    let bytes = key.to_be_bytes();
    let half = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    format!(
        "locktype = 'advisory' AND objsubid = 1 AND classid = {} AND objid = {} \
         AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())",
        half(0),
        half(4)
    )
}
