//! `migrate up`: lock, inspect, look for what is in the way, prepare, run the migrations, converge, verify, record.
//!
//! Every part can be killed and run again. A version is recorded only at the end, when the catalog has shown that the
//! schema is the expected one; until then each run executes all migrations again, which is harmless by their rules.

use std::time::{Duration, Instant};

use chrono::Utc;
use tokio_postgres::Client;

use crate::backup::{self, BackupOptions};
use crate::catalog::fingerprint;
use crate::diff::Difference;
use crate::error::EngineError;
use crate::lock::Lock;
use crate::repair::{Phase, Step, of_phase};
use crate::report::{Action, DataChange, FindingReport, Outcome, State, UpReport, VerifyReport};
use crate::session::{self, Connect, begin, execute, retrying, run_step};
use crate::set::{Migration, MigrationSet};
use crate::split::summary;
use crate::verify::{Inspection, inspect};
use crate::{blockers, history, ledger, obstacles};

/// One repair can bring the next difference to light (a column, then its index), but not for ever.
const CONVERGE_ROUNDS: usize = 5;
const PREPARE_ROUNDS: usize = 3;

/// How patient a run is.
#[derive(Clone, Debug)]
pub struct UpOptions {
    /// How long another run is waited for, and a lost connection is ridden out.
    pub lock_wait: Duration,
    /// How long an unreachable database is waited for.
    pub connect_wait: Duration,
    /// The archive before the first change.
    pub backup: Option<BackupOptions>,
}

/// Brings the database to the expected schema. The report tells what was done also when an error ends the run.
pub async fn up(
    connector: &dyn Connect,
    set: &MigrationSet,
    options: UpOptions,
) -> (UpReport, Result<(), EngineError>) {
    let mut report = UpReport {
        verify: VerifyReport {
            service: set.service.to_owned(),
            state: State::Pending,
            applied: Vec::new(),
            pending: set.versions(),
            unknown: Vec::new(),
            drift: Vec::new(),
        },
        owned_tables: set.expected.table_names(),
        actions: Vec::new(),
        data_changes: Vec::new(),
        findings: Vec::new(),
        blockers: Vec::new(),
        backup: None,
        error: None,
    };
    let deadline = Instant::now() + options.lock_wait;
    let outcome = loop {
        let outcome = attempt(connector, set, &options, &mut report).await;
        match &outcome {
            // A restart or failover in the middle: everything is re-runnable, so the run begins again.
            Err(error) if error.is_connection_loss() && Instant::now() < deadline => {
                tracing::warn!(%error, "connection lost, beginning again");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            _ => break outcome,
        }
    };
    if let Err(error) = &outcome {
        if let EngineError::Blocked(found) | EngineError::Stopped(found) = error {
            report.blockers.clone_from(found);
        }
        report.error = Some(error.to_string());
    }
    (report, outcome)
}

async fn attempt(
    connector: &dyn Connect,
    set: &MigrationSet,
    options: &UpOptions,
    report: &mut UpReport,
) -> Result<(), EngineError> {
    let client = session::connect(connector, options.connect_wait).await?;
    // An up-to-date database needs no lock and no write.
    let inspection = inspect(&client, set).await?;
    report.verify = inspection.report.clone();
    refuse_newer(&inspection)?;
    if inspection.report.state == State::Match {
        report.findings = findings(&client, set).await?;
        return Ok(());
    }
    let lock_client = session::connect(connector, options.connect_wait).await?;
    let lock = Lock::acquire(lock_client, set.service, options.lock_wait).await?;
    let run = Run { client: &client, connector, set, options, lock: &lock };
    let outcome = run.whole(report).await;
    match lock.release().await {
        // The connection is gone, and the lock with it.
        Err(error) if outcome.is_ok() && !error.is_connection_loss() => Err(error),
        _ => outcome,
    }
}

fn refuse_newer(inspection: &Inspection) -> Result<(), EngineError> {
    if inspection.report.unknown.is_empty() {
        Ok(())
    } else {
        Err(EngineError::Ahead(inspection.report.unknown.clone()))
    }
}

struct Run<'a> {
    client: &'a Client,
    connector: &'a dyn Connect,
    set: &'a MigrationSet,
    options: &'a UpOptions,
    lock: &'a Lock,
}

