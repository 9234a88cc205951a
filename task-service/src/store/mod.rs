//! The tasks in PostgreSQL.
//!
//! The rows can be distributed by owner, so every statement of a member's request names `user_id`, nothing relies on triggers
//! or foreign keys, and times come as parameters. An administrator's change first looks up the owner, then is an owner's change.

mod batches;
mod changes;
mod expiry;
mod ownership;
mod requests;
mod row;
pub mod schema;
mod stats;
mod task_list;
mod tasks;

pub use batches::BatchError;
pub use changes::CHANGES_READ;
use service_kit::database::{Database, DatabaseError};

/// Why a statement about tasks gave no result.
#[derive(Debug, thiserror::Error)]
pub enum TaskStoreError {
    /// There is no such task in the scope, or it was deleted.
    #[error("no such task")]
    NotFound,
    /// The task has another version than the caller has seen.
    #[error("the task was changed in between")]
    EtagMismatch,
    /// A row that the schema should not have let in.
    #[error("task {id} has the unknown status {status:?}")]
    UnknownStatus {
        /// Which task.
        id: crate::domain::ids::TaskId,
        /// What stands there.
        status: String,
    },
    /// The tasks have more text together than may be answered.
    #[error("the answer would be too large")]
    TooLarge,
    /// The snapshot of the transactions has a form that we do not know.
    #[error("pg_current_snapshot() gave something unknown")]
    SnapshotUnreadable,
    /// The database.
    #[error(transparent)]
    Database(DatabaseError),
}

service_kit::store_error!(TaskStoreError::Database);

/// Reads and writes tasks. Cheap to clone.
#[derive(Clone)]
pub struct TaskStore {
    database: Database,
}

impl TaskStore {
    /// On this pool.
    pub fn new(database: Database) -> Self {
        Self { database }
    }
}
