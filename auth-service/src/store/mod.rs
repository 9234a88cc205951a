//! Accounts, sessions and keys in PostgreSQL. Names are resource-first; `_on_conn` works inside somebody's transaction.
//! Times are those of the service, passed in: one call has one time.

pub mod administrators;
pub mod login_keys;
pub mod refresh;
pub mod roles;
pub mod schema;
pub mod sessions;
pub mod signing_keys;
pub mod users;

use service_kit::database::Database;

/// Reads and writes. Cheap to clone.
#[derive(Clone)]
pub struct AuthStore {
    database: Database,
}

impl AuthStore {
    /// On this pool.
    pub fn new(database: Database) -> Self {
        Self { database }
    }
}
