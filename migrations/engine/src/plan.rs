//! `migrate plan`: what `up` would do, statement by statement, each with its lock. Writes nothing and needs only to read.
//!
//! The order is that of a run; what each step leaves is followed on a model of the schema (see [`crate::simulate`]). What a
//! data change or a DO block would find can only be known by running it: such statements say `depends`.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::blockers::{self, Blocker};
use crate::diff::{self, Difference, Leave};
use crate::error::EngineError;
use crate::extensions::Extensions;
use crate::history;
use crate::ledger;
use crate::locks::effect;
use crate::repair::{Fix, Phase, Step, of_phase};
use crate::repair_plan::Planned;
use crate::report::VerifyReport;
use crate::schema::{Expected, Schema};
use crate::session::Session;
use crate::set::MigrationSet;
use crate::simulate::apply;
use crate::skip::{is_superseded, makes};
use crate::up::obstacles_to;
use crate::verify::{Inspection, inspect};

/// A model that still differs after so many rounds is told as it is.
const ROUNDS: usize = 5;

/// The answer of `plan`.
#[derive(Clone, Debug, Serialize)]
pub struct PlanReport {
    /// How the database stands.
    #[serde(flatten)]
    pub verify: VerifyReport,
    /// What `up` would run, in its order.
    pub statements: Vec<PlannedStatement>,
    /// What is in the way: then `up` would change nothing.
    pub blockers: Vec<Blocker>,
}

/// Where a statement comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The history and the ledger.
    History,
    /// A migration.
    Migration,
    /// A step in code; its statement is a sentence.
    Code,
    /// The engine.
    Repair,
}

/// What is known of its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Foreseen {
    /// It changes something.
    Changes,
    /// Its effect is there, so it is not sent.
    AlreadyThere,
    /// The rows decide.
    Depends,
}

/// One statement of a plan.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedStatement {
    /// The migration's version; null for what the engine does.
    pub version: Option<String>,
    /// Where it comes from.
    pub origin: Origin,
    /// What is known of its outcome.
    pub outcome: Foreseen,
    /// False for what PostgreSQL refuses inside a transaction.
    pub in_transaction: bool,
    /// Whether it runs over one part of its table at a time.
    pub batched: bool,
    /// The statement, its locks, scans and rewrites.
    #[serde(flatten)]
    pub planned: Planned,
}

/// Plans an `up`.
///
/// # Errors
/// Any database error.
pub(crate) async fn plan(session: &Session<'_>, set: &MigrationSet, leave: &Leave) -> Result<PlanReport, EngineError> {
    let inspection = inspect(session, set, leave).await?;
    let mut report = PlanReport { verify: inspection.report.clone(), statements: Vec::new(), blockers: Vec::new() };
    if inspection.is_done() || !inspection.report.unknown.is_empty() {
        return Ok(report);
    }
    // Whoever only reads may not change anything, and need not: what the role of `up` may do is for `up` to ask.
    report.blockers = obstacles_to(session, set, &inspection, leave).await?;
    // The history is mended by the same means as the tables.
    let expected = set.expected.with(&Extensions::foreseen(session.scope(), &set.expected).await?);
    let mut unsure = BTreeSet::new();
    for (table, shape) in &expected.tables {
        let there = inspection.expected.tables.get(table).filter(|_| inspection.live.contains_key(table));
        let needs = shape.indexes.iter().filter(|(_, index)| index.requires.is_some()).map(|(index, _)| index);
        unsure.extend(needs.filter(|index| there.is_none_or(|shape| !shape.indexes.contains_key(*index))).cloned());
    }
    let mut known = expected.clone();
    known.tables.insert(history::TABLE.to_owned(), history::expected_table());
    let mut planner = Planner { set, expected, unsure, known, model: inspection.live.clone(), statements: Vec::new() };
    planner.history(session, &inspection).await?;
    planner.prepare(session, &inspection, leave).await?;
    planner.migrations();
    planner.converge(leave);
    planner.record(&inspection);
    report.statements = planner.statements;
    Ok(report)
}

struct Planner<'p> {
    set: &'p MigrationSet,
    /// What is expected in the end, with the extensions that a run makes.
    expected: Expected,
    /// Indexes that the migration may or may not make, or whose extension it may not be able to make after all.
    unsure: BTreeSet<String>,
    /// What statements make: the expected tables and the history.
    known: Expected,
    model: Schema,
    statements: Vec<PlannedStatement>,
}

