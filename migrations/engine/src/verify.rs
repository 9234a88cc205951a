//! Read-only answers: how history and live schema stand to what the binary expects.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::activity;
use crate::catalog::{begin_reading, end_reading, read_in_snapshot};
use crate::diff::{self, Difference, Leave};
use crate::error::EngineError;
use crate::extensions::{Extensions, extensions_of};
use crate::history::{self, History};
use crate::interrupt::Interrupt;
use crate::ledger::{self, LastRun, Memory};
use crate::report::{Drift, Kind, Problem, Severity, State, VerifyReport};
use crate::schema::{Expected, Schema};
use crate::scope::Scope;
use crate::seeds;
use crate::session::{Connect, Session};
use crate::set::MigrationSet;

/// Everything that a run decides on.
pub(crate) struct Inspection {
    pub(crate) history: History,
    pub(crate) memory: Memory,
    /// The owned tables, and the history's.
    pub(crate) live: Schema,
    /// What is expected in this database, with the extensions that it has.
    pub(crate) expected: Expected,
    /// Of the schema and the seeds.
    pub(crate) differences: Vec<Difference>,
    pub(crate) report: VerifyReport,
}

impl Inspection {
    /// Whether a run has nothing to do.
    pub(crate) fn is_done(&self) -> bool {
        self.report.state == State::Match && self.memory.edited.is_empty()
    }

    /// The owned tables alone.
    pub(crate) fn owned(&self) -> Schema {
        self.live
            .iter()
            .filter(|(name, _)| *name != history::TABLE)
            .map(|(name, table)| (name.clone(), table.clone()))
            .collect()
    }
}

/// How often the catalog is read again when somebody else changed it in the middle.
const READS: usize = 5;
const READ_AGAIN: Duration = Duration::from_millis(50);

/// Reads history and catalog in one snapshot and compares. Costs a handful of round trips, whatever the number of rows.
pub(crate) async fn inspect(
    session: &Session<'_>,
    set: &MigrationSet,
    leave: &Leave,
) -> Result<Inspection, EngineError> {
    let scope = session.scope();
    let deadline = Instant::now() + session.patience();
    let mut reads = 0;
    loop {
        session.interrupt().check()?;
        begin_reading(scope).await?;
        let read = read(scope, set, leave).await;
        end_reading(scope).await;
        reads += 1;
        match read {
            // The snapshot still shows an index that another run has just dropped, and its definition is gone.
            Err(error) if error.is_catalog_race() && reads < READS => session.interrupt().sleep(READ_AGAIN).await?,
            // Somebody has locked a whole table. Short looks, so that a signal in between is heard.
            Err(error) if error.is_lock_conflict() && !scope.is_shadow() => {
                if Instant::now() >= deadline {
                    let holders = activity::holders(scope, &set.expected.table_names()).await;
                    return Err(error.with_holders(&holders));
                }
                session.interrupt().sleep(READ_AGAIN).await?;
            }
            read => return read,
        }
    }
}

async fn read(scope: Scope<'_>, set: &MigrationSet, leave: &Leave) -> Result<Inspection, EngineError> {
    let mut names = set.expected.table_names();
    names.push(history::TABLE.to_owned());
    let (extensions, owned) = (extensions_of(&set.expected.tables), set.expected.table_names());
    let installed = Extensions::installed(scope, &extensions, &owned);
    let (live, installed) = tokio::join!(read_in_snapshot(scope, &names), installed);
    let (live, expected) = (live?, set.expected.with(&installed?));
    let history = history::read(scope, &live).await?;
    let memory = ledger::memory(scope, set).await?;
    let mut differences = diff::compare_with(&expected, &live, leave);
    differences.extend(seeds::compare(scope, &expected, &live).await?);

    let mine = set.versions();
    let (applied, pending): (Vec<_>, Vec<_>) =
        mine.iter().cloned().partition(|version| history.versions.contains(version));
    let unknown: Vec<String> = history
        .versions
        .iter()
        .filter(|version| {
            !mine.contains(version) && !set.siblings.contains(*version) && !memory.foreign.contains(*version)
        })
        .cloned()
        .collect();
    let mut drift: Vec<_> =
        history.differences.iter().chain(&differences).map(|difference| difference.drift.clone()).collect();
    drift.extend(memory.edited.iter().map(|version| edited(version)));
    drift.sort_by_key(|drift| drift.severity);
    let state = if !unknown.is_empty() {
        State::Ahead
    } else if !pending.is_empty() {
        State::Pending
    } else if drift.iter().any(|drift| drift.severity == Severity::Error) {
        State::Drift
    } else {
        State::Match
    };
    let report = VerifyReport { service: set.service.to_owned(), state, applied, pending, unknown, drift };
    Ok(Inspection { history, memory, live, expected, differences, report })
}

/// A changed text of an applied migration proves nothing: it is told, and the next `up` runs everything once more.
fn edited(version: &str) -> Drift {
    Drift {
        severity: Severity::Warning,
        kind: Kind::History,
        table: history::TABLE.to_owned(),
        object: version.to_owned(),
        problem: Problem::Different,
        expected: Some("the SQL of this binary".to_owned()),
        actual: Some("another text when it was verified; `migrate up` runs it again".to_owned()),
        repair: None,
        optional: false,
    }
}

/// Compares history and live schema with the expected schema, over a connection of its own.
///
/// # Errors
/// Any error of the connection or the database.
pub async fn verify(connector: &dyn Connect, set: &MigrationSet) -> Result<VerifyReport, EngineError> {
    let session = Session::open(connector, Duration::ZERO, &Interrupt::never()).await?;
    Ok(inspect(&session, set, &Leave::default()).await?.report)
}

/// The answer of `status`.
#[derive(Clone, Debug, Serialize)]
pub struct StatusReport {
    /// The service.
    pub service: String,
    /// Recorded versions of this service.
    pub applied: Vec<String>,
    /// Versions of this binary that are not recorded.
    pub pending: Vec<String>,
    /// Recorded versions that nobody here knows.
    pub unknown: Vec<String>,
    /// The last run that changed something, where the ledger has one.
    pub last_run: Option<LastRun>,
}

/// Which versions are recorded, and the last run.
///
/// # Errors
/// Any database error.
pub(crate) async fn status(session: &Session<'_>, set: &MigrationSet) -> Result<StatusReport, EngineError> {
    let scope = session.scope();
    let VerifyReport { service, applied, pending, unknown, .. } =
        inspect(session, set, &Leave::default()).await?.report;
    let last_run = ledger::last_run(scope, set.service).await?;
    Ok(StatusReport { service, applied, pending, unknown, last_run })
}
