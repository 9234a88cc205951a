//! Errors and exit codes.
//!
//! Which error where: [`ConnectError`] comes from the caller's connector and says whether waiting helps;
//! [`EngineError`] is everything that ends a command; each has one [`ExitCode`].

use std::error::Error as _;

use tokio_postgres::error::SqlState;

use crate::blockers::Blocker;

/// Why a connection could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answers, or the server is starting or full: waiting may help.
    #[error("{0}")]
    Unreachable(String),
    /// Wrong password, unknown database, TLS mismatch: waiting does not help.
    #[error("{0}")]
    Refused(String),
}

/// Exit codes of the `migrate` command; fixed by its contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// The schema equals the expected one.
    Done = 0,
    /// The run failed.
    Failed = 1,
    /// Usage or configuration.
    Usage = 2,
    /// Drift that is not, or not yet, repaired.
    Drift = 3,
    /// Migrations are pending.
    Pending = 4,
    /// Another run holds the lock.
    Locked = 5,
    /// The database does not answer.
    Unreachable = 6,
    /// The database is newer than this binary.
    Ahead = 7,
    /// No good backup, so nothing was changed.
    BackupFailed = 8,
}

impl ExitCode {
    /// Every code, in order; what handles exit codes elsewhere (Kubernetes Jobs) is compared with it.
    pub const ALL: [Self; 9] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::Drift,
        Self::Pending,
        Self::Locked,
        Self::Unreachable,
        Self::Ahead,
        Self::BackupFailed,
    ];
}

/// What ends a command.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No connection within the wait.
    #[error("database unreachable after {waited}: {reason}, or raise --connect-wait")]
    Unreachable {
        /// How long was waited.
        waited: String,
        /// The last reason.
        reason: String,
    },
    /// The server refuses us.
    #[error("{0}")]
    Refused(String),
    /// The server is too old.
    #[error("PostgreSQL {0} is too old: version 14 or later is needed; upgrade the server that DATABASE_URL names")]
    TooOld(String),
    /// Another run holds the lock.
    #[error(
        "another migration run of {service} still holds the lock after {waited} ({holder}); wait for it, or raise --lock-wait"
    )]
    Locked {
        /// Whose migrations.
        service: String,
        /// How long was waited.
        waited: String,
        /// Who holds it, as `pg_stat_activity` tells.
        holder: String,
    },
    /// The session that holds the lock is gone or is another one now.
    #[error("the migration lock was lost: {0}; run the command again, directly or through a pooler in session mode")]
    LockLost(String),
    /// The connection goes through a pooler that lends one server session to many clients.
    #[error(
        "DATABASE_URL leads through a pooler in transaction mode, behind which a lock of a session holds nobody back; give the direct address of the server, or a pool in session mode"
    )]
    Pooler,
    /// The history has versions that nobody here knows.
    #[error("the database is newer than this binary: unknown versions {}; deploy the binary that knows them", .0.join(", "))]
    Ahead(Vec<String>),
    /// Rows or objects are in the way; nothing was changed.
    #[error("{} in the way, nothing was changed", if .0.len() == 1 { "1 obstacle is".to_owned() } else { format!("{} obstacles are", .0.len()) })]
    Blocked(Vec<Blocker>),
    /// Rows or objects came into the way while the run was under way.
    #[error(
        "{} obstacle(s) came up during the run, which stopped there; what it had done stays, and the next run goes on from there", .0.len()
    )]
    Stopped(Vec<Blocker>),
    /// The migrations ran and the schema is still another one.
    #[error("the schema still differs after the run: {}; see `migrate verify`", .0.join(", "))]
    NotConverged(Vec<String>),
    /// A statement failed.
    #[error("{context}: {message}\n  statement: {statement}")]
    Statement {
        /// Version or repair.
        context: String,
        /// The statement, shortened.
        statement: String,
        /// PostgreSQL's message.
        message: String,
        /// Its SQLSTATE.
        code: Option<SqlState>,
        /// Whether the connection is gone.
        lost: bool,
    },
    /// An argument that does not fit the database or the set.
    #[error("{0}")]
    Usage(String),
    /// `down` would lose rows.
    #[error("{0}")]
    WouldLose(String),
    /// No good archive of the database before the first change.
    #[error("no good backup, so nothing was changed: {0}")]
    Backup(String),
    /// SIGTERM or Ctrl-C.
    #[error("interrupted; run the command again, it goes on where this run stopped")]
    Interrupted,
    /// Any other database error.
    #[error("{}", postgres_message(.0))]
    Postgres(#[from] tokio_postgres::Error),
}

