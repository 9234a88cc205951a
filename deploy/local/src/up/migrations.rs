//! Runs a service's migration job as the migrator and tells what it found, changed and left alone.

use std::path::Path;
use std::process::Stdio;

use serde::Deserialize;

use super::UpError;
use super::child::service_command;
use super::progress::Progress;

/// The answer of `migrate up --output json`, as far as it is told here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct UpReport {
    owned_tables: Vec<String>,
    actions: Vec<Action>,
    data_changes: Vec<DataChange>,
    findings: Vec<Finding>,
    blockers: Vec<Blocker>,
    drift: Vec<Drift>,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Action {
    outcome: String,
    statement: String,
}

#[derive(Debug, Deserialize)]
struct DataChange {
    description: String,
    rows: u64,
}

#[derive(Debug, Deserialize)]
struct Finding {
    message: String,
    #[serde(default)]
    sample: Vec<String>,
    #[serde(default)]
    advice: String,
}

#[derive(Debug, Deserialize)]
struct Blocker {
    table: String,
    object: String,
    reason: String,
    #[serde(default)]
    rows: i64,
    #[serde(default)]
    sample: Vec<String>,
    #[serde(default)]
    resolve: String,
}

#[derive(Debug, Deserialize)]
struct Drift {
    kind: String,
    table: String,
    object: String,
    problem: String,
}

/// Runs `<program> migrate up` on the database at `url`; answers the tables that are the service's own.
pub(super) async fn migrate(
    service: &str,
    program: &Path,
    url: &str,
    progress: &Progress,
) -> Result<Vec<String>, UpError> {
    progress.begin(&format!("{service}: migrating"));
    let mut command = service_command(program);
    command.args(["migrate", "up", "--output", "json"]).env("DATABASE_URL", url).stdin(Stdio::null());
    let output = command.output().await.map_err(|error| UpError::file("run", program, &error))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice::<UpReport>(&output.stdout);
    let code = output.status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    match report {
        Ok(report) if code == 0 => {
            progress.done(&format!("{service}: {}", report.summary()));
            report.tell(progress);
            Ok(report.owned_tables)
        }
        Ok(report) => {
            report.tell(progress);
            for blocker in &report.blockers {
                blocker.tell(progress);
            }
            let reason = report
                .error
                .clone()
                .or_else(|| last_line(&stderr))
                .unwrap_or_else(|| "the schema is not as expected".to_owned());
            Err(UpError::failed(format!("{service} migrate up: {reason}")).with_code(code))
        }
        Err(_) => {
            let reason =
                last_line(&stderr).unwrap_or_else(|| format!("it ended with {} and said nothing", output.status));
            Err(UpError::failed(format!("{service} migrate up: {reason}")).with_code(code.max(1)))
        }
    }
}

impl UpReport {
    fn summary(&self) -> String {
        let count = |outcome: &str| self.actions.iter().filter(|action| action.outcome == outcome).count();
        if self.actions.is_empty() {
            return "the schema is up to date".to_owned();
        }
        format!(
            "the schema is as expected; {} statements changed something, {} had nothing to do, {} differences were repaired",
            count("applied"),
            count("already_there"),
            count("repaired")
        )
    }

    fn tell(&self, progress: &Progress) {
        for action in self.actions.iter().filter(|action| action.outcome == "repaired") {
            progress.detail(&format!("repaired: {}", shortened(&action.statement)));
        }
        for change in &self.data_changes {
            let rows = if change.rows == 1 { "row" } else { "rows" };
            progress.detail(&format!("changed: {} ({} {rows})", change.description, change.rows));
        }
        for drift in &self.drift {
            let object = if drift.table == drift.object {
                drift.table.clone()
            } else {
                format!("{}.{}", drift.table, drift.object)
            };
            progress.detail(&format!("left alone: {} {object} ({})", drift.kind, drift.problem));
        }
        for finding in &self.findings {
            progress.care(&finding.message);
            if !finding.sample.is_empty() {
                progress.detail(&format!("which: {}", finding.sample.join("; ")));
            }
            if !finding.advice.is_empty() {
                progress.detail(&format!("advice: {}", finding.advice));
            }
        }
    }
}

impl Blocker {
    fn tell(&self, progress: &Progress) {
        progress.care(&format!("{}.{}: {}", self.table, self.object, self.reason));
        if self.rows > 0 {
            progress.detail(&format!("{} rows: {}", self.rows, self.sample.join("; ")));
        }
        if !self.resolve.is_empty() {
            progress.detail(&format!("to resolve: {}", self.resolve));
        }
    }
}

fn shortened(statement: &str) -> String {
    let line = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() > 150 { line.chars().take(149).chain(['…']).collect() } else { line }
}

fn last_line(text: &str) -> Option<String> {
    text.lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .map(|line| line.trim_start_matches("error: ").to_owned())
}
