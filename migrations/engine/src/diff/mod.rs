//! Compares a live schema with the expected one. Pure: reads nothing, so that every kind of difference has a test.
//!
//! A [`Difference`] is the drift that is reported, the fix that mends it, and the guard: what must be true of the
//! rows for the fix to succeed. [`crate::blockers`] asks the guards before anything is changed.

mod columns;
mod constraints;
mod indexes;
mod sequences;
mod triggers;

#[cfg(test)]
mod tests;

pub(crate) use columns::{converts, describe as describe_column, rewrites};

use tokio_postgres::types::Type;

use crate::error::EngineError;
use crate::repair::{self, Fix, Phase, Step};
use crate::report::{Drift, Kind, Problem, Severity};
use crate::schema::{Expected, Schema, Table};
use crate::scope::Scope;

/// What must be true of the rows, or of the server, for a fix to succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// No NULL in the column.
    NoNulls(String),
    /// The table is empty: the column holds what cannot be made up.
    Empty,
    /// No two rows agree in these columns.
    Unique(Vec<String>),
    /// Every non-null value refers to a row.
    NoOrphans {
        /// Referring columns.
        columns: Vec<String>,
        /// The table referred to.
        parent: String,
        /// Its columns.
        parent_columns: Vec<String>,
    },
    /// No row makes the expression false.
    Check {
        /// The expression.
        expression: String,
        /// Its columns.
        columns: Vec<String>,
    },
    /// No value is longer.
    MaxLength {
        /// The column.
        column: String,
        /// Length in characters.
        length: u32,
    },
    /// The sequence has not counted beyond what the options allow.
    Counted {
        /// The sequence.
        sequence: String,
        /// Its new lower bound.
        lowest: i64,
        /// Its new upper bound.
        highest: i64,
    },
    /// No such fix is safe; why, and what a person can do.
    Never {
        /// Why.
        reason: String,
        /// What a person can do.
        resolve: String,
    },
}

/// One difference with what mends it.
#[derive(Clone, Debug)]
pub struct Difference {
    /// As reported.
    pub drift: Drift,
    /// What mends it; none for warnings, and for what the migrations themselves make.
    pub fix: Option<Fix>,
    /// What must be true before.
    pub guard: Option<Guard>,
}

impl Difference {
    /// Whether it can break the service or its integrity.
    pub(crate) fn is_error(&self) -> bool {
        self.drift.severity == Severity::Error
    }

    fn new(severity: Severity, kind: Kind, table: &str, object: &str, problem: Problem) -> Self {
        let drift = Drift {
            severity,
            kind,
            table: table.to_owned(),
            object: object.to_owned(),
            problem,
            expected: None,
            actual: None,
            repair: None,
            optional: false,
        };
        Self { drift, fix: None, guard: None }
    }

    fn error(kind: Kind, table: &str, object: &str, problem: Problem) -> Self {
        Self::new(Severity::Error, kind, table, object, problem)
    }

    fn warning(kind: Kind, table: &str, object: &str, problem: Problem) -> Self {
        Self::new(Severity::Warning, kind, table, object, problem)
    }

    fn expected(mut self, text: impl Into<String>) -> Self {
        self.drift.expected = Some(text.into());
        self
    }

    fn actual(mut self, text: impl Into<String>) -> Self {
        self.drift.actual = Some(text.into());
        self
    }

    fn fix(mut self, phase: Phase, rank: u8, steps: Vec<Step>) -> Self {
        self.drift.repair = Some(repair::text(&steps));
        self.fix = Some(Fix { phase, rank, steps });
        self
    }

    fn guard(mut self, guard: Guard) -> Self {
        self.guard = Some(guard);
        self
    }

    /// Nothing that the engine may do by itself.
    fn never(mut self, reason: impl Into<String>, resolve: impl Into<String>) -> Self {
        self.guard = Some(Guard::Never { reason: reason.into(), resolve: resolve.into() });
        self
    }
}

/// What a person has given leave for.
#[derive(Clone, Debug, Default)]
pub struct Leave {
    /// The zone in which times without one were written.
    pub(crate) time_zone: Option<String>,
    /// Whether others may have to wait while a large table is written anew.
    pub(crate) may_block: bool,
}

