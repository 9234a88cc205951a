//! `migrate up`: lock, inspect, look for what is in the way, prepare, run the migrations, converge, verify, record.
//!
//! Every part can be killed and run again. A version is recorded only at the end, when the catalog has shown that the
//! schema is the expected one; until then each run executes all migrations again, which is harmless by their rules.

use std::time::{Duration, Instant};

use crate::backup::{self, BackupOptions, BackupReport};
use crate::blockers::Blocker;
use crate::diff::{self, Difference, Leave};
use crate::error::EngineError;
use crate::extensions::Extensions;
use crate::findings::{self, Ask};
use crate::interrupt::Interrupt;
use crate::ledger::Ledger;
use crate::lock::Lock;
use crate::repair::{Phase, of_phase};
use crate::report::{DataChange, UpReport};
use crate::runner::Runner;
use crate::session::{Connect, Session};
use crate::set::MigrationSet;
use crate::verify::{Inspection, inspect};
use crate::{blockers, history, ledger, obstacles, rights};

/// How patient a run is, and what it may do.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// How long another run, a lock on a table, and a lost connection are waited for.
    pub lock_wait: Duration,
    /// How long an unreachable database is waited for.
    pub connect_wait: Duration,
    /// The zone in which times without one were written; without it no such column is converted.
    pub time_zone: Option<String>,
    /// Ends the run at once and cleanly.
    pub interrupt: Interrupt,
    /// Whether progress is shown as a bar on stderr.
    pub on_terminal: bool,
    /// The archive before the first change.
    pub backup: Option<BackupOptions>,
}

/// What a run on the real schema is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Up,
    Repair,
}

/// Brings the database to the expected schema. The report tells what was done also when an error ends the run.
pub async fn up(
    connector: &dyn Connect,
    set: &MigrationSet,
    options: &RunOptions,
) -> (UpReport, Result<(), EngineError>) {
    riding_out(connector, set, options, Command::Up).await
}

/// Mends what differs and may be mended without losing a row, also where that makes others wait; runs no migration.
pub async fn repair(
    connector: &dyn Connect,
    set: &MigrationSet,
    options: &RunOptions,
) -> (UpReport, Result<(), EngineError>) {
    riding_out(connector, set, options, Command::Repair).await
}

async fn riding_out(
    connector: &dyn Connect,
    set: &MigrationSet,
    options: &RunOptions,
    command: Command,
) -> (UpReport, Result<(), EngineError>) {
    let mut report = UpReport::new(set);
    let mut deadline: Option<(Instant, usize)> = None;
    let outcome = loop {
        let outcome = attempt(connector, set, options, command, &mut report).await;
        let Err(error) = &outcome else { break outcome };
        let may_pass = error.is_connection_loss() || (deadline.is_some() && error.is_unreachable());
        if !may_pass {
            break outcome;
        }
        // A restart or failover in the middle: everything is re-runnable, so the run begins again. A run that gets further
        // each time is waited for anew.
        let done = report.actions.len();
        let until = match deadline {
            Some((until, before)) if before == done => until,
            _ => Instant::now() + options.lock_wait,
        };
        if Instant::now() >= until {
            break outcome;
        }
        deadline = Some((until, done));
        tracing::warn!(%error, "connection lost, beginning again");
        if let Err(interrupted) = options.interrupt.sleep(Duration::from_millis(500)).await {
            break Err(interrupted);
        }
    };
    report.ended(&outcome);
    (report, outcome)
}

async fn attempt(
    connector: &dyn Connect,
    set: &MigrationSet,
    options: &RunOptions,
    command: Command,
    report: &mut UpReport,
) -> Result<(), EngineError> {
    let session =
        Session::open(connector, options.connect_wait, &options.interrupt).await?.with_patience(options.lock_wait);
    let leave = Leave::checked(session.scope(), options.time_zone.as_deref(), command == Command::Repair).await?;
    // An up-to-date database needs no lock and no write.
    let inspection = inspect(&session, set, &leave).await?;
    report.verify = inspection.report.clone();
    refuse_newer(&inspection)?;
    if inspection.is_done() {
        report.findings = findings::ask(session.scope(), set, Ask::Open(&inspection.memory)).await?;
        return Ok(());
    }
    let lock =
        Lock::acquire(session.another(options.connect_wait).await?, &session, set.service, options.lock_wait).await?;
    let run = Run { session: &session, set, options, lock: &lock, leave: &leave, command };
    let outcome = run.whole(report).await;
    match lock.release().await {
        // The connection is gone, and the lock with it.
        Err(error) if outcome.is_ok() && !error.is_connection_loss() => Err(error),
        _ => outcome,
    }
}

pub(crate) fn refuse_newer(inspection: &Inspection) -> Result<(), EngineError> {
    if inspection.report.unknown.is_empty() {
        Ok(())
    } else {
        Err(EngineError::Ahead(inspection.report.unknown.clone()))
    }
}

