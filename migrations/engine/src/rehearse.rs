//! `migrate rehearse`: the same run as `up`, on a shadow of the live schema, inside a transaction that is rolled back.
//!
//! It proves that every statement is accepted and that the schema converges. What depends on rows is asked of the real ones,
//! as `up` does before it changes anything.

use std::time::Duration;

use crate::diff::Leave;
use crate::error::EngineError;
use crate::report::UpReport;
use crate::runner::Runner;
use crate::session::{Connect, Session};
use crate::set::MigrationSet;
use crate::shadow;
use crate::up::{RunOptions, in_the_way, refuse_newer};
use crate::verify::inspect;

/// Rehearses an `up`. The report is that of the shadow; an error says why a real run would not converge.
pub async fn rehearse(
    connector: &dyn Connect,
    set: &MigrationSet,
    options: &RunOptions,
) -> (UpReport, Result<(), EngineError>) {
    let mut report = UpReport::new(set);
    let outcome = attempt(connector, set, options, &mut report).await;
    report.ended(&outcome);
    (report, outcome)
}

async fn attempt(
    connector: &dyn Connect,
    set: &MigrationSet,
    options: &RunOptions,
    report: &mut UpReport,
) -> Result<(), EngineError> {
    let mut session =
        Session::open(connector, options.connect_wait, &options.interrupt).await?.with_patience(options.lock_wait);
    let leave = Leave::checked(session.scope(), options.time_zone.as_deref(), false).await?;
    let inspection = inspect(&session, set, &leave).await?;
    report.verify = inspection.report.clone();
    refuse_newer(&inspection)?;
    if inspection.is_done() {
        return Ok(());
    }
    let in_the_way = in_the_way(&session, set, &inspection, &leave).await?;
    if !in_the_way.is_empty() {
        return Err(EngineError::Blocked(in_the_way));
    }
    let entered = shadow::enter(&mut session, &inspection.owned(), &set.expected).await;
    let outcome = match entered {
        Ok(()) => on_shadow(&session, set, &leave, report).await,
        Err(error) => Err(error),
    };
    shadow::leave(&mut session).await;
    outcome
}

async fn on_shadow(
    session: &Session<'_>,
    set: &MigrationSet,
    leave: &Leave,
    report: &mut UpReport,
) -> Result<(), EngineError> {
    let tables = set.expected.table_names();
    let runner = Runner {
        session,
        set,
        leave,
        lock: None,
        ledger: None,
        tables: &tables,
        wait: Duration::ZERO,
        on_terminal: false,
    };
    let inspection = inspect(session, set, leave).await?;
    runner.prepare(&inspection.differences, report).await?;
    runner.migrate_all(report).await?;
    runner.converge(report).await?;
    let after = inspect(session, set, leave).await?.report;
    let left: Vec<String> = after.errors().map(|drift| format!("{}.{}", drift.table, drift.object)).collect();
    // The history of the real database says what is pending; the shadow what would be left.
    report.verify.drift = after.drift;
    if left.is_empty() { Ok(()) } else { Err(EngineError::NotConverged(left)) }
}
