//! The `migrate` subcommand: arguments, output and exit codes, the same for every service.

use std::process::ExitCode as ProcessExit;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use crate::backup::BackupArgs;
use crate::diff::Leave;
use crate::down::{Target, down};
use crate::error::{EngineError, ExitCode};
use crate::interrupt::Interrupt;
use crate::plan::plan;
use crate::rehearse::rehearse;
use crate::render;
use crate::repair_plan::{RepairReport, repair_plan};
use crate::report::{State, UpReport};
use crate::session::{Connect, Session};
use crate::set::MigrationSet;
use crate::up::{RunOptions, repair, up};
use crate::verify::{inspect, status};

/// How long an interrupted run may take to put things in order: less than the 30 s that Kubernetes waits before it kills.
const GRACE: Duration = Duration::from_secs(20);

/// `migrate …`
#[derive(Debug, Subcommand)]
pub enum MigrateCommand {
    /// Adopt what is there, run what is missing, repair what differs, verify. Safe to run again from any state.
    ///
    /// Exit codes: 0 the schema is the expected one, 1 failed, 2 usage or configuration,
    /// 3 something is in the way (nothing was changed) or drift is left, 5 another run holds the lock,
    /// 6 database unreachable, 7 the database is newer than this binary, 8 no good backup (nothing was changed).
    #[command(verbatim_doc_comment)]
    Up(UpArgs),
    /// Show what `up` would do, statement by statement, each with its lock, whether it scans or rewrites, and what is in the way.
    ///
    /// Writes nothing and needs only to read. Exits 0 whatever it finds.
    #[command(verbatim_doc_comment)]
    Plan(RunArgs),
    /// Show applied, pending and unknown versions and the last run. Writes nothing, exits 0 whatever it finds.
    Status(CommonArgs),
    /// Compare history and live schema with the expected schema. Writes nothing.
    ///
    /// Exit codes: 0 equal (warnings allowed), 3 drift, 4 migrations pending, 7 the database is newer than this binary.
    #[command(verbatim_doc_comment)]
    Verify(CommonArgs),
    /// Print what would mend each difference; with --apply do it, then verify. Never drops data, and runs no migration.
    ///
    /// `up` repairs too, but never makes others wait for long. --apply does also what does (a large table written
    /// anew), and does what it can where something else is in the way.
    /// Exit codes: 0 nothing is left to repair, 3 drift is left (without --apply: is there),
    /// 4 migrations are pending, and those of `up`.
    #[command(verbatim_doc_comment)]
    Repair(RepairArgs),
    /// Try the whole of `up` on a copy of the live schema, without rows, in a transaction that is rolled back.
    ///
    /// Touches no table of production and needs no right to make databases, only CREATE on this one.
    /// Exit codes: 0 a run would converge, and those of `up`.
    #[command(verbatim_doc_comment)]
    Rehearse(RunArgs),
    /// Revert migrations, newest first. Refuses to lose rows unless it is told to.
    ///
    /// Exit codes: 0 reverted, 1 failed or refused (nothing was changed), 2 usage, 5 another run holds the lock,
    /// 6 database unreachable, 7 the database is newer than this binary, 8 no good backup.
    /// Afterwards `verify` says 4, pending.
    #[command(verbatim_doc_comment)]
    Down(DownArgs),
    /// Print every table of a database in the form of expected.json, for developers of migrations: make it from the up.sql
    /// files alone.
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
    /// How long another run and other people's locks are waited for, and a lost connection is ridden out.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    pub lock_wait: Duration,
}

/// Flags of `up`.
#[derive(Clone, Debug, Args)]
pub struct UpArgs {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    backup: BackupArgs,
}

/// Flags of what changes the schema, and of its plan.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    zone: ZoneArgs,
}

/// What only a person can know.
#[derive(Clone, Debug, Args)]
pub struct ZoneArgs {
    /// The zone in which times without a zone were written; only then are such columns converted.
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
}

/// Flags of `repair`.
#[derive(Clone, Debug, Args)]
pub struct RepairArgs {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    backup: BackupArgs,
    /// Do it. Others may have to wait while a large table is written anew.
    #[arg(long)]
    apply: bool,
}

/// Flags of `down`.
#[derive(Clone, Debug, Args)]
pub struct DownArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    backup: BackupArgs,
    /// Revert even where rows or values are lost.
    #[arg(long)]
    allow_data_loss: bool,
}

/// How far back.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct TargetArgs {
    /// Revert the newest N migrations.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    steps: Option<u16>,
    /// Revert everything newer than this version; 0 reverts everything.
    #[arg(long, value_name = "VERSION")]
    to: Option<String>,
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For machines.
    Json,
}

impl MigrateCommand {
    fn common(&self) -> &CommonArgs {
        match self {
            Self::Up(args) => &args.run.common,
            Self::Plan(args) | Self::Rehearse(args) => &args.common,
            Self::Down(args) => &args.common,
            Self::Repair(args) => &args.run.common,
            Self::Status(common) | Self::Verify(common) | Self::Snapshot(common) => common,
        }
    }
}

