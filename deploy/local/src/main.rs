//! Entry point of `cargo up`: reads the command line and hands over.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use local_pair::up::UpOptions;

/// Runs auth-service and task-service on a private PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "cargo up", bin_name = "cargo")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start both services on a private PostgreSQL, from nothing or from a dump of an existing database
    Up(UpOptions),
    /// End the processes named on stdin when the parent has gone
    #[command(hide = true)]
    Guard,
    /// Hold the test cluster while test processes use it
    #[command(hide = true)]
    WatchCluster { directory: PathBuf },
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Up(options) => local_pair::up::main(&options),
        Command::Guard => {
            local_pair::guard::run();
            ExitCode::SUCCESS
        }
        Command::WatchCluster { directory } => {
            local_pair::up::report(local_pair::postgres::watch_cluster(&directory).map_err(Into::into))
        }
    }
}
