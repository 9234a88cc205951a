//! The `migrate` subcommand: arguments, output and exit codes, the same for every service.

use std::process::ExitCode as ProcessExit;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use crate::backup::BackupArgs;
use crate::error::{EngineError, ExitCode};
use crate::render;
use crate::report::State;
use crate::session::{self, Connect};
use crate::set::MigrationSet;
use crate::up::{UpOptions, up};
use crate::verify::{status, verify};

/// `migrate …`
#[derive(Debug, Subcommand)]
pub enum MigrateCommand {
    /// Adopt what is there, run what is missing, verify. Safe to run again from any state.
    ///
    /// Exit codes: 0 the schema is the expected one, 1 failed, 2 usage or configuration, 3 something is in the way
    /// (nothing was changed) or drift is left, 5 another run holds the lock, 6 database unreachable, 7 the database is
    /// newer than this binary, 8 no good backup (nothing was changed).
    #[command(verbatim_doc_comment)]
    Up(UpArgs),
    /// Show applied, pending and unknown versions and the last run. Writes nothing, exits 0 whatever it finds.
    Status(CommonArgs),
    /// Compare history and live schema with the expected schema. Writes nothing.
    ///
    /// Exit codes: 0 equal (warnings allowed), 3 drift, 4 migrations pending, 7 the database is newer than this binary.
    #[command(verbatim_doc_comment)]
    Verify(CommonArgs),
    /// Print the live schema in the form of expected.json, for developers of migrations.
    #[command(hide = true)]
    Snapshot(CommonArgs),
}

/// Flags of every subcommand.
#[derive(Clone, Debug, Args)]
pub struct CommonArgs {
    /// How to answer: a text for people, or one JSON document on stdout (logs go to stderr).
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// How long an unreachable database is waited for.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    pub connect_wait: Duration,
    /// How long a run that holds the lock is waited for, and a lost connection is ridden out.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    pub lock_wait: Duration,
}

/// Flags of `up`.
#[derive(Clone, Debug, Args)]
pub struct UpArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    backup: BackupArgs,
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Runs a command, prints its answer, and answers the exit code.
pub async fn run(command: &MigrateCommand, set: &MigrationSet, connector: &dyn Connect) -> ExitCode {
    let work = dispatch(command, set, connector);
    tokio::select! {
        code = work => code,
        // Dropping the work closes its connections; the server notices within a second and cancels the statement.
        () = interrupted() => fail(command, set, &EngineError::Interrupted),
    }
}

impl From<ExitCode> for ProcessExit {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    // Without a handler the default action of the signal ends the process, which a run survives as well.
    let _ = tokio::signal::ctrl_c().await;
}

async fn dispatch(command: &MigrateCommand, set: &MigrationSet, connector: &dyn Connect) -> ExitCode {
    match command {
        MigrateCommand::Up(UpArgs { common, backup }) => {
            let (lock_wait, connect_wait) = (common.lock_wait, common.connect_wait);
            let options = UpOptions { lock_wait, connect_wait, backup: backup.options() };
            let (report, outcome) = up(connector, set, options).await;
            match common.output {
                Output::Json => render::json(&report),
                Output::Text => render::up(&report),
            }
            outcome.map_or_else(|error| error.exit_code(), |()| ExitCode::Done)
        }
        MigrateCommand::Status(common) => match read(connector, common, async |client| status(client, set).await).await
        {
            Ok(report) => {
                answer(common.output, &report, |report| render::status(report, set));
                ExitCode::Done
            }
            Err(error) => fail(command, set, &error),
        },
        MigrateCommand::Verify(common) => match read(connector, common, async |client| verify(client, set).await).await
        {
            Ok(report) => {
                answer(common.output, &report, render::verify);
                match report.state {
                    State::Match => ExitCode::Done,
                    State::Pending => ExitCode::Pending,
                    State::Drift => ExitCode::Drift,
                    State::Ahead => ExitCode::Ahead,
                }
            }
            Err(error) => fail(command, set, &error),
        },
        MigrateCommand::Snapshot(common) => {
            let snapshot = read(connector, common, async |client| {
                let tables = crate::read_schema(client, &set.expected.table_names()).await?;
                Ok(crate::Expected { tables, seeds: set.expected.seeds.clone() })
            });
            match snapshot.await {
                Ok(snapshot) => {
                    render::json(&snapshot);
                    ExitCode::Done
                }
                Err(error) => fail(command, set, &error),
            }
        }
    }
}

async fn read<T>(
    connector: &dyn Connect,
    common: &CommonArgs,
    ask: impl AsyncFnOnce(&tokio_postgres::Client) -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    let client = session::connect(connector, common.connect_wait).await?;
    ask(&client).await
}

fn answer<T: Serialize>(output: Output, report: &T, text: impl FnOnce(&T)) {
    match output {
        Output::Json => render::json(report),
        Output::Text => text(report),
    }
}

fn fail(command: &MigrateCommand, set: &MigrationSet, error: &EngineError) -> ExitCode {
    let common = match command {
        MigrateCommand::Up(UpArgs { common, .. }) => common,
        MigrateCommand::Status(common) | MigrateCommand::Verify(common) | MigrateCommand::Snapshot(common) => common,
    };
    match common.output {
        Output::Json => render::json(&serde_json::json!({ "service": set.service, "error": error.to_string() })),
        Output::Text => render::error(error),
    }
    error.exit_code()
}