/// What is in the way of bringing `inspection` to the expected schema, whoever does it; nothing is changed by asking.
///
/// # Errors
/// Any database error.
pub(crate) async fn obstacles_to(
    session: &Session<'_>,
    set: &MigrationSet,
    inspection: &Inspection,
    leave: &Leave,
) -> Result<Vec<Blocker>, EngineError> {
    let scope = session.scope();
    let mut found = obstacles::standing(scope, set, &inspection.owned()).await?;
    let mut differences = inspection.differences.clone();
    // What the run will have to make once it has made an extension.
    let foreseen = set.expected.with(&Extensions::foreseen(scope, &set.expected).await?);
    if foreseen != inspection.expected {
        let coming = diff::compare_with(&foreseen, &inspection.live, leave).into_iter();
        differences.extend(coming.filter(|difference| difference.drift.optional));
    }
    found.extend(blockers::find(scope, set, &inspection.live, &differences, leave).await?);
    // Repeated versions and missing times are no obstacle: the run puts them in order.
    let of_history: Vec<Difference> = inspection
        .history
        .differences
        .iter()
        .filter(|difference| history::put_in_order(difference).is_none())
        .cloned()
        .collect();
    found.extend(blockers::find(scope, set, &inspection.live, &of_history, leave).await?);
    Ok(found)
}

/// The same, with what this role may not do: without rights the other questions cannot be asked.
///
/// # Errors
/// Any database error.
pub(crate) async fn in_the_way(
    session: &Session<'_>,
    set: &MigrationSet,
    inspection: &Inspection,
    leave: &Leave,
) -> Result<Vec<Blocker>, EngineError> {
    let no_right = rights::missing(session.scope().client, &inspection.owned()).await?;
    if no_right.is_empty() { obstacles_to(session, set, inspection, leave).await } else { Ok(no_right) }
}

/// The archive before the first change, where one is asked for. An interrupt ends the dump.
///
/// # Errors
/// [`EngineError::Backup`] when there is no good one.
pub(crate) async fn backup_first(
    session: &Session<'_>,
    set: &MigrationSet,
    options: &RunOptions,
) -> Result<Option<BackupReport>, EngineError> {
    let Some(backup) = &options.backup else { return Ok(None) };
    let mut tables = set.expected.table_names();
    tables.push(history::TABLE.to_owned());
    let taken = backup::take(session.connector(), session.scope().client, set.service, &tables, backup);
    tokio::select! {
        taken = taken => taken.map(Some),
        () = options.interrupt.fired() => Err(EngineError::Interrupted),
    }
}

struct Run<'a> {
    session: &'a Session<'a>,
    set: &'a MigrationSet,
    options: &'a RunOptions,
    lock: &'a Lock<'a>,
    leave: &'a Leave,
    command: Command,
}

