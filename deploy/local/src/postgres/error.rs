//! What can go wrong between "find PostgreSQL" and "the dump is loaded". Every text is one line and says what to do.

use std::path::PathBuf;

/// Why a PostgreSQL part failed. The text is meant for the person at the terminal.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// No usable installation was found and none could be installed.
    #[error("{0}")]
    Binaries(String),
    /// A file or directory could not be read, written or made.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// The attempted action, a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The cluster could not be made, started or stopped.
    #[error("{0}")]
    Cluster(String),
    /// Something lies where the cluster should be and is not ours, or is ours and cannot be used. Nothing was changed.
    #[error("{0}")]
    InTheWay(String),
    /// A statement of ours failed or the connection was refused.
    #[error("{action} failed: {message}")]
    Sql {
        /// What was being done.
        action: String,
        /// The server's message.
        message: String,
    },
    /// The SQL file cannot be loaded; nothing of it is left.
    #[error("{file}:{line}: {message}")]
    Dump {
        /// The file as it was named.
        file: String,
        /// Line of the statement or data row, from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
}

impl PostgresError {
    /// Wraps a file-system error with the action and the path.
    pub fn file(action: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::File { action, path: path.into(), source }
    }

    /// Wraps a driver error; takes the server's own text where there is one.
    pub fn sql(action: impl Into<String>, source: &tokio_postgres::Error) -> Self {
        Self::Sql { action: action.into(), message: sql_message(source) }
    }
}

/// The server's message and detail in one line, or the driver's text with its cause.
pub(crate) fn sql_message(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        let mut text = format!("{} ({})", db.message(), db.code().code());
        if let Some(detail) = db.detail() {
            text.push_str(": ");
            text.push_str(&detail.replace('\n', " "));
        }
        if let Some(place) = db.where_() {
            text.push_str(" in ");
            text.push_str(place.lines().next().unwrap_or_default());
        }
        return text;
    }
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
