//! The engine's own memory, beside Diesel's history: a row per run that changes something, a row per action, and which
//! service each version belongs to (services may share one database, and then one history).
//!
//! The actions are also the journal of statements that run outside a transaction: such a row is written before the
//! statement and finished after it. A row that stayed open says that a run died there; what became of the statement is
//! then read from the catalog, never believed from the row.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::backup::BackupReport;
use crate::error::EngineError;
use crate::lock::Lock;
use crate::report::{Action, DataChange, FindingReport};
use crate::scope::Scope;
use crate::session::Session;
use crate::set::MigrationSet;

/// Made with the history, under the same lock. The columns that came later stand apart, for a ledger of an older release.
pub(crate) const CREATE: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS public.__migration_runs (\
        id uuid PRIMARY KEY, service text NOT NULL, command text NOT NULL, binary_version text NOT NULL, \
        database_user text NOT NULL DEFAULT session_user, client_address text DEFAULT host(inet_client_addr()), \
        started_at timestamptz NOT NULL, finished_at timestamptz NOT NULL DEFAULT clock_timestamp(), \
        outcome text NOT NULL, error text, actions jsonb NOT NULL, data_changes jsonb NOT NULL)",
    "ALTER TABLE public.__migration_runs ADD COLUMN IF NOT EXISTS findings jsonb",
    "ALTER TABLE public.__migration_runs ADD COLUMN IF NOT EXISTS backup_path text",
    "ALTER TABLE public.__migration_runs ADD COLUMN IF NOT EXISTS backup_sha256 text",
    "CREATE TABLE IF NOT EXISTS public.__migration_versions (\
        service text NOT NULL, version text NOT NULL, checksum text NOT NULL, run_id uuid NOT NULL, \
        verified_at timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (service, version))",
    "CREATE TABLE IF NOT EXISTS public.__migration_actions (\
        run_id uuid NOT NULL, step integer NOT NULL, service text NOT NULL, version text, statement text NOT NULL, \
        outcome text NOT NULL, started_at timestamptz NOT NULL DEFAULT clock_timestamp(), finished_at timestamptz, \
        note text, PRIMARY KEY (run_id, step))",
];

/// A table and the columns that it must have, as `name type`.
pub(crate) type Shape = (&'static str, &'static [&'static str]);

/// What the tables must have to be read and written. Another application may have the names.
pub(crate) const SHAPES: &[Shape] = &[RUNS, VERSIONS, ACTIONS];

const RUNS: Shape = (
    "__migration_runs",
    &[
        "id uuid",
        "service text",
        "command text",
        "binary_version text",
        "database_user text",
        "started_at timestamp with time zone",
        "finished_at timestamp with time zone",
        "outcome text",
        "error text",
        "actions jsonb",
        "data_changes jsonb",
    ],
);
const VERSIONS: Shape = ("__migration_versions", &["service text", "version text", "checksum text", "run_id uuid"]);
const ACTIONS: Shape = (
    "__migration_actions",
    &[
        "run_id uuid",
        "step integer",
        "service text",
        "version text",
        "statement text",
        "outcome text",
        "started_at timestamp with time zone",
        "finished_at timestamp with time zone",
        "note text",
    ],
);
/// Columns that a ledger of an older release has not.
const LATER: &[&str] = &["findings jsonb", "backup_path text", "backup_sha256 text"];

/// The last run, for `status`.
#[derive(Clone, Debug, Serialize)]
pub struct LastRun {
    /// The run's id.
    pub id: Uuid,
    /// Which command.
    pub command: String,
    /// Version of the binary.
    pub binary_version: String,
    /// Who ran it.
    pub database_user: String,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended; of a running one, when it began.
    pub finished_at: DateTime<Utc>,
    /// `running`, `done`, `failed`, or `interrupted`.
    pub outcome: String,
    /// Why it failed.
    pub error: Option<String>,
}

/// What a run that died left open, and what the catalog says became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Interrupted {
    /// The migration's version; null for a repair of the engine.
    pub version: Option<String>,
    /// The statement on one line.
    pub statement: String,
    /// When it began.
    pub started_at: DateTime<Utc>,
}

/// The open row of a run.
pub(crate) struct Ledger<'s> {
    session: &'s Session<'s>,
    service: &'static str,
    id: Uuid,
    step: Cell<i32>,
}

