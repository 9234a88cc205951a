//! `migrate down`: reverts recorded versions, newest first, and can be run again after a kill at any point.
//!
//! What would be lost is found out before: the down statements run on a shadow of the live schema, and the tables and
//! columns that are gone there are looked up in the real database. Rows in them stop the command unless it was told.

use std::collections::BTreeSet;
use std::time::Instant;

use serde::Serialize;

use crate::backup::BackupReport;
use crate::diff::Leave;
use crate::error::EngineError;
use crate::history;
use crate::ledger::{self, Ledger};
use crate::lock::Lock;
use crate::render::counted;
use crate::repair::{name, table as qualified};
use crate::report::{Action, Outcome, VerifyReport};
use crate::runner::{Runner, millis};
use crate::schema::Schema;
use crate::session::{Connect, Session};
use crate::set::{Migration, MigrationSet};
use crate::shadow;
use crate::up::{RunOptions, backup_first, refuse_newer};
use crate::verify::{Inspection, inspect};
use crate::words::words;

/// How far back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The newest so many recorded versions.
    Steps(usize),
    /// Everything newer than this version; `0` for everything.
    Version(String),
}

/// Rows that a `down` loses.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Loss {
    /// The table.
    pub table: String,
    /// The column; null when the whole table goes.
    pub column: Option<String>,
    /// How many rows hold something in it.
    pub rows: i64,
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rows = counted(self.rows, "row");
        match &self.column {
            Some(column) => write!(f, "{rows} with a value in {}.{column}", self.table),
            None => write!(f, "{rows} of {}", self.table),
        }
    }
}

/// The answer of `down`.
#[derive(Clone, Debug, Serialize)]
pub struct DownReport {
    /// How the database stands afterwards.
    #[serde(flatten)]
    pub verify: VerifyReport,
    /// The versions that were reverted, in order.
    pub reverted: Vec<String>,
    /// Every statement that ran.
    pub actions: Vec<Action>,
    /// What was lost, or would be.
    pub losses: Vec<Loss>,
    /// The archive that was made before the first change, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupReport>,
    /// Why the run ended early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Reverts versions.
pub async fn down(
    connector: &dyn Connect,
    set: &MigrationSet,
    target: &Target,
    may_lose: bool,
    options: &RunOptions,
) -> (DownReport, Result<(), EngineError>) {
    let mut report = DownReport {
        verify: crate::report::UpReport::new(set).verify,
        reverted: Vec::new(),
        actions: Vec::new(),
        losses: Vec::new(),
        backup: None,
        error: None,
    };
    let outcome = attempt(connector, set, target, may_lose, options, &mut report).await;
    if let Err(error) = &outcome {
        report.error = Some(error.to_string());
    }
    (report, outcome)
}

async fn attempt(
    connector: &dyn Connect,
    set: &MigrationSet,
    target: &Target,
    may_lose: bool,
    options: &RunOptions,
    report: &mut DownReport,
) -> Result<(), EngineError> {
    let leave = Leave::default();
    let mut session =
        Session::open(connector, options.connect_wait, &options.interrupt).await?.with_patience(options.lock_wait);
    let inspection = inspect(&session, set, &leave).await?;
    report.verify = inspection.report.clone();
    refuse_newer(&inspection)?;
    if chosen(set, &inspection, target)?.is_empty() {
        return Ok(());
    }
    let waiting = session.another(options.connect_wait).await?;
    let lock = Lock::acquire(waiting, &session, set.service, options.lock_wait).await?;
    // Another run may have changed something meanwhile.
    let inspection = inspect(&session, set, &leave).await?;
    let migrations = chosen(set, &inspection, target)?;
    let outcome = match refused_losses(&mut session, set, &inspection, &migrations, may_lose, report).await {
        Ok(()) => revert(&session, &lock, set, &migrations, options, report).await,
        Err(error) => Err(error),
    };
    if let Ok(inspection) = inspect(&session, set, &leave).await {
        report.verify = inspection.report;
    }
    match lock.release().await {
        Err(error) if outcome.is_ok() && !error.is_connection_loss() => Err(error),
        _ => outcome,
    }
}

/// The recorded migrations that the target names, newest first.
fn chosen<'s>(
    set: &'s MigrationSet,
    inspection: &Inspection,
    target: &Target,
) -> Result<Vec<&'s Migration>, EngineError> {
    let applied = &inspection.report.applied;
    let recorded = set.migrations.iter().rev().filter(|migration| applied.contains(&migration.version));
    Ok(match target {
        Target::Steps(steps) => recorded.take(*steps).collect(),
        Target::Version(version) if version == "0" => recorded.collect(),
        Target::Version(version) => {
            // As the directory is named, or as the history writes it.
            let digits: String = version.split('_').next().unwrap_or_default().replace('-', "");
            if !set.migrations.iter().any(|migration| migration.version == digits) {
                return Err(EngineError::Usage(format!(
                    "--to: {version:?} is no version of {}; expected one that `migrate status` lists, or 0 for all",
                    set.service
                )));
            }
            recorded.filter(|migration| migration.version > digits).collect()
        }
    })
}

