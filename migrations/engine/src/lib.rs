//! Runs, verifies and repairs a set of Diesel migrations on PostgreSQL, from any state of the database.
//!
//! `IF NOT EXISTS` only asks whether a name exists. This engine compares the live catalog with a committed snapshot
//! of the expected schema, repairs what differs without losing a row, and records a version as applied only after
//! the catalog has shown it. It knows no table of any service: everything comes in with a [`MigrationSet`].
//!
//! - [`up`] is the order of a run: lock, inspect, look for rows in the way, prepare, run, converge, verify, record.
//! - [`diff`] compares two schemas; [`repair`] says what mends a difference, and what must be true of the rows.
//! - [`rehearse`] runs the same on a copy of the schema, [`down`] reverts, [`mend`] repairs what `up` leaves.
//! - [`cli`] is the `migrate` subcommand with its exit codes and JSON.

mod activity;
mod backup;
mod batch;
mod blockers;
mod catalog;
pub mod cli;
pub mod diff;
mod down;
mod error;
mod extensions;
mod findings;
mod history;
mod interrupt;
mod keywords;
mod ledger;
mod lock;
mod locks;
mod obstacles;
mod patience;
mod plan;
mod progress;
mod rehearse;
mod render;
pub mod repair;
mod repair_plan;
mod report;
mod rights;
mod runner;
mod schema;
mod scope;
mod seeds;
mod session;
mod set;
mod shadow;
mod simulate;
mod skip;
mod split;
mod up;
mod verify;
mod words;

pub use backup::{BackupArgs, BackupOptions, BackupReport, ToolSettings};
pub use blockers::Blocker;
pub use catalog::read_schema;
pub use down::{DownReport, Loss, Target, down};
pub use error::{ConnectError, EngineError, ExitCode};
pub use interrupt::{Interrupt, InterruptHandle};
pub use ledger::{Interrupted, LastRun};
pub use lock::key as lock_key;
pub use locks::{Effect, LockMode, TableLock, effect};
pub use plan::{Foreseen, Origin, PlanReport, PlannedStatement};
pub use rehearse::rehearse;
pub use render::counted;
pub use repair_plan::{Planned, Repair, RepairReport};
pub use report::{
    Action, DataChange, Drift, FindingReport, Kind, Outcome, Problem, Severity, State, UpReport, VerifyReport,
};
pub use schema::{Column, Constraint, ConstraintKind, Expected, Index, Schema, Seed, Sequence, Table};
pub use session::Connect;
pub use set::{DataStep, EmbeddedMigration, Finding, Migration, MigrationSet, SetError};
pub use split::{Batch, Statement, split};
pub use up::{RunOptions, repair as mend, up};
pub use verify::{StatusReport, verify};
