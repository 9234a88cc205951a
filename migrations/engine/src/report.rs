//! What the commands answer: the shapes behind `--output json`. Names are fixed by the `migrate` contract.

use serde::Serialize;

use crate::backup::BackupReport;
use crate::blockers::Blocker;
use crate::error::EngineError;
use crate::ledger::Interrupted;
use crate::set::MigrationSet;

/// How the database stands to the binary.
#[derive(Clone, Copy, Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// History and schema are as expected.
    Match,
    /// Versions of this binary are not recorded.
    Pending,
    /// All recorded, but the schema differs.
    Drift,
    /// The history has versions that this binary does not know.
    Ahead,
}

/// How bad a difference is.
#[derive(Clone, Copy, Debug, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Can break the service or lose integrity.
    Error,
    /// Harmless, but not as expected.
    Warning,
}

/// What kind of object differs.
#[derive(Clone, Copy, Debug, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A table.
    Table,
    /// A column.
    Column,
    /// A constraint.
    Constraint,
    /// An index that backs no constraint.
    Index,
    /// A trigger.
    Trigger,
    /// A function that a trigger calls.
    Function,
    /// A sequence.
    Sequence,
    /// A seeded row.
    Seed,
    /// The history table.
    History,
}

/// In which way it differs.
#[derive(Clone, Copy, Debug, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// Expected and not there.
    Missing,
    /// There, in another shape.
    Different,
    /// There and not expected.
    Unexpected,
    /// There, but PostgreSQL does not use or enforce it.
    Invalid,
}

/// One difference between the live and the expected schema.
#[derive(Clone, Debug, Serialize, PartialEq, Eq, PartialOrd, Ord)]
pub struct Drift {
    /// How bad it is.
    pub severity: Severity,
    /// What kind of object.
    pub kind: Kind,
    /// The table it belongs to.
    pub table: String,
    /// The object's name; for a table, the table's.
    pub object: String,
    /// In which way it differs.
    pub problem: Problem,
    /// The expected form.
    pub expected: Option<String>,
    /// The live form.
    pub actual: Option<String>,
    /// SQL that mends it without losing a row, where there is such.
    pub repair: Option<String>,
    /// Whether the service also works as it is: an index whose extension not every database has, or one that is being built.
    #[serde(skip)]
    pub optional: bool,
}

/// The answer of `verify`.
#[derive(Clone, Debug, Serialize)]
pub struct VerifyReport {
    /// The service.
    pub service: String,
    /// How the database stands.
    pub state: State,
    /// Recorded versions of this service.
    pub applied: Vec<String>,
    /// Versions of this binary that are not recorded.
    pub pending: Vec<String>,
    /// Recorded versions that nobody here knows.
    pub unknown: Vec<String>,
    /// Every difference, errors first.
    pub drift: Vec<Drift>,
}

impl VerifyReport {
    /// The differences that count.
    pub fn errors(&self) -> impl Iterator<Item = &Drift> {
        self.drift.iter().filter(|drift| drift.severity == Severity::Error)
    }

    /// Those among them that the service does not work with.
    pub fn hindrances(&self) -> impl Iterator<Item = &Drift> {
        self.errors().filter(|drift| !drift.optional)
    }
}

/// What became of a statement.
#[derive(Clone, Copy, Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It changed something.
    Applied,
    /// Its effect was there.
    AlreadyThere,
    /// The engine mended a difference.
    Repaired,
    /// `down` undid it.
    Reverted,
}

impl Outcome {
    /// The word in JSON and in the ledger.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::AlreadyThere => "already_there",
            Self::Repaired => "repaired",
            Self::Reverted => "reverted",
        }
    }
}

/// One statement that ran.
#[derive(Clone, Debug, Serialize)]
pub struct Action {
    /// The migration's version; null for a repair of the engine.
    pub version: Option<String>,
    /// The statement on one line.
    pub statement: String,
    /// What became of it.
    pub outcome: Outcome,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

/// Rows that a run changed.
#[derive(Clone, Debug, Serialize)]
pub struct DataChange {
    /// The migration's version; null for a step in code.
    pub version: Option<String>,
    /// What was done, one sentence.
    pub description: String,
    /// How many rows.
    pub rows: u64,
}

/// Something that a person should know or do.
#[derive(Clone, Debug, Serialize)]
pub struct FindingReport {
    /// Stable name.
    pub code: String,
    /// How many rows it concerns.
    pub count: i64,
    /// Keys of some of them.
    pub sample: Vec<String>,
    /// What was found.
    pub message: String,
    /// What to do.
    pub advice: String,
}

/// The answer of `up`.
#[derive(Clone, Debug, Serialize)]
pub struct UpReport {
    /// The state afterwards.
    #[serde(flatten)]
    pub verify: VerifyReport,
    /// The tables of this service; every other table is left alone.
    pub owned_tables: Vec<String>,
    /// Every statement that ran, in order.
    pub actions: Vec<Action>,
    /// Rows that were changed.
    pub data_changes: Vec<DataChange>,
    /// What a person should know or do.
    pub findings: Vec<FindingReport>,
    /// What was in the way; then nothing was changed.
    pub blockers: Vec<Blocker>,
    /// Statements during which an earlier run died.
    pub interrupted: Vec<Interrupted>,
    /// The archive that was made before the first change, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupReport>,
    /// Why the run ended early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl UpReport {
    /// Of a run that has not begun.
    pub(crate) fn new(set: &MigrationSet) -> Self {
        Self {
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
            interrupted: Vec::new(),
            backup: None,
            error: None,
        }
    }

    /// Takes up why the run ended early, if it did.
    pub(crate) fn ended(&mut self, outcome: &Result<(), EngineError>) {
        let Err(error) = outcome else { return };
        if let EngineError::Blocked(found) | EngineError::Stopped(found) = error {
            self.blockers.clone_from(found);
        }
        self.error = Some(error.to_string());
    }
}
