//! One line for the person at the terminal, and the exit code.

use std::path::Path;

use crate::postgres::PostgresError;
use crate::programs::BuildError;

/// Why `cargo up` ends.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct UpError {
    /// Exit code: those of `migrate` where they fit.
    pub code: u8,
    /// What was expected and what to do, on one line.
    pub message: String,
    /// What to show before the message: the end of a log. May be long.
    pub context: Vec<String>,
}

impl UpError {
    /// Something failed.
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into(), context: Vec::new() }
    }

    /// The command line or the directory asks for something that cannot be done.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { code: 2, message: message.into(), context: Vec::new() }
    }

    /// The same with another exit code.
    pub(super) fn with_code(self, code: u8) -> Self {
        Self { code, ..self }
    }

    /// A file of ours could not be read or written.
    pub(super) fn file(action: &str, path: &Path, error: &std::io::Error) -> Self {
        Self::failed(format!("cannot {action} {}: {error}", path.display()))
    }
}

impl From<PostgresError> for UpError {
    fn from(error: PostgresError) -> Self {
        match error {
            PostgresError::InTheWay(message) => Self::usage(message),
            error => Self::failed(error.to_string()),
        }
    }
}

impl From<BuildError> for UpError {
    fn from(error: BuildError) -> Self {
        Self::failed(error.to_string())
    }
}