impl Run<'_> {
    async fn whole(&self, report: &mut UpReport) -> Result<(), EngineError> {
        // Another runner may have finished while this one waited.
        let inspection = self.inspect().await?;
        report.verify = inspection.report.clone();
        refuse_newer(&inspection)?;
        if inspection.is_done() {
            return Ok(());
        }
        let in_the_way = in_the_way(self.session, self.set, &inspection, self.leave).await?;
        // A repair does what it can and lists the rest.
        if !in_the_way.is_empty() && self.command == Command::Up {
            return Err(EngineError::Blocked(in_the_way));
        }
        if report.backup.is_none() {
            // Once a run: after a lost connection the first archive is still the one from before the first change.
            report.backup = backup_first(self.session, self.set, self.options).await?;
        }
        self.make_history(&inspection, report).await?;
        let command = if self.command == Command::Up { "up" } else { "repair" };
        let (ledger, interrupted) = Ledger::open(self.session, self.set, command).await?;
        report.interrupted.extend(interrupted);
        ledger.backup(report.backup.as_ref()).await?;
        let tables = self.set.expected.table_names();
        let runner = Runner {
            session: self.session,
            set: self.set,
            leave: self.leave,
            lock: Some(self.lock),
            ledger: Some(&ledger),
            tables: &tables,
            wait: self.options.lock_wait,
            on_terminal: self.options.on_terminal,
        };
        let changed = self.change(&runner, &inspection, report).await;
        if changed.is_err() {
            // The transaction that an error or an interrupt left open.
            self.session.rollback().await;
        }
        // A failed run is closed in the ledger too, where there is still a connection to do it.
        let closed =
            ledger.close(&report.actions, &report.data_changes, &report.findings, changed.as_ref().err()).await;
        changed.and(closed)
    }

    async fn inspect(&self) -> Result<Inspection, EngineError> {
        inspect(self.session, self.set, self.leave).await
    }

    async fn change(
        &self,
        runner: &Runner<'_>,
        inspection: &Inspection,
        report: &mut UpReport,
    ) -> Result<(), EngineError> {
        match self.command {
            Command::Up => {
                runner.prepare(&inspection.differences, report).await?;
                runner.migrate_all(report).await?;
                runner.converge(report).await?;
                self.verified(runner, report).await?;
            }
            Command::Repair => self.mend(runner, report).await?,
        }
        let inspection = self.inspect().await?;
        report.verify = inspection.report;
        // Their queries rely on the expected schema, of which a repair may have to leave something.
        if report.verify.errors().next().is_none() {
            report.findings = findings::ask(self.session.scope(), self.set, Ask::All).await?;
        }
        Ok(())
    }

    /// What `repair --apply` does: every difference that has a mend and nothing in its way; the rest is told as blockers.
    async fn mend(&self, runner: &Runner<'_>, report: &mut UpReport) -> Result<(), EngineError> {
        let mut tried = std::collections::BTreeSet::new();
        loop {
            let inspection = self.inspect().await?;
            report.verify = inspection.report.clone();
            let all_recorded = inspection.report.pending.is_empty();
            let mut mended = false;
            let phases = [Phase::Prepare, Phase::PrepareIfPossible, Phase::Converge];
            for (difference, fix) in of_phase(&inspection.differences, &phases) {
                let name = format!("{:?}", difference.drift);
                if tried.contains(&name) {
                    continue;
                }
                let alone = std::slice::from_ref(difference);
                let in_the_way =
                    blockers::find_now(self.session.scope(), self.set, &inspection.live, alone, self.leave).await?;
                if in_the_way.is_empty() {
                    runner.repair(difference, &fix.steps, report).await?;
                    tried.insert(name);
                    mended = true;
                }
            }
            // A table that is recorded and missing is made as it is expected; one that is pending is for its migration.
            for difference in inspection.differences.iter().filter(|_| all_recorded) {
                let name = format!("{:?}", difference.drift);
                if let Some(steps) = crate::repair::missing_table(difference, &inspection.expected)
                    && tried.insert(name)
                {
                    runner.repair(difference, &steps, report).await?;
                    mended = true;
                }
            }
            if !mended {
                let left: Vec<Difference> =
                    inspection.differences.iter().filter(|difference| difference.is_error()).cloned().collect();
                report.blockers =
                    blockers::find_now(self.session.scope(), self.set, &inspection.live, &left, self.leave).await?;
                return Ok(());
            }
        }
    }

    /// The history and the ledger, under a lock that every service of the database shares: `IF NOT EXISTS` is not atomic.
    async fn make_history(&self, inspection: &Inspection, report: &mut UpReport) -> Result<(), EngineError> {
        let scope = self.session.scope();
        if inspection.live.contains_key(history::TABLE)
            && inspection.history.differences.is_empty()
            && ledger::complete(scope).await?
        {
            return Ok(());
        }
        let session = self.session.another(self.options.connect_wait).await?;
        let lock = Lock::acquire(session, self.session, "history", self.options.lock_wait).await?;
        let made = async {
            self.session.execute(history::CREATE, "history").await?;
            ledger::create(self.session).await?;
            // Asked again under the lock: the other service may have mended it.
            let current = self.inspect().await?.history;
            for (sql, description) in current.differences.iter().filter_map(history::put_in_order) {
                let rows = self.session.execute(sql, "history").await?;
                let description = description.to_owned();
                report.data_changes.extend((rows > 0).then_some(DataChange { version: None, description, rows }));
            }
            let tables = [history::TABLE.to_owned()];
            let runner = Runner {
                session: self.session,
                set: self.set,
                leave: self.leave,
                lock: Some(self.lock),
                ledger: None,
                tables: &tables,
                wait: self.options.lock_wait,
                on_terminal: false,
            };
            let phases = [Phase::Prepare, Phase::PrepareIfPossible, Phase::Converge];
            for (difference, fix) in of_phase(&current.differences, &phases) {
                runner.repair(difference, &fix.steps, report).await?;
            }
            Ok(())
        }
        .await;
        let released = lock.release().await;
        made.and(released)
    }

    /// Proof, then belief: the versions are recorded when the catalog shows what they promise.
    async fn verified(&self, runner: &Runner<'_>, report: &mut UpReport) -> Result<(), EngineError> {
        self.lock.prove(self.session).await?;
        let inspection = self.inspect().await?;
        report.verify = inspection.report.clone();
        let left: Vec<String> =
            inspection.report.errors().map(|drift| format!("{}.{}", drift.table, drift.object)).collect();
        if !left.is_empty() {
            return Err(EngineError::NotConverged(left));
        }
        history::record(self.session.scope(), &inspection.report.pending).await?;
        match runner.ledger {
            Some(ledger) => ledger.versions(self.set).await,
            None => Ok(()),
        }
    }
}