/// Tries the statements on a shadow and counts what would be lost.
async fn refused_losses(
    session: &mut Session<'_>,
    set: &MigrationSet,
    inspection: &Inspection,
    migrations: &[&Migration],
    may_lose: bool,
    report: &mut DownReport,
) -> Result<(), EngineError> {
    let live = inspection.owned();
    let entered = shadow::enter(session, &live, &set.expected).await;
    let after = match entered {
        Ok(()) => left_on_shadow(session, set, migrations).await,
        Err(error) => Err(error),
    };
    shadow::leave(session).await;
    report.losses = count_losses(session, &live, &after?, migrations).await?;
    if report.losses.is_empty() || may_lose {
        return Ok(());
    }
    let lost: Vec<String> = report.losses.iter().map(ToString::to_string).collect();
    Err(EngineError::WouldLose(format!(
        "nothing was changed: this would lose {}; keep them elsewhere, or run the command again with --allow-data-loss (and --backup-dir)",
        lost.join(", ")
    )))
}

async fn left_on_shadow(
    session: &Session<'_>,
    set: &MigrationSet,
    migrations: &[&Migration],
) -> Result<Schema, EngineError> {
    for migration in migrations {
        for statement in &migration.down {
            session.execute(&statement.sql, &format!("down of {}_{}", migration.version, migration.name)).await?;
        }
    }
    Ok(inspect(session, set, &Leave::default()).await?.owned())
}

async fn count_losses(
    session: &Session<'_>,
    before: &Schema,
    after: &Schema,
    migrations: &[&Migration],
) -> Result<Vec<Loss>, EngineError> {
    let mut losses = Vec::new();
    let mut emptied = BTreeSet::new();
    for statement in migrations.iter().flat_map(|migration| &migration.down) {
        let mut at = words(&statement.sql);
        if ["delete", "truncate"].contains(&at.next_word().as_str()) {
            at.skip("from");
            at.skip("table");
            at.skip("only");
            emptied.insert(at.name());
        }
    }
    for (table, shape) in before {
        let Some(left) = after.get(table).filter(|_| !emptied.contains(table)) else {
            let rows = count(session, table, "true").await?;
            losses.extend((rows > 0).then(|| Loss { table: table.clone(), column: None, rows }));
            continue;
        };
        for column in shape.columns.keys().filter(|column| !left.columns.contains_key(*column)) {
            let rows = count(session, table, &format!("{} IS NOT NULL", name(column))).await?;
            losses.extend((rows > 0).then(|| Loss { table: table.clone(), column: Some(column.clone()), rows }));
        }
    }
    Ok(losses)
}

async fn count(session: &Session<'_>, table: &str, condition: &str) -> Result<i64, EngineError> {
    let sql = format!("SELECT count(*) FROM {} WHERE {condition}", qualified(table));
    Ok(session.scope().query_one(&sql, &[]).await?.try_get(0)?)
}

async fn revert(
    session: &Session<'_>,
    lock: &Lock<'_>,
    set: &MigrationSet,
    migrations: &[&Migration],
    options: &RunOptions,
    report: &mut DownReport,
) -> Result<(), EngineError> {
    report.backup = backup_first(session, set, options).await?;
    ledger::ensure(session, options.connect_wait, options.lock_wait).await?;
    let (ledger, _) = Ledger::open(session, set, "down").await?;
    ledger.backup(report.backup.as_ref()).await?;
    let tables = set.expected.table_names();
    let runner = Runner {
        session,
        set,
        leave: &Leave::default(),
        lock: Some(lock),
        ledger: Some(&ledger),
        tables: &tables,
        wait: options.lock_wait,
        on_terminal: options.on_terminal,
    };
    let mut reverted = Ok(());
    for migration in migrations {
        reverted = runner.revert(migration, &mut report.actions).await;
        if reverted.is_err() {
            session.rollback().await;
            break;
        }
        report.reverted.push(migration.version.clone());
    }
    let closed = ledger.close(&report.actions, &[], &[], reverted.as_ref().err()).await;
    reverted.and(closed)
}

impl Runner<'_> {
    /// Undoes one migration and takes it out of the history: together, where it can be done in a transaction. Where it
    /// cannot, the statement comes first; killed between, the next run does it again, which finds nothing to do.
    async fn revert(&self, migration: &Migration, actions: &mut Vec<Action>) -> Result<(), EngineError> {
        self.prove().await?;
        let context = format!("down of {}_{}", migration.version, migration.name);
        let mut done = Vec::new();
        if !migration.in_transaction {
            for statement in &migration.down {
                let started = Instant::now();
                let journal = self.journal_begins(Some(&migration.version), &statement.summary()).await?;
                self.alone(&statement.sql, &context).await?;
                let action = reverted(migration, &statement.summary(), started);
                self.journal_ends(journal, &action).await?;
                done.push(action);
            }
        }
        let ran = self
            .retrying(async |timeout| {
                let mut ran = Vec::new();
                self.session.begin(timeout).await?;
                for statement in migration.down.iter().filter(|_| migration.in_transaction) {
                    let started = Instant::now();
                    self.session.execute(&statement.sql, &context).await?;
                    ran.push(reverted(migration, &statement.summary(), started));
                }
                history::forget(self.session, &migration.version).await?;
                if let Some(ledger) = self.ledger {
                    ledger.forget(&migration.version).await?;
                    ledger.actions(&ran).await?;
                }
                self.session.commit(&context).await?;
                Ok(ran)
            })
            .await?;
        done.extend(ran);
        actions.extend(done);
        tracing::info!(version = migration.version, name = migration.name, "migration reverted");
        Ok(())
    }
}

fn reverted(migration: &Migration, statement: &str, started: Instant) -> Action {
    Action {
        version: Some(migration.version.clone()),
        statement: statement.to_owned(),
        outcome: Outcome::Reverted,
        duration_ms: millis(started),
    }
}
