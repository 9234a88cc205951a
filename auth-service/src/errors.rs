//! The errors of auth.v1: one table of reasons. Which error type where:
//!
//! - `domain` has an error per rule; `store` says [`service_kit::database::DatabaseError`];
//! - `flows` says [`FlowError`], which carries the others;
//! - `grpc` turns that into a [`Problem`], here, and that into a status. Public text is constant.
//!
//! Reasons that the access layer answers before a handler is reached stand in `auth_client::Refusal`.

use std::time::Duration;

use chrono::{DateTime, Utc};
use service_kit::status;

use crate::domain::password::HashingBusy;
use crate::flows::FlowError;
use crate::store::ChangeError;

service_kit::reasons! {
    /// Why a call failed, as `google.rpc.ErrorInfo.reason`; documented for callers in `auth/v1/error_reason.proto`.
    pub enum AuthReason("auth.v1") {
        /// Login and password do not fit; never which of the two.
        CredentialsInvalid = "CREDENTIALS_INVALID", Unauthenticated, "Login or password is wrong.";
        /// Too many failures: the attempt was not looked at.
        SignInThrottled = "SIGN_IN_THROTTLED", ResourceExhausted, "Too many failed attempts. Try again later, or reset the password.";
        /// The refresh token is unknown, used, expired or revoked.
        RefreshTokenInvalid = "REFRESH_TOKEN_INVALID", Unauthenticated, "The refresh token is not valid. Sign in again.";
        /// No verified caller where there must be one: the access layer is not in place.
        TokenMissing = "TOKEN_MISSING", Unauthenticated, "Send an access token.";
        /// The session or the account behind the token is gone.
        TokenRevoked = "TOKEN_REVOKED", Unauthenticated, "The token is void. Refresh it, or sign in again.";
        /// The token from a mail is unknown, used, expired or replaced.
        MailTokenInvalid = "MAIL_TOKEN_INVALID", InvalidArgument, "The token is not valid, or not any more. Ask for a new mail.";
        /// Another account has the e-mail address.
        EmailTaken = "EMAIL_TAKEN", AlreadyExists, "Another account has this e-mail address.";
        /// Another account has the user name.
        UsernameTaken = "USERNAME_TAKEN", AlreadyExists, "Another account has this user name.";
        /// Another account has the id.
        UserIdTaken = "USER_ID_TAKEN", AlreadyExists, "Another account has this id.";
        /// No such account.
        UserNotFound = "USER_NOT_FOUND", NotFound, "There is no such user.";
        /// No such session of the caller.
        SessionNotFound = "SESSION_NOT_FOUND", NotFound, "You have no such session.";
        /// No such role.
        RoleNotFound = "ROLE_NOT_FOUND", NotFound, "There is no such role.";
        /// Another role has the name.
        RoleNameTaken = "ROLE_NAME_TAKEN", AlreadyExists, "Another role has this name.";
        /// No such service account.
        ServiceAccountNotFound = "SERVICE_ACCOUNT_NOT_FOUND", NotFound, "There is no such service account.";
        /// Another service account has the name.
        ServiceAccountNameTaken = "SERVICE_ACCOUNT_NAME_TAKEN", AlreadyExists, "Another service account has this name.";
        /// A system role cannot be changed so.
        RoleIsSystem = "ROLE_IS_SYSTEM", FailedPrecondition, "System roles cannot be renamed, deactivated or deleted.";
        /// Accounts have the role.
        RoleInUse = "ROLE_IN_USE", FailedPrecondition, "Users have the role. Assign them another one first.";
        /// The role was deactivated.
        RoleInactive = "ROLE_INACTIVE", FailedPrecondition, "The role is inactive and cannot be assigned.";
        /// Nobody could administrate any more.
        LastAdministrator = "LAST_ADMINISTRATOR", FailedPrecondition, "It would leave no active administrator.";
        /// Not, or not any more, among the caller's permissions.
        PermissionMissing = "PERMISSION_MISSING", PermissionDenied, "You lack a permission for this.";
        /// Not a token of this list.
        PageTokenInvalid = "PAGE_TOKEN_INVALID", InvalidArgument, "The page token does not belong to this list.";
        /// Revocations cannot be followed from there.
        RevisionUnknown = "REVISION_UNKNOWN", OutOfRange, "The revision is not known here. Watch again from 0.";
        /// This installation takes no new accounts from outside.
        SignUpClosed = "SIGN_UP_CLOSED", PermissionDenied, "New accounts are made by an administrator here.";
        /// Too many calls of a kind at a time.
        RateLimited = "RATE_LIMITED", ResourceExhausted, "Too many calls. Try again.";
        /// Too many passwords are being checked.
        HashingBusy = "HASHING_BUSY", ResourceExhausted, "Too many passwords are being checked. Try again.";
        /// Nothing to sign with, yet.
        KeysUnavailable = "KEYS_UNAVAILABLE", Unavailable, "Tokens cannot be signed at the moment. Try again.";
    }
}

/// An error on its way to the client.
pub type Problem = status::Problem<AuthReason>;

/// When to come back while there are no keys: they are looked for every second.
const KEYS_RETRY: Duration = Duration::from_secs(2);

