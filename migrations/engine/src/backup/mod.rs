//! A backup before the first change: a `pg_dump` archive of the whole database, read back to its end before anything is
//! touched. No good archive, no change. Why so: `docs/decisions/backup-first.md`.
//!
//! [`take`] is the order: find the tools, dump into `….dump.partial`, verify, rename, delete the oldest. Dropping its
//! future ends the running tool and removes the unfinished file.

mod archive;
mod dump;
mod process;
mod settings;
mod tools;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde::Serialize;
use tokio_postgres::Client;

use crate::error::EngineError;
use crate::session::Connect;
use archive::{Partial, Series};
use tools::Tools;

pub use settings::ToolSettings;

/// Flags of the commands that change a database.
#[derive(Clone, Debug, Args)]
pub struct BackupArgs {
    /// Before the first change, write a verified pg_dump archive of the whole database into this directory, which must exist.
    ///
    /// No good archive, no change: exit code 8. Nothing to do, no archive. It is named
    /// <service>-<database>-<UTC time>.dump and restored with pg_restore. pg_dump must be of the server's major version or
    /// newer; it is looked for in PATH, /usr/lib/postgresql/*/bin and Homebrew. The role of DATABASE_URL must be able to
    /// read every table of the database: GRANT pg_read_all_data to it where other applications share it.
    #[arg(long, value_name = "DIR")]
    pub backup_dir: Option<PathBuf>,
    /// How many archives of this service and database stay in --backup-dir: older ones are deleted once the new one is
    /// verified. Nothing else there is touched.
    #[arg(long, value_name = "N", default_value = "5", requires = "backup_dir")]
    pub backup_keep: NonZeroUsize,
    /// The one directory in which pg_dump and pg_restore are looked for.
    #[arg(long, value_name = "DIR", env = "PG_BIN_DIR")]
    pub pg_bin_dir: Option<PathBuf>,
}

impl BackupArgs {
    /// What is asked for; nothing without `--backup-dir`.
    #[must_use]
    pub fn options(&self) -> Option<BackupOptions> {
        let directory = self.backup_dir.clone()?;
        let tools = self.pg_bin_dir.clone().filter(|directory| !directory.as_os_str().is_empty());
        Some(BackupOptions { directory, keep: self.backup_keep, tools })
    }
}

/// Where an archive goes, and how many stay.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    /// The directory of the archives; it must exist.
    pub directory: PathBuf,
    /// How many archives of one service and database stay.
    pub keep: NonZeroUsize,
    /// The only place to look for the tools, instead of the usual ones.
    pub tools: Option<PathBuf>,
}

/// An archive that was verified.
#[derive(Clone, Debug, Serialize)]
pub struct BackupReport {
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, in hex.
    pub sha256: String,
    /// How long it took, verification included.
    pub seconds: f64,
    /// How many tables' rows are in it.
    pub tables: usize,
    /// The server's version, as `15.13`.
    pub server_version: String,
    /// The version of pg_dump.
    pub tool_version: String,
}

/// The database that is dumped, as the session of the run sees it.
struct Source {
    database: String,
    version: String,
    major: u32,
    /// Those of our tables that are there.
    tables: Vec<String>,
}

/// Makes an archive of the whole database of `client` and verifies it. `tables` are ours in schema `public`: each one that
/// is there must have its rows in the archive. `client` must not be in a transaction: the dump takes a lock on every table.
///
/// # Errors
/// [`EngineError::Backup`], with what to do; or the loss of the connection, when that is why the dump failed.
pub(crate) async fn take(
    connector: &dyn Connect,
    client: &Client,
    service: &str,
    tables: &[String],
    options: &BackupOptions,
) -> Result<BackupReport, EngineError> {
    let taken = archived(connector, client, service, tables, options).await;
    // A server that went away takes the dump with it: that is a lost connection, which a run rides out.
    if let Err(EngineError::Backup(_)) = &taken {
        match client.simple_query("").await.map_err(EngineError::from) {
            Err(error) if error.is_connection_loss() => return Err(error),
            _ => {}
        }
    }
    taken
}

async fn archived(
    connector: &dyn Connect,
    client: &Client,
    service: &str,
    tables: &[String],
    options: &BackupOptions,
) -> Result<BackupReport, EngineError> {
    let started = Instant::now();
    let source = source(client, tables).await?;
    let tools = Tools::find(options.tools.as_deref(), source.major, &source.version).await?;
    let series = Series::new(service, &source.database);
    let partial = Partial::begin(&options.directory, &series).await?;
    series.remove_leftovers(&options.directory, partial.path());
    tracing::info!(path = %partial.target().display(), pg_dump = tools.version, "backup: dumping the database");
    dump::write(&tools, &connector.tool_settings(), service, &partial).await?;
    let rows_of = dump::verify(&tools, &partial, &source.tables).await?;
    let (bytes, sha256) = archive::digest(partial.path()).await?;
    let path = partial.publish()?;
    series.keep_newest(&options.directory, &path, options.keep);
    let report = BackupReport {
        path,
        bytes,
        sha256,
        seconds: started.elapsed().as_secs_f64(),
        tables: rows_of,
        server_version: source.version,
        tool_version: tools.version,
    };
    tracing::info!(
        path = %report.path.display(), bytes, sha256 = report.sha256, tables = rows_of, seconds = report.seconds,
        "backup: archive verified"
    );
    Ok(report)
}

async fn source(client: &Client, tables: &[String]) -> Result<Source, EngineError> {
    let row = client
        .query_one(
            "SELECT pg_catalog.current_database()::text, pg_catalog.current_setting('server_version'),
                pg_catalog.current_setting('server_version_num')::int4,
                ARRAY(SELECT c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                    WHERE n.nspname = 'public' AND c.relkind = 'r' AND c.relname::text = ANY ($1))",
            &[&tables],
        )
        .await?;
    let version: String = row.try_get(1)?;
    let number: i32 = row.try_get(2)?;
    Ok(Source {
        database: row.try_get(0)?,
        // "15.13 (Debian 15.13-0+deb12u1)"
        version: version.split_whitespace().next().unwrap_or_default().to_owned(),
        major: u32::try_from(number / 10_000).unwrap_or_default(),
        tables: row.try_get(3)?,
    })
}

/// An error of this part; the text ends with what to do.
fn failed(text: impl Into<String>) -> EngineError {
    EngineError::Backup(text.into())
}
