//! Harness of the suites: real binaries on a real PostgreSQL, every test with databases of its own.
//!
//! ```text
//! use tests::{Pair, assert_refused};
//! let pair = Pair::start().await;
//! let alice = pair.sign_up("alice").await;
//! let mut tasks = pair.tasks(&alice);
//! let answer = tasks.get_task(proto::task::v1::GetTaskRequest { id: "nonsense".into() }).await;
//! let refusal = assert_refused(answer, tonic::Code::InvalidArgument, "VALIDATION_FAILED");
//! assert_eq!(refusal.fields, ["id"]);
//! ```
//!
//! The programs are built once per test process (`PAIR_BIN_DIR` names a directory of ready ones instead). The cluster is shared
//! by all test processes and goes away with the last of them; a killed test leaves nothing running.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a harness ends the test with a panic")]

mod accounts;
pub mod catalog;
mod client_tools;
mod database;
pub mod kept;
pub mod legacy;
mod many_tasks;
mod migrate;
mod pair;
mod programs;
pub mod proxy;
mod random;
mod refusals;
mod server;
mod terminal;

pub use accounts::{Account, Authorized, Bearer, PASSWORD, authorized, sign_in, sign_up};
pub use client_tools::client_tools;
pub use database::{Postgres, TestDatabase};
pub use many_tasks::fill_tasks;
pub use migrate::{MigrateRun, Runner, run_migrate};
pub use pair::Pair;
pub use programs::{Programs, Service, programs};
pub use random::{Random, number_from_environment};
pub use refusals::{Refusal, assert_refused};
pub use server::{
    AuthServer, Environment, KEY_ENCRYPTION_KEY, ProgramRun, StartFailure, TaskServer, http_get, run_program,
};
pub use terminal::{TerminalRun, run_on_terminal};
