//! The task service: tasks over gRPC.
#![expect(unreachable_pub, reason = "a program has no outside; `pub` marks what a module shows to the others")]

mod app;
mod background;
mod cli;
mod config;
mod domain;
mod errors;
mod grpc;
mod metrics_help;
mod migrate;
mod migrations;
mod store;
mod watch;

use std::process::ExitCode;

fn main() -> ExitCode {
    match service_kit::config::parse_cli() {
        Ok(parsed) => cli::run(parsed),
        Err(code) => code,
    }
}