/// Runs a command, prints its answer, and answers the exit code.
pub async fn run(command: &MigrateCommand, set: &MigrationSet, connector: &dyn Connect) -> ExitCode {
    let (handle, interrupt) = Interrupt::new();
    let work = dispatch(command, set, connector, interrupt);
    tokio::pin!(work);
    tokio::select! {
        code = &mut work => return code,
        // The run cancels its statement, tells the ledger, and gives back the lock.
        () = interrupted() => handle.fire(),
    }
    tokio::select! {
        code = work => code,
        // Asked a second time, or nothing came of it: at once. The server notices the closed connections within a second.
        () = interrupted() => fail(command, set, &EngineError::Interrupted),
        () = tokio::time::sleep(GRACE) => fail(command, set, &EngineError::Interrupted),
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

async fn dispatch(
    command: &MigrateCommand,
    set: &MigrationSet,
    connector: &dyn Connect,
    interrupt: Interrupt,
) -> ExitCode {
    let outcome = match command {
        MigrateCommand::Up(args) => {
            let (report, outcome) = up(connector, set, &options(&args.run, Some(&args.backup), interrupt)).await;
            return told(&args.run.common, &report, outcome);
        }
        MigrateCommand::Rehearse(args) => {
            let (report, outcome) = rehearse(connector, set, &options(args, None, interrupt)).await;
            answer(args.common.output, &report, render::rehearse);
            return outcome.map_or_else(|error| error.exit_code(), |()| ExitCode::Done);
        }
        MigrateCommand::Down(args) => {
            let target = match (&args.target.steps, &args.target.to) {
                (_, Some(version)) => Target::Version(version.clone()),
                (steps, None) => Target::Steps(usize::from(steps.unwrap_or(1))),
            };
            let options = common_options(&args.common, Some(&args.backup), interrupt);
            let (report, outcome) = down(connector, set, &target, args.allow_data_loss, &options).await;
            answer(args.common.output, &report, render::down);
            return outcome.map_or_else(|error| error.exit_code(), |()| ExitCode::Done);
        }
        MigrateCommand::Repair(args) if args.apply => {
            let (report, outcome) = repair(connector, set, &options(&args.run, Some(&args.backup), interrupt)).await;
            return told(&args.run.common, &report, outcome);
        }
        _ => {
            // They only read: nothing has to be put in order.
            tokio::select! {
                outcome = reading(command, set, connector, &interrupt) => outcome,
                () = interrupt.fired() => Err(EngineError::Interrupted),
            }
        }
    };
    outcome.unwrap_or_else(|error| fail(command, set, &error))
}

async fn reading(
    command: &MigrateCommand,
    set: &MigrationSet,
    connector: &dyn Connect,
    interrupt: &Interrupt,
) -> Result<ExitCode, EngineError> {
    let common = command.common();
    let session = Session::open(connector, common.connect_wait, interrupt).await?.with_patience(common.lock_wait);
    let scope = session.scope();
    match command {
        MigrateCommand::Status(_) => {
            let report = status(&session, set).await?;
            answer(common.output, &report, |report| render::status(report, set));
            Ok(ExitCode::Done)
        }
        MigrateCommand::Verify(_) => {
            let report = inspect(&session, set, &Leave::default()).await?.report;
            answer(common.output, &report, render::verify);
            Ok(of_state(report.state))
        }
        MigrateCommand::Repair(args) => {
            let leave = Leave::checked(scope, args.run.zone.time_zone.as_deref(), true).await?;
            let report: RepairReport = repair_plan(&session, set, &leave).await?;
            answer(common.output, &report, render::repair);
            Ok(of_state(report.verify.state))
        }
        MigrateCommand::Plan(args) => {
            let leave = Leave::checked(scope, args.zone.time_zone.as_deref(), false).await?;
            let report = plan(&session, set, &leave).await?;
            answer(common.output, &report, render::plan);
            Ok(ExitCode::Done)
        }
        MigrateCommand::Snapshot(_) => {
            // All of them: a migration that is being written makes tables that nobody expects yet.
            let sql = "SELECT tablename::text FROM pg_catalog.pg_tables \
                WHERE schemaname = 'public' AND tablename NOT LIKE '\\_\\_%'";
            let names: Vec<String> =
                scope.query(sql, &[]).await?.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
            let tables = crate::read_schema(scope.client, &names).await?;
            render::json(&crate::Expected { tables, seeds: set.expected.seeds.clone() });
            Ok(ExitCode::Done)
        }
        MigrateCommand::Up(_) | MigrateCommand::Rehearse(_) | MigrateCommand::Down(_) => {
            Err(EngineError::Usage("this command does more than read".to_owned()))
        }
    }
}

fn options(args: &RunArgs, backup: Option<&BackupArgs>, interrupt: Interrupt) -> RunOptions {
    RunOptions { time_zone: args.zone.time_zone.clone(), ..common_options(&args.common, backup, interrupt) }
}

fn common_options(common: &CommonArgs, backup: Option<&BackupArgs>, interrupt: Interrupt) -> RunOptions {
    RunOptions {
        lock_wait: common.lock_wait,
        connect_wait: common.connect_wait,
        time_zone: None,
        interrupt,
        backup: backup.and_then(BackupArgs::options),
        on_terminal: common.output == Output::Text && std::io::IsTerminal::is_terminal(&std::io::stderr()),
    }
}

/// The answer of a run. What is left after a repair decides its code.
fn told(common: &CommonArgs, report: &UpReport, outcome: Result<(), EngineError>) -> ExitCode {
    answer(common.output, report, render::up);
    outcome.map_or_else(|error| error.exit_code(), |()| of_state(report.verify.state))
}

fn of_state(state: State) -> ExitCode {
    match state {
        State::Match => ExitCode::Done,
        State::Pending => ExitCode::Pending,
        State::Drift => ExitCode::Drift,
        State::Ahead => ExitCode::Ahead,
    }
}

fn answer<T: Serialize>(output: Output, report: &T, text: impl FnOnce(&T)) {
    match output {
        Output::Json => render::json(report),
        Output::Text => text(report),
    }
}

fn fail(command: &MigrateCommand, set: &MigrationSet, error: &EngineError) -> ExitCode {
    match command.common().output {
        Output::Json => render::json(&serde_json::json!({ "service": set.service, "error": error.to_string() })),
        Output::Text => render::error(error),
    }
    error.exit_code()
}
