//! One runner at a time per service and database: a session advisory lock on a connection of its own.
//!
//! Polled in autocommit. A blocking `pg_advisory_lock` would hold a snapshot while it waits, and the holder's
//! CREATE INDEX CONCURRENTLY would wait for that snapshot: a deadlock that leaves an INVALID index.

use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::error::EngineError;

/// How often the lock is tried.
const POLL: Duration = Duration::from_millis(200);

/// The held lock; it goes with its connection.
pub(crate) struct Lock {
    client: Client,
    key: i64,
    pid: String,
}

impl Lock {
    /// Waits up to `wait` for the lock of `name`.
    pub(crate) async fn acquire(client: Client, name: &str, wait: Duration) -> Result<Self, EngineError> {
        let key = key(name);
        let deadline = Instant::now() + wait;
        let mut told = false;
        loop {
            let row = first_row(&client, &format!("SELECT pg_try_advisory_lock({key}), pg_backend_pid()")).await?;
            if row.first().map(String::as_str) == Some("t") {
                let pid = row.get(1).cloned().unwrap_or_default();
                return Ok(Self { client, key, pid });
            }
            if !told {
                told = true;
                tracing::info!(lock = name, holder = holder(&client, key).await?, "waiting for another migration run");
            }
            if Instant::now() + POLL > deadline {
                return Err(EngineError::Locked {
                    service: name.to_owned(),
                    waited: humantime::format_duration(wait).to_string(),
                    holder: holder(&client, key).await?,
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Proves that the lock is still ours: a pooler in transaction mode hands out another session each time.
    pub(crate) async fn prove(&self) -> Result<(), EngineError> {
        let held = format!(
            "SELECT pg_backend_pid(), EXISTS (SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND granted AND {})",
            condition(self.key)
        );
        let row = first_row(&self.client, &held).await?;
        let (pid, held) = (row.first().map_or("", String::as_str), row.get(1).map_or("", String::as_str));
        if pid != self.pid {
            return Err(EngineError::LockLost(format!(
                "the server session changed from {} to {pid}, as behind a pooler in transaction mode",
                self.pid
            )));
        }
        if held != "t" {
            return Err(EngineError::LockLost("the session no longer holds it".to_owned()));
        }
        Ok(())
    }

    /// Gives the lock back at once, rather than when the server notices the closed connection.
    pub(crate) async fn release(self) -> Result<(), EngineError> {
        first_row(&self.client, &format!("SELECT pg_advisory_unlock({})", self.key)).await?;
        Ok(())
    }
}

/// The advisory lock of a service, as `pg_locks` shows it: the same for every release of the engine.
pub fn key(name: &str) -> i64 {
    let digest = Sha256::digest(format!("migration-engine/{name}").as_bytes());
    let mut bytes = [0_u8; 8];
    bytes.copy_from_slice(&digest[..8]);
    i64::from_be_bytes(bytes)
}

/// How `pg_locks` shows a lock with one 64-bit key.
fn condition(key: i64) -> String {
    let bytes = key.to_be_bytes();
    let half = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    format!("locktype = 'advisory' AND objsubid = 1 AND classid = {} AND objid = {}", half(0), half(4))
}

async fn holder(client: &Client, key: i64) -> Result<String, EngineError> {
    let row = first_row(
        client,
        &format!(
            "SELECT 'pid ' || a.pid || ', user ' || coalesce(a.usename, '?') || ', from ' || coalesce(host(a.client_addr), 'a local socket') \
             || ', since ' || a.backend_start FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
             WHERE l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND {}",
            condition(key).replace("locktype", "l.locktype").replace("objsubid", "l.objsubid").replace("classid", "l.classid").replace("objid =", "l.objid =")
        ),
    )
    .await?;
    Ok(row.into_iter().next().unwrap_or_else(|| "gone in the meantime".to_owned()))
}

/// The first row through the simple protocol, which leaves no snapshot behind.
async fn first_row(client: &Client, sql: &str) -> Result<Vec<String>, EngineError> {
    let messages = client.simple_query(sql).await?;
    for message in messages {
        if let SimpleQueryMessage::Row(row) = message {
            return Ok((0..row.len()).map(|at| row.get(at).unwrap_or_default().to_owned()).collect());
        }
    }
    Ok(Vec::new())
}
