//! Read-only answers: how history and live schema stand to what the binary expects.

use serde::Serialize;
use tokio_postgres::Client;

use crate::catalog::read_schema;
use crate::diff::{self, Difference};
use crate::error::EngineError;
use crate::history::{self, History};
use crate::ledger::{self, LastRun};
use crate::report::{Severity, State, VerifyReport};
use crate::schema::Schema;
use crate::seeds;
use crate::set::MigrationSet;

/// Everything that a run decides on.
pub(crate) struct Inspection {
    pub(crate) history: History,
    pub(crate) live: Schema,
    /// Of the schema, the seeds and the history table.
    pub(crate) differences: Vec<Difference>,
    pub(crate) report: VerifyReport,
}

/// Reads history and catalog and compares. Costs a handful of round trips, whatever the number of rows.
pub(crate) async fn inspect(client: &Client, set: &MigrationSet) -> Result<Inspection, EngineError> {
    let history = history::read(client).await?;
    let foreign = ledger::foreign_versions(client, set.service).await?;
    let live = read_schema(client, &set.expected.table_names()).await?;
    let mut differences = diff::compare(&set.expected, &live);
    differences.extend(seeds::compare(client, &set.expected, &live).await?);

    let mine = set.versions();
    let (applied, pending): (Vec<_>, Vec<_>) =
        mine.iter().cloned().partition(|version| history.versions.contains(version));
    let unknown: Vec<String> = history
        .versions
        .iter()
        .filter(|version| !mine.contains(version) && !set.siblings.contains(*version) && !foreign.contains(*version))
        .cloned()
        .collect();
    let mut drift: Vec<_> =
        history.differences.iter().chain(&differences).map(|difference| difference.drift.clone()).collect();
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
    Ok(Inspection { history, live, differences, report })
}

/// Compares history and live schema with the expected schema.
///
/// # Errors
/// Any database error.
pub async fn verify(client: &Client, set: &MigrationSet) -> Result<VerifyReport, EngineError> {
    Ok(inspect(client, set).await?.report)
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
pub async fn status(client: &Client, set: &MigrationSet) -> Result<StatusReport, EngineError> {
    let VerifyReport { service, applied, pending, unknown, .. } = verify(client, set).await?;
    let last_run = ledger::last_run(client, set.service).await?;
    Ok(StatusReport { service, applied, pending, unknown, last_run })
}
