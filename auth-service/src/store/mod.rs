//! Accounts, sessions and keys in PostgreSQL. Names are resource-first; `_on_conn` works inside somebody's transaction.
//! Times are those of the service, passed in: one call has one time.

pub mod accounts;
pub mod administrators;
pub mod audit;
pub mod callers;
pub mod expiry;
pub mod introspection;
pub mod login_keys;
pub mod mails;
pub mod refresh;
pub mod revocations;
pub mod role_admin;
pub mod roles;
pub mod schema;
pub mod service_account_setup;
pub mod service_accounts;
pub mod sessions;
pub mod signing_keys;
pub mod throttles;
pub mod user_admin;
pub mod user_deletions;
pub mod user_import;
pub mod user_list;
pub mod users;

use chrono::{DateTime, Utc};
use service_kit::database::{Database, DatabaseError};

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The session or the account of the caller is gone.
    #[error("the caller's session or account is gone")]
    CallerGone,
    /// The caller does not hold this permission, or not any more.
    #[error("the caller lacks the permission {0}")]
    PermissionMissing(String),
    /// No such account.
    #[error("no such user")]
    UserNotFound,
    /// Another account has the id.
    #[error("user id taken")]
    UserIdTaken,
    /// No such session of the caller.
    #[error("no such session")]
    SessionNotFound,
    /// No such role.
    #[error("no such role")]
    RoleNotFound,
    /// The role was deactivated.
    #[error("the role is inactive")]
    RoleInactive,
    /// Another role has the name.
    #[error("role name taken")]
    RoleNameTaken,
    /// A system role cannot be changed so.
    #[error("a system role")]
    RoleIsSystem,
    /// Accounts have the role.
    #[error("the role is in use")]
    RoleInUse,
    /// Nobody could administrate any more.
    #[error("the last active administrator")]
    LastAdministrator,
    /// No such service account.
    #[error("no such service account")]
    ServiceAccountNotFound,
    /// Another service account has the name.
    #[error("service account name taken")]
    ServiceAccountNameTaken,
    /// The token from a mail does not count, or not any more.
    #[error("the mail's token is not valid")]
    MailTokenInvalid,
    /// Too many attempts have failed: none is looked at before this time.
    #[error("throttled until {0}")]
    Throttled(DateTime<Utc>),
    /// Too many changes of this kind: none is made before this time.
    #[error("too many changes until {0}")]
    TooManyChanges(DateTime<Utc>),
    /// Everything was tried and nothing is to be kept.
    #[error("a dry run")]
    DryRun,
    /// The account changed in between.
    #[error("the account changed in between")]
    Stale,
    /// The database.
    #[error(transparent)]
    Database(DatabaseError),
}

service_kit::store_error!(ChangeError::Database);

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