impl<'s> Ledger<'s> {
    /// Opens the row of a run; the tables must be there. Runs that died are closed: the lock is ours, so none is alive.
    pub(crate) async fn open(
        session: &'s Session<'s>,
        set: &MigrationSet,
        command: &str,
    ) -> Result<(Self, Vec<Interrupted>), EngineError> {
        let scope = session.scope();
        let service: &str = set.service;
        let rows = scope
            .query(
                "WITH dead AS (UPDATE public.__migration_runs SET outcome = 'interrupted', finished_at = clock_timestamp() \
                    WHERE service = $1 AND outcome = 'running'), \
                 open AS (UPDATE public.__migration_actions SET outcome = 'interrupted', finished_at = clock_timestamp(), \
                    note = 'the run died here; the next one decided by the catalog' \
                    WHERE service = $1 AND outcome = 'started' RETURNING version, statement, started_at) \
                 SELECT version, statement, started_at FROM open ORDER BY started_at",
                &[(&service, Type::TEXT)],
            )
            .await?;
        let mut interrupted = Vec::new();
        for row in &rows {
            let found =
                Interrupted { version: row.try_get(0)?, statement: row.try_get(1)?, started_at: row.try_get(2)? };
            tracing::warn!(statement = found.statement, started_at = %found.started_at, "an earlier run died during this statement; the catalog decides what is left to do");
            interrupted.push(found);
        }
        let id = Uuid::now_v7();
        scope
            .query(
                "INSERT INTO public.__migration_runs (id, service, command, binary_version, started_at, finished_at, outcome, actions, data_changes) \
                 VALUES ($1, $2, $3, $4, clock_timestamp(), clock_timestamp(), 'running', '[]', '[]')",
                &[
                    (&id, Type::UUID),
                    (&service, Type::TEXT),
                    (&command, Type::TEXT),
                    (&env!("CARGO_PKG_VERSION"), Type::TEXT),
                ],
            )
            .await?;
        Ok((Self { session, service: set.service, id, step: Cell::new(0) }, interrupted))
    }

    /// Says that a statement outside a transaction begins; answers its step.
    pub(crate) async fn action_begins(&self, version: Option<&str>, statement: &str) -> Result<i32, EngineError> {
        let step = self.next_step();
        self.session
            .scope()
            .query(
                "INSERT INTO public.__migration_actions (run_id, step, service, version, statement, outcome) \
                 VALUES ($1, $2, $3, $4, $5, 'started')",
                &[
                    (&self.id, Type::UUID),
                    (&step, Type::INT4),
                    (&self.service, Type::TEXT),
                    (&version, Type::TEXT),
                    (&statement, Type::TEXT),
                ],
            )
            .await?;
        Ok(step)
    }

    /// Closes what [`Self::action_begins`] has opened.
    pub(crate) async fn action_ends(&self, step: i32, outcome: &str, note: Option<&str>) -> Result<(), EngineError> {
        self.session
            .scope()
            .query(
                "UPDATE public.__migration_actions SET outcome = $3, note = $4, finished_at = clock_timestamp() \
                 WHERE run_id = $1 AND step = $2",
                &[(&self.id, Type::UUID), (&step, Type::INT4), (&outcome, Type::TEXT), (&note, Type::TEXT)],
            )
            .await?;
        Ok(())
    }

    /// Writes the actions of a transaction, within it: both are there afterwards, or neither.
    pub(crate) async fn actions(&self, actions: &[Action]) -> Result<(), EngineError> {
        let steps: Vec<i32> = actions.iter().map(|_| self.next_step()).collect();
        let versions: Vec<Option<&str>> = actions.iter().map(|action| action.version.as_deref()).collect();
        let statements: Vec<&str> = actions.iter().map(|action| action.statement.as_str()).collect();
        let outcomes: Vec<&str> = actions.iter().map(|action| action.outcome.word()).collect();
        let times: Vec<i64> =
            actions.iter().map(|action| i64::try_from(action.duration_ms).unwrap_or(i64::MAX)).collect();
        self.session
            .scope()
            .query(
                "INSERT INTO public.__migration_actions (run_id, step, service, version, statement, outcome, started_at, finished_at) \
                 SELECT $1, step, $2, version, statement, outcome, clock_timestamp() - ms * interval '1 millisecond', clock_timestamp() \
                 FROM unnest($3::int4[], $4::text[], $5::text[], $6::text[], $7::int8[]) AS a (step, version, statement, outcome, ms)",
                &[
                    (&self.id, Type::UUID),
                    (&self.service, Type::TEXT),
                    (&steps, Type::INT4_ARRAY),
                    (&versions, Type::TEXT_ARRAY),
                    (&statements, Type::TEXT_ARRAY),
                    (&outcomes, Type::TEXT_ARRAY),
                    (&times, Type::INT8_ARRAY),
                ],
            )
            .await?;
        Ok(())
    }

