//! Runs `migrate` of a service and reads its answer.

use crate::programs::Service;
use crate::run_program;

/// What a `migrate` command answered.
#[derive(Debug, Clone)]
pub struct MigrateRun {
    /// Exit code as in the contract; -1 when a signal ended it.
    pub code: i32,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl MigrateRun {
    /// The one JSON document on stdout, after `--output json`.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("stdout is not one JSON document: {error}: {self:#?}"))
    }
}

/// Runs `<service> migrate <arguments>` on the database at `url`.
pub async fn run_migrate(service: Service, url: &str, arguments: &[&str]) -> MigrateRun {
    let run = run_program(service, &[&["migrate"], arguments].concat(), &[("DATABASE_URL", url)], "").await;
    MigrateRun { code: run.code, stdout: run.stdout, stderr: run.stderr }
}
