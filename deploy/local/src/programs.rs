//! Builds programs of this workspace with the cargo that runs us, and says where they are.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde::Deserialize;

use crate::files::FileLock;

/// Why a program could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// cargo cannot be run.
    #[error("cannot run cargo: {0}; install the Rust toolchain from https://rustup.rs")]
    NoCargo(#[from] std::io::Error),
    /// The compiler has said why on stderr.
    #[error("`cargo build` failed; its messages stand above")]
    Failed,
    /// `PAIR_BIN_DIR` is set, but this program is not in it.
    #[error("{0} is not there: build it or unset PAIR_BIN_DIR")]
    NotReady(PathBuf),
    /// The build made no executable of this name.
    #[error("`cargo build` made no executable `{0}`")]
    Missing(String),
}

/// Which build profile is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Quick to build.
    Dev,
    /// Quick to run.
    Release,
}

/// One line of `cargo build --message-format=json`.
#[derive(Deserialize)]
struct Message {
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// The cargo command that builds `packages`, each with a program of the same name. Compiler messages go to stderr; `quiet`
/// keeps cargo's progress from it. [`built`] reads its stdout.
pub fn build_command(packages: &[&str], profile: Profile, quiet: bool) -> Command {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--message-format=json-render-diagnostics", "--manifest-path"])
        .arg(workspace().join("Cargo.toml"));
    if quiet {
        command.arg("--quiet");
    }
    for package in packages {
        command.args(["--package", package]);
    }
    if profile == Profile::Release {
        command.arg("--release");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command
}

/// The workspace: of the `cargo run` that started us, else the one we were built in.
fn workspace() -> PathBuf {
    let package =
        env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    let found = package.ancestors().find(|directory| directory.join("Cargo.lock").is_file()).map(Path::to_owned);
    found.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
}

/// Where the programs of `packages` are, from the output of [`build_command`].
///
/// # Errors
/// The build failed or made other programs.
pub fn built(output: &Output, packages: &[&str]) -> Result<BTreeMap<String, PathBuf>, BuildError> {
    if !output.status.success() {
        return Err(BuildError::Failed);
    }
    let mut found: BTreeMap<String, PathBuf> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter_map(|message| Some((message.target?.name, message.executable?)))
        .collect();
    let wanted = packages.iter().map(|package| {
        let path = found.remove(*package).ok_or_else(|| BuildError::Missing((*package).to_owned()))?;
        Ok(((*package).to_owned(), path))
    });
    wanted.collect()
}

/// The programs of `packages` for tests: from the directory `PAIR_BIN_DIR` if it is set, else built in the profile of the
/// caller, once per test run (nextest runs a process per test).
///
/// # Errors
/// As [`built`], or cargo cannot be run, or a program is not in `PAIR_BIN_DIR`.
pub fn for_tests(packages: &[&str]) -> Result<BTreeMap<String, PathBuf>, BuildError> {
    if let Some(directory) = env::var_os("PAIR_BIN_DIR") {
        let ready = packages.iter().map(|package| ((*package).to_owned(), Path::new(&directory).join(package)));
        return ready
            .map(|(name, path)| if path.is_file() { Ok((name, path)) } else { Err(BuildError::NotReady(path)) })
            .collect();
    }
    let profile = if cfg!(debug_assertions) { Profile::Dev } else { Profile::Release };
    let Some(run) = env::var("NEXTEST_RUN_ID").ok() else {
        return built(&build_command(packages, profile, true).output()?, packages);
    };
    let memory = env::temp_dir().join(format!("local-pair-{run}-{}", packages.join("-")));
    let _building = FileLock::exclusive(&memory.with_extension("lock"))?;
    if let Some(known) = fs::read_to_string(&memory).ok().and_then(|text| serde_json::from_str(&text).ok()) {
        return Ok(known);
    }
    let programs = built(&build_command(packages, profile, true).output()?, packages)?;
    fs::write(&memory, serde_json::json!(programs).to_string())?;
    Ok(programs)
}
