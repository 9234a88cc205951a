//! The errors of task.v1: one table of reasons, one of constraints. Which error type where:
//!
//! - `domain` says [`crate::domain::Invalid`] or an error of its own per rule;
//! - `store` says [`TaskStoreError`], which carries the driver's error for the log;
//! - `grpc` turns both into a [`Problem`], here, and that into a status. Public text is constant.

use service_kit::status;

use crate::store::TaskStoreError;

service_kit::reasons! {
    /// Why a call failed, as `google.rpc.ErrorInfo.reason`; documented for callers in `task/v1/error_reason.proto`.
    pub enum TaskReason("task.v1") {
        /// The page token is none of ours, or of another list.
        PageTokenInvalid = "PAGE_TOKEN_INVALID", InvalidArgument, "The page token does not belong to this list.";
        /// No such task, deleted, or somebody else's: callers cannot tell which.
        TaskNotFound = "TASK_NOT_FOUND", NotFound, "There is no such task.";
        /// The etag is not the current one.
        EtagMismatch = "ETAG_MISMATCH", Aborted, "The task was changed in between. Read it again.";
        /// The resume token is older than the log of changes.
        ResumeTokenExpired = "RESUME_TOKEN_EXPIRED", OutOfRange, "The resume token is too old. Watch again with a snapshot.";
        /// More watchers than this replica takes.
        RateLimited = "RATE_LIMITED", ResourceExhausted, "Too many at a time. Try again later.";
        /// The answer would be larger than clients take.
        MessageTooLarge = "MESSAGE_TOO_LARGE", InvalidArgument, "The answer would be too large. Ask for less in one call.";
        /// The token's time is over, in the middle of a stream.
        TokenExpired = "TOKEN_EXPIRED", Unauthenticated, "The access token has expired.";
        /// The session, user or role behind the token was ended or changed, in the middle of a stream.
        TokenRevoked = "TOKEN_REVOKED", Unauthenticated, "The access token is void.";
        /// The caller lacks a permission; it stands in the metadata.
        PermissionMissing = "PERMISSION_MISSING", PermissionDenied, "The caller lacks the permission for this call.";
        /// No verified caller where there must be one: the authentication layer is not in place.
        TokenMissing = "TOKEN_MISSING", Unauthenticated, "Send an access token.";
    }
}

/// An error on its way to the client.
pub type Problem = status::Problem<TaskReason>;

/// What a constraint of the tables means to a caller: the field and what is expected. The domain's checks come first, so only a
/// defect of ours gets here. A constraint that does not stand here is INTERNAL.
const CONSTRAINTS: [(&str, &str, &str); 2] = [
    ("tasks_limits_check", "title", "must have 1 to 200 characters, the description at most 10000"),
    ("tasks_status_check", "status", "must be one of the four statuses"),
];

/// What an error of the store means to a caller. Logs what is not the caller's doing.
pub fn store_problem(operation: &'static str, error: &TaskStoreError) -> Problem {
    match error {
        TaskStoreError::NotFound => TaskReason::TaskNotFound.into(),
        TaskStoreError::EtagMismatch => TaskReason::EtagMismatch.into(),
        TaskStoreError::TooLarge => TaskReason::MessageTooLarge.into(),
        TaskStoreError::UnknownStatus { .. } | TaskStoreError::SnapshotUnreadable => {
            status::internal_problem(operation, error)
        }
        TaskStoreError::Database(error) => {
            let broken =
                error.constraint().and_then(|name| CONSTRAINTS.iter().find(|(constraint, ..)| *constraint == name));
            match broken {
                Some((_, field, expected)) => Problem::new(TaskReason::InvalidArgument).field(field, expected),
                None => status::database_problem(operation, error),
            }
        }
    }
}

/// The caller lacks `permission`.
pub fn permission_missing(permission: &str) -> Problem {
    Problem::new(TaskReason::PermissionMissing).metadata("permission", permission)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proto::task::v1::ErrorReason;
    use service_kit::status::Reason as _;

    use super::*;

    #[test]
    fn the_table_is_sound_and_documented() {
        assert_eq!(status::table_errors::<TaskReason>(), Vec::<String>::new());
        let documented: BTreeSet<_> =
            (0..100).filter_map(|n| ErrorReason::try_from(n).ok()).map(|r| r.reason()).collect();
        let reasons = TaskReason::all().iter().map(|reason| reason.name());
        let undocumented: Vec<_> = reasons.filter(|name| !documented.contains(name)).collect();
        assert_eq!(undocumented, Vec::<&str>::new(), "describe these in proto/task/v1/error_reason.proto");
    }

    #[test]
    fn store_errors_have_their_reasons() {
        assert_eq!(store_problem("x", &TaskStoreError::NotFound).reason(), TaskReason::TaskNotFound);
        assert_eq!(store_problem("x", &TaskStoreError::EtagMismatch).reason(), TaskReason::EtagMismatch);
        let id = crate::domain::ids::TaskId::new();
        let broken = TaskStoreError::UnknownStatus { id, status: "pending".to_owned() };
        assert_eq!(store_problem("x", &broken).reason(), TaskReason::Internal);
    }
}
