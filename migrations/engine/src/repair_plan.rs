//! `migrate repair` without `--apply`: what would mend each difference, and what is in the way. Writes nothing.

use serde::Serialize;

use crate::blockers::{self, Blocker};
use crate::diff::{Difference, Leave};
use crate::error::EngineError;
use crate::locks::{Effect, effect};
use crate::repair::{Step, missing_table};
use crate::report::{Drift, VerifyReport};
use crate::schema::{Expected, Schema};
use crate::session::Session;
use crate::set::MigrationSet;
use crate::simulate::apply;
use crate::verify::inspect;

/// The answer of `repair`.
#[derive(Clone, Debug, Serialize)]
pub struct RepairReport {
    /// How the database stands.
    #[serde(flatten)]
    pub verify: VerifyReport,
    /// What `--apply` would do, in its order.
    pub repairs: Vec<Repair>,
    /// What it would leave, and why.
    pub blockers: Vec<Blocker>,
}

/// What mends one difference.
#[derive(Clone, Debug, Serialize)]
pub struct Repair {
    /// The difference.
    pub drift: Drift,
    /// The statements with what each does to others.
    pub statements: Vec<Planned>,
}

/// One statement and what it does to others.
#[derive(Clone, Debug, Serialize)]
pub struct Planned {
    /// The SQL.
    pub statement: String,
    /// The strongest lock on a table that exists, in PostgreSQL's words; null for none.
    pub lock: Option<&'static str>,
    /// Who waits while it runs: `nothing`, `writes`, `reads and writes`.
    pub blocks: &'static str,
    /// Locks, scans and rewrites.
    #[serde(flatten)]
    pub effect: Effect,
}

impl Planned {
    pub(crate) fn new(sql: &str, effect: Effect) -> Self {
        let strongest = effect.strongest();
        Self {
            statement: sql.to_owned(),
            lock: strongest.map(crate::locks::LockMode::name),
            blocks: strongest.map_or("nothing", crate::locks::LockMode::blocks),
            effect,
        }
    }
}

/// Asks what a repair would do.
///
/// # Errors
/// Any database error.
pub(crate) async fn repair_plan(
    session: &Session<'_>,
    set: &MigrationSet,
    leave: &Leave,
) -> Result<RepairReport, EngineError> {
    let inspection = inspect(session, set, leave).await?;
    let mut report = RepairReport { verify: inspection.report.clone(), repairs: Vec::new(), blockers: Vec::new() };
    for difference in inspection.history.differences.iter().chain(&inspection.differences) {
        if !difference.is_error() {
            continue;
        }
        let alone = std::slice::from_ref(difference);
        let in_the_way = blockers::find_now(session.scope(), set, &inspection.live, alone, leave).await?;
        if !in_the_way.is_empty() {
            report.blockers.extend(in_the_way);
            continue;
        }
        // A table that is pending is made by its migration, not by a repair.
        let made = missing_table(difference, &inspection.expected).filter(|_| inspection.report.pending.is_empty());
        let steps = difference.fix.as_ref().map(|fix| fix.steps.clone()).or(made);
        if let Some(steps) = steps {
            report.repairs.push(planned(difference, &steps, &inspection.live, &inspection.expected));
        }
    }
    Ok(report)
}

/// Each statement is looked at as the ones before it leave the schema.
fn planned(difference: &Difference, steps: &[Step], live: &Schema, expected: &Expected) -> Repair {
    let mut model = live.clone();
    let statements = steps
        .iter()
        .flat_map(Step::statements)
        .map(|sql| {
            let planned = Planned::new(sql, effect(sql, &model));
            apply(sql, &mut model, expected);
            planned
        })
        .collect();
    Repair { drift: difference.drift.clone(), statements }
}