impl EngineError {
    /// The exit code of this error.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Unreachable { .. } => ExitCode::Unreachable,
            Self::Refused(_) | Self::TooOld(_) | Self::Pooler | Self::Usage(_) => ExitCode::Usage,
            Self::Locked { .. } => ExitCode::Locked,
            Self::Ahead(_) => ExitCode::Ahead,
            Self::Blocked(_) | Self::Stopped(_) | Self::NotConverged(_) => ExitCode::Drift,
            Self::Backup(_) => ExitCode::BackupFailed,
            _ if self.is_connection_loss() => ExitCode::Unreachable,
            Self::LockLost(_) | Self::Statement { .. } | Self::Postgres(_) | Self::Interrupted | Self::WouldLose(_) => {
                ExitCode::Failed
            }
        }
    }

    /// Whether nobody answered at all.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// Whether the server went away in the middle: the whole run may be tried again.
    #[must_use]
    pub fn is_connection_loss(&self) -> bool {
        match self {
            Self::Statement { lost, .. } => *lost,
            Self::Postgres(error) => error.is_closed() || error.code().is_some_and(crate::session::is_loss),
            _ => false,
        }
    }

    /// The same error with the sessions that hold the locks.
    pub(crate) fn with_holders(self, holders: &[String]) -> Self {
        if holders.is_empty() {
            return self;
        }
        let held = format!("; locks are held by {}", holders.join(" and by "));
        match self {
            Self::Statement { context, statement, message, code, lost } => {
                Self::Statement { context, statement, message: message + &held, code, lost }
            }
            Self::Postgres(error) => Self::Statement {
                context: "a look at the tables".to_owned(),
                statement: "SELECT from the catalog".to_owned(),
                message: postgres_message(&error) + &held,
                code: error.code().cloned(),
                lost: false,
            },
            other => other,
        }
    }

    /// Whether an object vanished between two looks at the catalog: `cache lookup failed for index …` and its like, or a
    /// definition that is NULL, which PostgreSQL writes as of now and not as of the snapshot.
    pub(crate) fn is_catalog_race(&self) -> bool {
        let Self::Postgres(error) = self else { return false };
        let races = [SqlState::INTERNAL_ERROR, SqlState::UNDEFINED_OBJECT, SqlState::UNDEFINED_TABLE];
        let is_null = error.source().is_some_and(|cause| cause.is::<tokio_postgres::types::WasNull>());
        is_null || error.code().is_some_and(|code| races.contains(code))
    }

    /// Whether a lock timeout, a deadlock or a serialization failure ended a transaction.
    pub(crate) fn is_lock_conflict(&self) -> bool {
        let code = match self {
            Self::Statement { code, .. } => code.as_ref(),
            Self::Postgres(error) => error.code(),
            _ => None,
        };
        let conflicts =
            [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED, SqlState::T_R_SERIALIZATION_FAILURE];
        code.is_some_and(|code| conflicts.contains(code))
    }
}

/// The server's message with code, detail and hint; the driver's own text is only "db error".
pub(crate) fn postgres_message(error: &tokio_postgres::Error) -> String {
    let Some(db) = error.as_db_error() else {
        let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
        return format!("{error}{source}");
    };
    let mut text = format!("{} (SQLSTATE {})", db.message(), db.code().code());
    // The detail of a broken constraint shows the row: e-mail addresses, hashes. The message names the constraint.
    let detail = db.detail().filter(|_| !db.code().code().starts_with("23"));
    for (label, part) in [("detail", detail), ("hint", db.hint())] {
        if let Some(part) = part {
            text.push_str(&format!("; {label}: {part}"));
        }
    }
    if db.code() == &SqlState::INSUFFICIENT_PRIVILEGE {
        text.push_str("; grant it to the role of DATABASE_URL, or run as the owner of the tables");
    }
    if db.code() == &SqlState::LOCK_NOT_AVAILABLE {
        text.push_str("; another session holds a lock: find it in pg_locks or pg_prepared_xacts, end it, and run the command again");
    }
    text
}
