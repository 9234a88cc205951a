//! Database errors by class. Which error type where:
//!
//! - a store's function returns its own error enum, or [`DatabaseError`] when it has nothing else to say;
//! - [`DatabaseError`] carries the driver's error as its source, for the log; it is never shown to a client;
//! - `grpc/` maps both through the service's error table ([`crate::status`]), a constraint's name deciding what a conflict means.

use diesel::result::{DatabaseErrorKind, Error};

/// Which constraint said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConflictKind {
    /// A unique constraint or index.
    Unique,
    /// A foreign key.
    ForeignKey,
    /// A check constraint.
    Check,
    /// A NOT NULL column; [`DatabaseError::Conflict::constraint`] is then the column's name.
    NotNull,
    /// An exclusion constraint.
    Exclusion,
}

/// What went wrong in the database, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The database cannot be reached, lost the connection, is restarting, or the pool is exhausted: try again later.
    #[error("the database is not available: {reason}")]
    Unavailable {
        /// What happened, in a few words without any secret.
        reason: String,
        /// The driver's error, when there was one.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The deadline of the call or the statement timeout passed; the statement was cancelled.
    #[error("the database did not answer in time")]
    Timeout,
    /// A constraint refused the change.
    #[error("constraint {constraint} refused the change")]
    Conflict {
        /// Its kind.
        kind: ConflictKind,
        /// Its name, as in the migration; empty when the server gave none.
        constraint: String,
        /// The driver's error.
        #[source]
        source: Error,
    },
    /// A serialization failure or deadlock that retries did not cure.
    #[error("concurrent transactions were in the way")]
    Serialization(#[source] Error),
    /// Anything else: a defect or a schema that does not fit.
    #[error("the database refused the statement")]
    Other(#[source] Error),
}

impl DatabaseError {
    /// The name of the constraint that refused, when that is what happened.
    pub fn constraint(&self) -> Option<&str> {
        match self {
            Self::Conflict { constraint, .. } => Some(constraint),
            _ => None,
        }
    }

    /// Label of the metrics: `unavailable`, `timeout`, `conflict`, `serialization`, `other`.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "unavailable",
            Self::Timeout => "timeout",
            Self::Conflict { .. } => "conflict",
            Self::Serialization(_) => "serialization",
            Self::Other(_) => "other",
        }
    }

    pub(super) fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into(), source: None }
    }
}

impl From<Error> for DatabaseError {
    fn from(error: Error) -> Self {
        let Error::DatabaseError(kind, information) = &error else {
            return match &error {
                Error::BrokenTransactionManager => {
                    Self::Unavailable { reason: "the transaction broke off".to_owned(), source: Some(Box::new(error)) }
                }
                _ => Self::Other(error),
            };
        };
        let conflict = match kind {
            DatabaseErrorKind::UniqueViolation => Some(ConflictKind::Unique),
            DatabaseErrorKind::ForeignKeyViolation | DatabaseErrorKind::RestrictViolation => {
                Some(ConflictKind::ForeignKey)
            }
            DatabaseErrorKind::CheckViolation => Some(ConflictKind::Check),
            DatabaseErrorKind::NotNullViolation => Some(ConflictKind::NotNull),
            DatabaseErrorKind::ExclusionViolation => Some(ConflictKind::Exclusion),
            _ => None,
        };
        if let Some(kind) = conflict {
            let name = information.constraint_name().or_else(|| information.column_name());
            let constraint = name.unwrap_or_default().to_owned();
            return Self::Conflict { kind, constraint, source: error };
        }
        match kind {
            DatabaseErrorKind::SerializationFailure => Self::Serialization(error),
            DatabaseErrorKind::UnableToSendCommand | DatabaseErrorKind::ClosedConnection => {
                Self::Unavailable { reason: "the connection was lost".to_owned(), source: Some(Box::new(error)) }
            }
            // Diesel keeps no SQLSTATE for the rest, so the server's English text decides; connections ask for lc_messages=C where allowed.
            _ => match information.message() {
                "deadlock detected" => Self::Serialization(error),
                text if text.starts_with("canceling statement due to") => Self::Timeout,
                text if lost_connection(text) => {
                    Self::Unavailable { reason: text.to_owned(), source: Some(Box::new(error)) }
                }
                _ => Self::Other(error),
            },
        }
    }
}

/// 57P01, 57P02, 57P03, 53300 and 25P03 by their texts; 25006 is a standby after a failover.
fn lost_connection(text: &str) -> bool {
    text.starts_with("terminating connection")
        || text.starts_with("the database system is")
        || text.starts_with("cannot execute") && text.ends_with("in a read-only transaction")
        || text.contains("too many clients")
        || text.contains("remaining connection slots")
}

/// What an error of a store must be, so that [`super::Database`] can put its own errors into it and look for one to retry.
/// Implement it with [`crate::store_error!`].
pub trait StoreError: From<DatabaseError> + From<Error> + Send {
    /// The database error inside, if it is one.
    fn as_database(&self) -> Option<&DatabaseError>;
}

impl StoreError for DatabaseError {
    fn as_database(&self) -> Option<&DatabaseError> {
        Some(self)
    }
}

/// Makes an error enum of a store usable with [`crate::database::Database`]: `store_error!(TaskStoreError::Database);` for an enum
/// with the variant `Database(DatabaseError)`. Writes `From<DatabaseError>`, `From<diesel::result::Error>` and `StoreError`.
#[macro_export]
macro_rules! store_error {
    ($name:ident :: $variant:ident) => {
        impl ::core::convert::From<$crate::database::DatabaseError> for $name {
            fn from(error: $crate::database::DatabaseError) -> Self {
                Self::$variant(error)
            }
        }

        impl ::core::convert::From<::diesel::result::Error> for $name {
            fn from(error: ::diesel::result::Error) -> Self {
                Self::$variant($crate::database::DatabaseError::from(error))
            }
        }

        impl $crate::database::StoreError for $name {
            fn as_database(&self) -> ::core::option::Option<&$crate::database::DatabaseError> {
                match self {
                    Self::$variant(error) => ::core::option::Option::Some(error),
                    #[allow(
                        unreachable_patterns,
                        clippy::allow_attributes,
                        reason = "an enum may have this variant alone"
                    )]
                    _ => ::core::option::Option::None,
                }
            }
        }
    };
}