    fn next_step(&self) -> i32 {
        let step = self.step.get() + 1;
        self.step.set(step);
        step
    }

    /// Closes the row of the run.
    pub(crate) async fn close(
        &self,
        actions: &[Action],
        data_changes: &[DataChange],
        findings: &[FindingReport],
        error: Option<&EngineError>,
    ) -> Result<(), EngineError> {
        let outcome = match error {
            None => "done",
            Some(EngineError::Interrupted) => "interrupted",
            Some(_) => "failed",
        };
        let (actions, data_changes, findings) =
            (serde_json::json!(actions), serde_json::json!(data_changes), serde_json::json!(findings));
        let error = error.map(ToString::to_string);
        self.session
            .scope()
            .query(
                "WITH ended AS (UPDATE public.__migration_actions SET outcome = $2, finished_at = clock_timestamp(), \
                    note = 'the run ended here' WHERE run_id = $1 AND outcome = 'started') \
                 UPDATE public.__migration_runs SET outcome = $2, error = $3, actions = $4, data_changes = $5, findings = $6, \
                 finished_at = clock_timestamp() WHERE id = $1",
                &[
                    (&self.id, Type::UUID),
                    (&outcome, Type::TEXT),
                    (&error, Type::TEXT),
                    (&actions, Type::JSONB),
                    (&data_changes, Type::JSONB),
                    (&findings, Type::JSONB),
                ],
            )
            .await?;
        Ok(())
    }

    /// Notes which archive was made before the first change.
    pub(crate) async fn backup(&self, made: Option<&BackupReport>) -> Result<(), EngineError> {
        let Some(made) = made else { return Ok(()) };
        let path = made.path.display().to_string();
        self.session
            .scope()
            .query(
                "UPDATE public.__migration_runs SET backup_path = $2, backup_sha256 = $3 WHERE id = $1",
                &[(&self.id, Type::UUID), (&path, Type::TEXT), (&made.sha256, Type::TEXT)],
            )
            .await?;
        Ok(())
    }

    /// Writes which versions this service has verified, with the checksums of their SQL.
    pub(crate) async fn versions(&self, set: &MigrationSet) -> Result<(), EngineError> {
        let versions: Vec<&str> = set.migrations.iter().map(|migration| migration.version.as_str()).collect();
        let checksums: Vec<&str> = set.migrations.iter().map(|migration| migration.checksum.as_str()).collect();
        // Without ON CONFLICT: a ledger that was restored by hand may have lost its key.
        self.session
            .scope()
            .query(
                "WITH given AS (SELECT * FROM unnest($3::text[], $4::text[]) AS g (version, checksum)), \
                 known AS (UPDATE public.__migration_versions v SET checksum = given.checksum FROM given \
                    WHERE v.service = $2 AND v.version = given.version RETURNING v.version) \
                 INSERT INTO public.__migration_versions (service, version, checksum, run_id) \
                 SELECT $2, version, checksum, $1 FROM given WHERE version NOT IN (SELECT version FROM known)",
                &[
                    (&self.id, Type::UUID),
                    (&self.service, Type::TEXT),
                    (&versions, Type::TEXT_ARRAY),
                    (&checksums, Type::TEXT_ARRAY),
                ],
            )
            .await?;
        Ok(())
    }

    /// Forgets a version that was reverted.
    pub(crate) async fn forget(&self, version: &str) -> Result<(), EngineError> {
        self.session
            .scope()
            .query(
                "DELETE FROM public.__migration_versions WHERE service = $1 AND version = $2",
                &[(&self.service, Type::TEXT), (&version, Type::TEXT)],
            )
            .await?;
        Ok(())
    }
}

/// What the read-only commands look up.
#[derive(Default)]
pub(crate) struct Memory {
    /// Versions that the ledger gives to other services.
    pub(crate) foreign: BTreeSet<String>,
    /// Versions of this service whose SQL was another one when they were verified.
    pub(crate) edited: Vec<String>,
    /// Codes of what the last run had to tell a person.
    pub(crate) open_findings: BTreeSet<String>,
}

