//! Runs, verifies and repairs a set of Diesel migrations on PostgreSQL, from any state of the database.
//!
//! `IF NOT EXISTS` only asks whether a name exists. This engine compares the live catalog with a committed snapshot
//! of the expected schema, repairs what differs without losing a row, and records a version as applied only after
//! the catalog has shown it. It knows no table of any service: everything comes in with a [`MigrationSet`].
//!
//! - [`up`] is the order of a run: lock, inspect, look for rows in the way, prepare, run, converge, verify, record.
//! - [`diff`] compares two schemas; [`repair`] says what mends a difference, and what must be true of the rows.
//! - [`cli`] is the `migrate` subcommand with its exit codes and JSON.

mod backup;
mod blockers;
mod catalog;
pub mod cli;
pub mod diff;
mod error;
mod history;
mod ledger;
mod lock;
mod obstacles;
mod render;
pub mod repair;
mod report;
mod schema;
mod seeds;
mod session;
mod set;
mod split;
mod up;
mod verify;

pub use backup::{BackupArgs, BackupOptions, BackupReport, ToolSettings};
pub use blockers::Blocker;
pub use catalog::read_schema;
pub use error::{ConnectError, EngineError, ExitCode};
pub use ledger::LastRun;
pub use lock::key as lock_key;
pub use report::{
    Action, DataChange, Drift, FindingReport, Kind, Outcome, Problem, Severity, State, UpReport, VerifyReport,
};
pub use schema::{Column, Constraint, ConstraintKind, Expected, Index, Schema, Seed, Table};
pub use session::Connect;
pub use set::{DataStep, EmbeddedMigration, Finding, Migration, MigrationSet, SetError};
pub use split::{Statement, split};
pub use up::{UpOptions, up};
pub use verify::{StatusReport, status, verify};