/// What a failed flow means to a caller. Logs what is not the caller's doing.
pub fn flow_problem(operation: &'static str, error: &FlowError) -> Problem {
    match error {
        FlowError::CredentialsRefused => AuthReason::CredentialsInvalid.into(),
        FlowError::RefreshTokenRefused => AuthReason::RefreshTokenInvalid.into(),
        FlowError::CallerGone => AuthReason::TokenRevoked.into(),
        FlowError::SignUpClosed => AuthReason::SignUpClosed.into(),
        FlowError::EmailTaken => {
            Problem::new(AuthReason::EmailTaken).field("email", "expected an address that no account has")
        }
        FlowError::UsernameTaken => {
            Problem::new(AuthReason::UsernameTaken).field("username", "expected a name that no account has")
        }
        FlowError::NewPassword(problem) => {
            Problem::new(AuthReason::InvalidArgument).field("new_password", problem.to_string())
        }
        FlowError::Change(error) => change_problem(operation, error),
        FlowError::Hashing(HashingBusy::Full { retry_after }) => {
            Problem::new(AuthReason::HashingBusy).retry_after(*retry_after)
        }
        FlowError::RateLimited => Problem::new(AuthReason::RateLimited).retry_after(KEYS_RETRY),
        FlowError::Keys(_) => Problem::new(AuthReason::KeysUnavailable).retry_after(KEYS_RETRY),
        FlowError::Hashing(HashingBusy::Gone) | FlowError::Crypto(_) | FlowError::StoredKeys(_) => {
            status::internal_problem(operation, error)
        }
        FlowError::Database(error) => status::database_problem(operation, error),
    }
}

/// What a change that was not made means to a caller.
pub fn change_problem(operation: &'static str, error: &ChangeError) -> Problem {
    match error {
        ChangeError::CallerGone => AuthReason::TokenRevoked.into(),
        ChangeError::PermissionMissing(permission) => {
            Problem::new(AuthReason::PermissionMissing).metadata("permission", permission)
        }
        ChangeError::UserNotFound => AuthReason::UserNotFound.into(),
        ChangeError::UserIdTaken => {
            Problem::new(AuthReason::UserIdTaken).field("id", "expected an id that no account has")
        }
        ChangeError::SessionNotFound => AuthReason::SessionNotFound.into(),
        ChangeError::RoleNotFound => AuthReason::RoleNotFound.into(),
        ChangeError::RoleInactive => AuthReason::RoleInactive.into(),
        ChangeError::RoleNameTaken => {
            Problem::new(AuthReason::RoleNameTaken).field("name", "expected a name that no role has")
        }
        ChangeError::RoleIsSystem => AuthReason::RoleIsSystem.into(),
        ChangeError::RoleInUse => AuthReason::RoleInUse.into(),
        ChangeError::LastAdministrator => AuthReason::LastAdministrator.into(),
        ChangeError::ServiceAccountNotFound => AuthReason::ServiceAccountNotFound.into(),
        ChangeError::ServiceAccountNameTaken => Problem::new(AuthReason::ServiceAccountNameTaken)
            .field("name", "expected a name that no service account has"),
        ChangeError::MailTokenInvalid => Problem::new(AuthReason::MailTokenInvalid)
            .field("token", "expected the token of the newest mail, within one hour"),
        ChangeError::Throttled(until) => Problem::new(AuthReason::SignInThrottled).retry_after(wait_until(*until)),
        ChangeError::TooManyChanges(until) => Problem::new(AuthReason::RateLimited).retry_after(wait_until(*until)),
        // Answered by who asked for it.
        ChangeError::DryRun => status::internal_problem(operation, error),
        ChangeError::Stale => AuthReason::CredentialsInvalid.into(),
        ChangeError::Database(error) => status::database_problem(operation, error),
    }
}

/// The token of a page does not open.
pub fn page_token_problem() -> Problem {
    let expected = "expected the next_page_token of the same list: same caller, filters and order";
    Problem::new(AuthReason::PageTokenInvalid).field("page_token", expected)
}

/// In whole seconds, rounded up: who comes back then is let in.
fn wait_until(time: DateTime<Utc>) -> Duration {
    Duration::from_secs((time - Utc::now()).to_std().unwrap_or_default().as_secs() + 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use service_kit::status::Reason as _;

    use super::*;

    #[test]
    fn the_table_is_sound_and_documented() {
        assert_eq!(status::table_errors::<AuthReason>(), Vec::<String>::new());
        let documented: BTreeSet<_> =
            (0..100).filter_map(|n| proto::auth::v1::ErrorReason::try_from(n).ok()).map(|r| r.reason()).collect();
        let undocumented: Vec<_> =
            AuthReason::all().iter().map(|reason| reason.name()).filter(|name| !documented.contains(name)).collect();
        assert_eq!(undocumented, Vec::<&str>::new(), "describe these in proto/auth/v1/error_reason.proto");
    }

    #[test]
    fn flow_errors_have_their_reasons() {
        let reason = |error| flow_problem("x", &error).reason();
        assert_eq!(reason(FlowError::CredentialsRefused), AuthReason::CredentialsInvalid);
        assert_eq!(reason(FlowError::EmailTaken), AuthReason::EmailTaken);
        assert_eq!(reason(FlowError::Hashing(HashingBusy::Full { retry_after: KEYS_RETRY })), AuthReason::HashingBusy);
        assert_eq!(reason(FlowError::Hashing(HashingBusy::Gone)), AuthReason::Internal);
    }
}