/// Reads the memory of a service; what is not there is empty.
pub(crate) async fn memory(scope: Scope<'_>, set: &MigrationSet) -> Result<Memory, EngineError> {
    let (versions, runs) = tokio::join!(usable(scope, VERSIONS.0, VERSIONS.1), usable(scope, RUNS.0, LATER));
    let (versions, runs) = (versions?, runs?);
    let mut memory = Memory::default();
    if versions {
        for row in &scope.query("SELECT service, version, checksum FROM public.__migration_versions", &[]).await? {
            let (service, version, checksum): (String, String, String) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            if service != set.service {
                memory.foreign.insert(version);
            } else if set
                .migrations
                .iter()
                .any(|migration| migration.version == version && migration.checksum != checksum)
            {
                memory.edited.push(version);
            }
        }
    }
    if runs {
        let sql = "SELECT finding ->> 'code' FROM pg_catalog.jsonb_array_elements((SELECT findings FROM public.__migration_runs \
            WHERE service = $1 AND outcome = 'done' ORDER BY started_at DESC LIMIT 1)) AS finding";
        for row in &scope.query(sql, &[(&set.service, Type::TEXT)]).await? {
            memory.open_findings.extend(row.try_get::<_, Option<String>>(0)?);
        }
    }
    Ok(memory)
}

/// The last run of a service.
pub(crate) async fn last_run(scope: Scope<'_>, service: &str) -> Result<Option<LastRun>, EngineError> {
    if !usable(scope, RUNS.0, RUNS.1).await? {
        return Ok(None);
    }
    let row = scope
        .query_opt(
            "SELECT id, command, binary_version, database_user, started_at, finished_at, outcome, error
             FROM public.__migration_runs WHERE service = $1 ORDER BY started_at DESC LIMIT 1",
            &[(&service, Type::TEXT)],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(LastRun {
        id: row.try_get(0)?,
        command: row.try_get(1)?,
        binary_version: row.try_get(2)?,
        database_user: row.try_get(3)?,
        started_at: row.try_get(4)?,
        finished_at: row.try_get(5)?,
        outcome: row.try_get(6)?,
        error: row.try_get(7)?,
    }))
}

/// Whether every table of the ledger is there in today's form.
pub(crate) async fn complete(scope: Scope<'_>) -> Result<bool, EngineError> {
    for (table, columns) in SHAPES {
        if !usable(scope, table, columns).await? {
            return Ok(false);
        }
    }
    usable(scope, RUNS.0, LATER).await
}

/// Makes the tables of the ledger where they are not there in today's form, under the lock that every service of the
/// database shares: `IF NOT EXISTS` is not atomic.
pub(crate) async fn ensure(
    session: &Session<'_>,
    connect_wait: Duration,
    lock_wait: Duration,
) -> Result<(), EngineError> {
    if complete(session.scope()).await? {
        return Ok(());
    }
    let lock = Lock::acquire(session.another(connect_wait).await?, session, "history", lock_wait).await?;
    let made = create(session).await;
    let released = lock.release().await;
    made.and(released)
}

/// Makes the tables; the caller holds the lock.
pub(crate) async fn create(session: &Session<'_>) -> Result<(), EngineError> {
    if complete(session.scope()).await? {
        return Ok(());
    }
    for sql in CREATE {
        session.execute(sql, "ledger").await?;
    }
    Ok(())
}

/// Whether something has the name.
pub(crate) async fn there(scope: Scope<'_>, table: &str) -> Result<bool, EngineError> {
    let row =
        scope.query_one("SELECT pg_catalog.to_regclass('public.' || $1) IS NOT NULL", &[(&table, Type::TEXT)]).await?;
    Ok(row.try_get(0)?)
}

/// Whether it is a table with these columns, which this session may read.
pub(crate) async fn usable(scope: Scope<'_>, table: &str, columns: &[&str]) -> Result<bool, EngineError> {
    Ok(shape(scope, table, columns).await?.0)
}

/// Whether a row of ours can be written too: no further column demands a value.
pub(crate) async fn writable(scope: Scope<'_>, table: &str, columns: &[&str]) -> Result<bool, EngineError> {
    let (usable, demanding) = shape(scope, table, columns).await?;
    Ok(usable && !demanding)
}

async fn shape(scope: Scope<'_>, table: &str, columns: &[&str]) -> Result<(bool, bool), EngineError> {
    let row = scope
        .query_one(
            "SELECT coalesce(pg_catalog.array_agg(a.attname || ' ' || pg_catalog.format_type(a.atttypid, a.atttypmod)) @> $2
                    AND pg_catalog.bool_and(pg_catalog.has_table_privilege(c.oid, 'SELECT')), false),
                coalesce(pg_catalog.bool_or(a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''
                    AND a.attname || ' ' || pg_catalog.format_type(a.atttypid, a.atttypmod) <> ALL ($2)), false)
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             WHERE c.oid = pg_catalog.to_regclass('public.' || $1) AND c.relkind = 'r'",
            &[(&table, Type::TEXT), (&columns, Type::TEXT_ARRAY)],
        )
        .await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}
