//! The auth service: users, roles and tokens over gRPC.
#![expect(unreachable_pub, reason = "a program has no outside; `pub` marks what a module shows to the others")]

mod admin;
mod app;
mod background;
mod cli;
mod config;
mod domain;
mod errors;
mod flows;
mod grpc;
mod key_commands;
mod keys;
mod mail;
mod metrics_help;
mod migrate;
mod migrations;
mod purge;
mod revocations;
mod service_account_command;
mod store;

use std::process::ExitCode;

fn main() -> ExitCode {
    match service_kit::config::parse_cli() {
        Ok(parsed) => cli::run(parsed),
        Err(code) => code,
    }
}