impl Leave {
    /// Checks that the server knows the zone.
    pub(crate) async fn checked(
        scope: Scope<'_>,
        time_zone: Option<&str>,
        may_block: bool,
    ) -> Result<Self, EngineError> {
        if let Some(zone) = time_zone {
            let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_timezone_names WHERE name = $1)";
            if !scope.query_one(sql, &[(&zone, Type::TEXT)]).await?.try_get::<_, bool>(0)? {
                return Err(EngineError::Usage(format!(
                    "--time-zone: the server knows no zone {zone:?}; expected a name of pg_timezone_names, such as UTC or Europe/Berlin"
                )));
            }
        }
        Ok(Self { time_zone: time_zone.map(str::to_owned), may_block })
    }
}

/// Everything in which `live` differs from `expected`, in the order in which it is mended.
#[must_use]
pub fn compare(expected: &Expected, live: &Schema) -> Vec<Difference> {
    compare_with(expected, live, &Leave::default())
}

/// [`compare`], with what a person has given leave for.
#[must_use]
pub(crate) fn compare_with(expected: &Expected, live: &Schema, leave: &Leave) -> Vec<Difference> {
    let mut found = Vec::new();
    // A logged table may not refer to an unlogged one: those referred to come first.
    let mut tables: Vec<_> = expected.tables.iter().collect();
    tables.sort_by_key(|(name, _)| depth(name, live, expected.tables.len()));
    for (name, table) in tables {
        match live.get(name) {
            None => {
                let mut missing = Difference::error(Kind::Table, name, name, Problem::Missing).expected("table");
                // Shown to people; `up` lets the migration itself make the table.
                missing.drift.repair = Some(repair::text(&[Step::Transaction(repair::create_table(name, table))]));
                found.push(missing);
            }
            Some(actual) if actual.kind != table.kind => found.push(
                Difference::error(Kind::Table, name, name, Problem::Different)
                    .expected(table.kind.as_str())
                    .actual(actual.kind.as_str())
                    .never(
                        format!("{name} is a {}, not a {}", actual.kind, table.kind),
                        format!("rename the {} {name}, or use another database", actual.kind),
                    ),
            ),
            Some(actual) => compare_table(name, table, actual, live, leave, &mut found),
        }
    }
    found.sort_by_key(|difference| (difference.drift.severity, difference.fix.as_ref().map_or(0, |fix| fix.rank)));
    found
}

/// How many foreign keys lie between the table and one that refers to none; `most` ends a circle.
fn depth(table: &str, live: &Schema, most: usize) -> usize {
    let Some(there) = live.get(table).filter(|_| most > 0) else { return 0 };
    let parents = there.constraints.values().filter_map(|key| key.references.as_deref());
    parents.filter(|parent| *parent != table).map(|parent| depth(parent, live, most - 1) + 1).max().unwrap_or(0)
}

fn compare_table(
    name: &str,
    expected: &Table,
    actual: &Table,
    live: &Schema,
    leave: &Leave,
    found: &mut Vec<Difference>,
) {
    if expected.logged && !actual.logged {
        let sql = format!("ALTER TABLE {} SET LOGGED", repair::table(name));
        found.push(
            Difference::error(Kind::Table, name, name, Problem::Different)
                .expected("logged")
                .actual("unlogged: empty after a crash")
                // After foreign keys to tables of others are dropped.
                .fix(Phase::Prepare, 4, vec![Step::Transaction(vec![sql])]),
        );
    }
    if actual.row_security && !expected.row_security {
        let sql = format!("ALTER TABLE {} DISABLE ROW LEVEL SECURITY", repair::table(name));
        let mut hidden = Difference::error(Kind::Table, name, name, Problem::Different)
            .expected("no row level security")
            .actual("row level security, which can hide rows")
            .never(format!("row level security on {name} can hide rows from the service"), sql.clone());
        hidden.drift.repair = Some(sql);
        found.push(hidden);
    }
    columns::compare(name, expected, actual, leave, found);
    constraints::compare(name, expected, actual, found);
    indexes::compare(name, expected, actual, live, found);
    sequences::compare(name, expected, actual, found);
    triggers::compare(name, expected, actual, found);
}
