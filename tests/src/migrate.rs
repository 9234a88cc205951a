//! Runs `migrate` of a service and reads its answer.

use std::process::Stdio;

use local_pair::process::ProcessIdentity;
use rustix::process::Signal;
use tokio::task::JoinHandle;

use crate::programs::Service;
use crate::run_program;
use crate::server::command;

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

impl MigrateRun {
    /// What tells why it ended as it did, on a few lines: the whole answer can be long.
    pub fn brief(&self) -> String {
        let answer: serde_json::Value = serde_json::from_str(&self.stdout).unwrap_or_default();
        let mut lines = vec![format!("exit {}, {}", self.code, answer["state"])];
        lines.extend(answer["error"].as_str().map(|error| format!("error: {error}")));
        lines.extend(answer["blockers"].as_array().into_iter().flatten().map(|blocker| format!("blocker: {blocker}")));
        let drift = answer["drift"].as_array().into_iter().flatten();
        lines.extend(drift.filter(|drift| drift["severity"] == "error").take(5).map(|drift| format!("drift: {drift}")));
        lines.extend(
            answer["actions"].as_array().into_iter().flatten().take(5).map(|action| format!("action: {action}")),
        );
        lines.extend(self.stderr.lines().rev().take(2).map(|line| format!("log: {line}")));
        let short = lines.iter().map(|line| line.chars().take(500).collect::<String>());
        short.collect::<Vec<_>>().join("\n  ")
    }
}

/// Runs `<service> migrate <arguments>` on the database at `url`.
pub async fn run_migrate(service: Service, url: &str, arguments: &[&str]) -> MigrateRun {
    let run = run_program(service, &[&["migrate"], arguments].concat(), &[("DATABASE_URL", url)], "").await;
    MigrateRun { code: run.code, stdout: run.stdout, stderr: run.stderr }
}

/// A `migrate` command under way, to be killed in the middle. It is killed with the value, too.
#[derive(Debug)]
pub struct Runner {
    process: ProcessIdentity,
    ended: JoinHandle<std::io::Result<std::process::Output>>,
}

impl Runner {
    /// Starts `<service> migrate <arguments>` on the database at `url`.
    pub fn start(service: Service, url: &str, arguments: &[&str]) -> Self {
        let command = command(service, &[&["migrate"], arguments].concat(), &[("DATABASE_URL", url)]);
        let mut command = tokio::process::Command::from(command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let child = command.spawn().expect("the program runs");
        let pid = child.id().expect("it was not waited for");
        // A child that has ended stays as a zombie until it is waited for, so its pid is still its own here.
        let process = ProcessIdentity::of(pid).unwrap_or(ProcessIdentity { pid, started: String::new() });
        Self { process, ended: tokio::spawn(child.wait_with_output()) }
    }

    /// The process, for whoever is to kill it.
    pub fn process(&self) -> ProcessIdentity {
        self.process.clone()
    }

    /// SIGKILL, if it still runs.
    pub fn kill(&self) {
        self.process.signal(Signal::KILL);
    }

    /// Waits for its end; a run that hangs is a failure of the test.
    pub async fn wait(mut self, patience: std::time::Duration) -> MigrateRun {
        let output = tokio::time::timeout(patience, &mut self.ended).await;
        let output = output.unwrap_or_else(|_| panic!("migrate did not end within {patience:?}"));
        let output = output.expect("its reader runs").expect("its output");
        MigrateRun {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.ended.abort();
    }
}