impl Planner<'_> {
    fn add(&mut self, version: Option<&str>, origin: Origin, outcome: Foreseen, in_transaction: bool, sql: &str) {
        // What is not sent locks nothing.
        let effect = match outcome {
            Foreseen::AlreadyThere => crate::locks::Effect { certain: true, ..Default::default() },
            _ => effect(sql, &self.model),
        };
        self.statements.push(PlannedStatement {
            version: version.map(str::to_owned),
            origin,
            outcome,
            in_transaction,
            batched: false,
            planned: Planned::new(sql, effect),
        });
        if outcome != Foreseen::AlreadyThere {
            apply(sql, &mut self.model, &self.known);
        }
    }

    async fn history(&mut self, session: &Session<'_>, inspection: &Inspection) -> Result<(), EngineError> {
        if !inspection.live.contains_key(history::TABLE) || !ledger::complete(session.scope()).await? {
            for sql in std::iter::once(&history::CREATE).chain(ledger::CREATE) {
                self.add(None, Origin::History, Foreseen::Changes, true, sql);
            }
        }
        for (sql, _) in inspection.history.differences.iter().filter_map(history::put_in_order) {
            self.add(None, Origin::History, Foreseen::Depends, true, sql);
        }
        for (difference, fix) in
            of_phase(&inspection.history.differences, &[Phase::Prepare, Phase::PrepareIfPossible, Phase::Converge])
        {
            self.repair(difference, fix);
        }
        Ok(())
    }

    fn repair(&mut self, difference: &Difference, fix: &Fix) {
        let is_unsure = self.unsure.contains(&difference.drift.object) && fix.phase == Phase::Converge;
        let outcome = if is_unsure { Foreseen::Depends } else { Foreseen::Changes };
        for step in &fix.steps {
            for sql in step.statements() {
                let in_transaction = matches!(step, Step::Transaction(_));
                self.add(None, Origin::Repair, outcome, in_transaction, sql);
            }
        }
    }

    async fn prepare(
        &mut self,
        session: &Session<'_>,
        inspection: &Inspection,
        leave: &Leave,
    ) -> Result<(), EngineError> {
        for (difference, fix) in of_phase(&inspection.differences, &[Phase::Prepare]) {
            self.repair(difference, fix);
        }
        let left = diff::compare_with(&self.expected, &self.model, leave);
        for (difference, fix) in of_phase(&left, &[Phase::PrepareIfPossible]) {
            // Asked of the rows that are there: a column that the plan would add is filled later.
            if blockers::holds_now(session.scope(), self.set, &inspection.live, difference).await? {
                self.repair(difference, fix);
            }
        }
        Ok(())
    }

    fn migrations(&mut self) {
        for migration in &self.set.migrations {
            for statement in &migration.statements {
                let outcome = match makes(&statement.sql) {
                    _ if is_superseded(&statement.sql, self.set) => Foreseen::AlreadyThere,
                    Some(makes) if makes.is_in(&self.model) => Foreseen::AlreadyThere,
                    Some(_) => Foreseen::Changes,
                    None if statement.is_query() => Foreseen::AlreadyThere,
                    None => Foreseen::Depends,
                };
                self.add(
                    Some(&migration.version),
                    Origin::Migration,
                    outcome,
                    migration.in_transaction,
                    &statement.sql,
                );
                if let Some(last) = self.statements.last_mut() {
                    last.batched = statement.batch.is_some();
                }
            }
        }
        for step in &self.set.steps {
            self.statements.push(PlannedStatement {
                version: None,
                origin: Origin::Code,
                outcome: Foreseen::Depends,
                in_transaction: true,
                batched: true,
                planned: Planned::new(step.description(), crate::locks::Effect { scans: true, ..Default::default() }),
            });
        }
    }

    fn converge(&mut self, leave: &Leave) {
        for _ in 0..ROUNDS {
            let left = diff::compare_with(&self.expected, &self.model, leave);
            let fixes = of_phase(&left, &[Phase::Prepare, Phase::PrepareIfPossible, Phase::Converge]);
            if fixes.is_empty() {
                break;
            }
            for (difference, fix) in fixes {
                self.repair(difference, fix);
            }
        }
    }

    fn record(&mut self, inspection: &Inspection) {
        if !inspection.report.pending.is_empty() {
            let versions: Vec<String> =
                inspection.report.pending.iter().map(|version| format!("('{version}')")).collect();
            let sql = format!("INSERT INTO public.{} (version) VALUES {}", history::TABLE, versions.join(", "));
            self.add(None, Origin::History, Foreseen::Changes, true, &sql);
        }
    }
}
