//! The programs under test, built once per test process.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use local_pair::programs::for_tests;

/// One of the two services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// auth-service
    Auth,
    /// task-service
    Task,
}

impl Service {
    /// Name of the package and of the program.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth-service",
            Self::Task => "task-service",
        }
    }

    /// Path of the program.
    pub fn program(self) -> &'static Path {
        match self {
            Self::Auth => &programs().auth_service,
            Self::Task => &programs().task_service,
        }
    }
}

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// auth-service
    pub auth_service: PathBuf,
    /// task-service
    pub task_service: PathBuf,
    /// The program behind `cargo up`, which also holds the shared cluster.
    pub local_pair: PathBuf,
}

/// The programs, built at the first call: with `cargo build`, or taken from `PAIR_BIN_DIR`.
pub fn programs() -> &'static Programs {
    static PROGRAMS: OnceLock<Programs> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let mut found =
            for_tests(&["auth-service", "task-service", "local-pair"]).unwrap_or_else(|error| panic!("{error}"));
        let mut take = |name: &str| found.remove(name).expect("every package has its program");
        Programs {
            auth_service: take("auth-service"),
            task_service: take("task-service"),
            local_pair: take("local-pair"),
        }
    })
}