impl Run<'_> {
    async fn whole(&self, report: &mut UpReport) -> Result<(), EngineError> {
        let started_at = Utc::now();
        // Another runner may have finished while this one waited.
        let inspection = inspect(self.client, self.set).await?;
        report.verify = inspection.report.clone();
        refuse_newer(&inspection)?;
        if inspection.report.state == State::Match {
            return Ok(());
        }
        let no_right = obstacles::rights(self.client, &inspection.live).await?;
        if !no_right.is_empty() {
            return Err(EngineError::Blocked(no_right));
        }
        let history_live = crate::read_schema(self.client, &[history::TABLE.to_owned()]).await?;
        let mut in_the_way = obstacles::standing(self.client, self.set, &inspection.live).await?;
        in_the_way.extend(blockers::find(self.client, self.set, &inspection.live, &inspection.differences).await?);
        // Repeated versions are no obstacle: they are removed below.
        let history_differences: Vec<Difference> = inspection
            .history
            .differences
            .iter()
            .filter(|difference| !matches!(difference.guard, Some(crate::diff::Guard::Unique(_))))
            .cloned()
            .collect();
        in_the_way.extend(blockers::find(self.client, self.set, &history_live, &history_differences).await?);
        if !in_the_way.is_empty() {
            return Err(EngineError::Blocked(in_the_way));
        }
        // Once a run: after a lost connection the first archive is still the one from before the first change.
        if let (Some(options), None) = (&self.options.backup, &report.backup) {
            let ours = [&self.set.expected.table_names()[..], &[history::TABLE.to_owned()]].concat();
            report.backup = Some(backup::take(self.connector, self.client, self.set.service, &ours, options).await?);
        }

        let changed = self.change(&inspection, report).await;
        let verified = match changed {
            Ok(()) => self.verified(report).await,
            Err(error) => Err(error),
        };
        let text = verified.as_ref().err().map(ToString::to_string);
        // A failed run has a row in the ledger too, where there is still a connection to write it.
        match ledger::write(self.client, self.set, started_at, report, text.as_deref()).await {
            Err(error) if verified.is_ok() => return Err(error),
            _ => verified?,
        }
        let inspection = inspect(self.client, self.set).await?;
        report.verify = inspection.report;
        report.findings = findings(self.client, self.set).await?;
        Ok(())
    }

    async fn change(&self, inspection: &Inspection, report: &mut UpReport) -> Result<(), EngineError> {
        self.make_history(inspection, report).await?;
        self.prepare(inspection, report).await?;
        for migration in &self.set.migrations {
            self.lock.prove().await?;
            if migration.in_transaction {
                let ran = retrying(|| self.migrate(migration), self.client).await?;
                report.actions.extend(ran.actions);
                report.data_changes.extend(ran.data_changes);
            } else {
                self.migrate_alone(migration, report).await?;
            }
        }
        for step in &self.set.steps {
            let rows = step.run(self.client).await?;
            if rows > 0 {
                tracing::info!(rows, "{}", step.description());
                report.data_changes.push(DataChange {
                    version: None,
                    description: step.description().to_owned(),
                    rows,
                });
            }
        }
        self.converge(report).await
    }

    /// The history and the ledger, under a lock that every service of the database shares: `IF NOT EXISTS` is not atomic.
    async fn make_history(&self, inspection: &Inspection, report: &mut UpReport) -> Result<(), EngineError> {
        let client = session::connect(self.connector, self.options.connect_wait).await?;
        let lock = Lock::acquire(client, "history", self.options.lock_wait).await?;
        let made = async {
            execute(self.client, history::CREATE, "history").await?;
            for sql in ledger::CREATE {
                execute(self.client, sql, "ledger").await?;
            }
            if inspection.history.differences.is_empty() {
                return Ok(());
            }
            // Asked again under the lock: the other service may have mended it.
            let current = history::read(self.client).await?;
            let repeated = current.differences.iter().any(|d| matches!(d.guard, Some(crate::diff::Guard::Unique(_))));
            if repeated {
                let rows = execute(self.client, history::REMOVE_REPEATED, "history").await?;
                if rows > 0 {
                    let description = "Removed repeated rows of the migration history".to_owned();
                    report.data_changes.push(DataChange { version: None, description, rows });
                }
            }
            let phases = [Phase::Prepare, Phase::PrepareIfPossible, Phase::Converge];
            for (difference, fix) in of_phase(&current.differences, &phases) {
                self.repair(difference, &fix.steps, report).await?;
            }
            Ok(())
        }
        .await;
        let released = lock.release().await;
        made.and(released)
    }

    async fn prepare(&self, inspection: &Inspection, report: &mut UpReport) -> Result<(), EngineError> {
        for (difference, fix) in of_phase(&inspection.differences, &[Phase::Prepare]) {
            self.repair(difference, &fix.steps, report).await?;
        }
        // Keys whose columns are all there now, so that ON CONFLICT and foreign keys of the migrations find them: their
        // columns' NOT NULL, then themselves, then what the old keys held back.
        for _ in 0..PREPARE_ROUNDS {
            let inspection = inspect(self.client, self.set).await?;
            let mut repaired = false;
            for (difference, fix) in of_phase(&inspection.differences, &[Phase::Prepare, Phase::PrepareIfPossible]) {
                if blockers::holds_now(self.client, self.set, &inspection.live, difference).await? {
                    self.repair(difference, &fix.steps, report).await?;
                    repaired = true;
                }
            }
            if !repaired {
                break;
            }
        }
        Ok(())
    }

    async fn repair(&self, difference: &Difference, steps: &[Step], report: &mut UpReport) -> Result<(), EngineError> {
        self.lock.prove().await?;
        let started = Instant::now();
        let context = format!("repair of {}.{}", difference.drift.table, difference.drift.object);
        for step in steps {
            run_step(self.client, step, &context).await?;
        }
        let statement = summary(difference.drift.repair.as_deref().unwrap_or_default());
        tracing::info!(table = difference.drift.table, object = difference.drift.object, "repaired");
        report.actions.push(Action {
            version: None,
            statement,
            outcome: Outcome::Repaired,
            duration_ms: millis(started),
        });
        Ok(())
    }

    /// A migration in one transaction.
    async fn migrate(&self, migration: &Migration) -> Result<Ran, EngineError> {
        let mut ran = Ran::default();
        let tables = self.set.expected.table_names();
        begin(self.client).await?;
        let mut before = fingerprint(self.client, &tables).await?;
        for statement in &migration.statements {
            let started = Instant::now();
            let rows =
                execute(self.client, &statement.sql, &format!("migration {}_{}", migration.version, migration.name))
                    .await?;
            let after = fingerprint(self.client, &tables).await?;
            let is_query = statement.sql.get(..6).is_some_and(|word| word.eq_ignore_ascii_case("select"));
            let changed = before != after || (rows > 0 && !is_query);
            before = after;
            ran.actions.push(Action {
                version: Some(migration.version.clone()),
                statement: statement.summary(),
                outcome: if changed { Outcome::Applied } else { Outcome::AlreadyThere },
                duration_ms: millis(started),
            });
            if let (Some(description), true) = (&statement.data, rows > 0) {
                let version = Some(migration.version.clone());
                ran.data_changes.push(DataChange { version, description: description.clone(), rows });
            }
        }
        execute(self.client, "COMMIT", "commit").await?;
        tracing::info!(version = migration.version, name = migration.name, "migration ran");
        Ok(ran)
    }

    /// A migration of one statement that PostgreSQL refuses inside a transaction.
    async fn migrate_alone(&self, migration: &Migration, report: &mut UpReport) -> Result<(), EngineError> {
        let tables = self.set.expected.table_names();
        let before = fingerprint(self.client, &tables).await?;
        for statement in &migration.statements {
            let started = Instant::now();
            run_step(
                self.client,
                &Step::Alone(statement.sql.clone()),
                &format!("migration {}_{}", migration.version, migration.name),
            )
            .await?;
            let changed = before != fingerprint(self.client, &tables).await?;
            report.actions.push(Action {
                version: Some(migration.version.clone()),
                statement: statement.summary(),
                outcome: if changed { Outcome::Applied } else { Outcome::AlreadyThere },
                duration_ms: millis(started),
            });
        }
        tracing::info!(version = migration.version, name = migration.name, "migration ran");
        Ok(())
    }

    async fn converge(&self, report: &mut UpReport) -> Result<(), EngineError> {
        for _ in 0..CONVERGE_ROUNDS {
            let inspection = inspect(self.client, self.set).await?;
            let errors: Vec<Difference> = inspection.differences.into_iter().filter(|d| d.fix.is_some()).collect();
            if errors.is_empty() {
                break;
            }
            // Rows may have come in since the first look.
            let in_the_way = blockers::find(self.client, self.set, &inspection.live, &errors).await?;
            if !in_the_way.is_empty() {
                return Err(EngineError::Stopped(in_the_way));
            }
            for (difference, fix) in of_phase(&errors, &[Phase::Prepare, Phase::PrepareIfPossible, Phase::Converge]) {
                self.repair(difference, &fix.steps, report).await?;
            }
        }
        Ok(())
    }

    /// Proof, then belief: the versions are recorded when the catalog shows what they promise.
    async fn verified(&self, report: &mut UpReport) -> Result<(), EngineError> {
        self.lock.prove().await?;
        let inspection = inspect(self.client, self.set).await?;
        report.verify = inspection.report.clone();
        let left: Vec<String> =
            inspection.report.errors().map(|drift| format!("{}.{}", drift.table, drift.object)).collect();
        if !left.is_empty() {
            return Err(EngineError::NotConverged(left));
        }
        history::record(self.client, &inspection.report.pending).await
    }
}

/// What a migration did; reported only once it is committed.
#[derive(Default)]
struct Ran {
    actions: Vec<Action>,
    data_changes: Vec<DataChange>,
}

/// Asks the set's questions about the data.
async fn findings(client: &Client, set: &MigrationSet) -> Result<Vec<FindingReport>, EngineError> {
    let mut found = Vec::new();
    for finding in &set.findings {
        let row = client.query_one(finding.query, &[]).await?;
        let count: i64 = row.try_get(0)?;
        if count > 0 {
            found.push(FindingReport {
                code: finding.code.to_owned(),
                count,
                sample: row.try_get::<_, Option<Vec<String>>>(1)?.unwrap_or_default(),
                message: finding.message.replace("{count}", &count.to_string()),
                advice: finding.advice.to_owned(),
            });
        }
    }
    Ok(found)
}

fn millis(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}
