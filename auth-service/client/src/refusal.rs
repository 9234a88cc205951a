//! Why a call was refused before it reached a handler, and the gRPC status that says so.
//! The reasons are those of `auth.v1.ErrorReason` and `task.v1.ErrorReason`; every text is constant.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::verifier::TokenError;

/// When a caller may try again after the keys were missing: the background task fetches every few seconds then.
const NO_KEYS_RETRY: Duration = Duration::from_secs(2);

/// Why a call was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No `authorization` metadata, more than one, or not of the scheme Bearer.
    TokenMissing,
    /// The token is not one of ours; why goes to the log only.
    TokenInvalid(&'static str),
    /// The token was ours, and its time is over.
    TokenExpired,
    /// The token was ours and in its time; session, user or role behind it was ended or changed.
    TokenRevoked,
    /// The caller lacks this permission.
    PermissionMissing(String),
    /// There are no keys to check a token with.
    KeysUnavailable,
    /// What is revoked has not been heard for too long to let anybody change anything.
    RevocationsUnknown,
    /// No such RPC in our packages.
    UnknownMethod,
}

impl Refusal {
    /// The reason in `google.rpc.ErrorInfo` of an API with this domain.
    pub fn reason(&self, domain: &str) -> &'static str {
        match self {
            Self::TokenMissing => "TOKEN_MISSING",
            Self::TokenInvalid(_) => "TOKEN_INVALID",
            Self::TokenExpired => "TOKEN_EXPIRED",
            Self::TokenRevoked => "TOKEN_REVOKED",
            Self::PermissionMissing(_) => "PERMISSION_MISSING",
            // For auth-service the keys are its own, for everybody else they are auth-service's.
            Self::KeysUnavailable if domain == "auth.v1" => "KEYS_UNAVAILABLE",
            Self::KeysUnavailable | Self::RevocationsUnknown => "AUTH_UNAVAILABLE",
            Self::UnknownMethod => "NOT_IMPLEMENTED",
        }
    }

    /// The status for a client; `domain` is the answering API's, as in `task.v1`.
    pub fn status(&self, domain: &str) -> Status {
        let (code, text) = match self {
            Self::TokenMissing => {
                (Code::Unauthenticated, "Expected exactly one metadata entry \"authorization: Bearer <access token>\".")
            }
            Self::TokenInvalid(_) => (Code::Unauthenticated, "The access token is not valid. Sign in."),
            Self::TokenExpired => (Code::Unauthenticated, "The access token has expired. Refresh it."),
            Self::TokenRevoked => (Code::Unauthenticated, "The token is void. Refresh it, or sign in again."),
            Self::PermissionMissing(_) => (Code::PermissionDenied, "The caller lacks the permission for this call."),
            Self::KeysUnavailable => (Code::Unavailable, "Tokens cannot be checked at the moment. Try again."),
            Self::RevocationsUnknown => {
                (Code::Unavailable, "Nothing can be changed while revocations do not arrive. Try again.")
            }
            Self::UnknownMethod => (Code::Unimplemented, "There is no such RPC."),
        };
        let metadata = match self {
            Self::PermissionMissing(permission) => HashMap::from([("permission".to_owned(), permission.clone())]),
            _ => HashMap::new(),
        };
        let mut details = ErrorDetails::with_error_info(self.reason(domain), domain, metadata);
        if matches!(self, Self::KeysUnavailable | Self::RevocationsUnknown) {
            details.set_retry_info(Some(NO_KEYS_RETRY));
        }
        Status::with_error_details(code, text, details)
    }
}

impl From<TokenError> for Refusal {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Expired => Self::TokenExpired,
            TokenError::Revoked => Self::TokenRevoked,
            TokenError::NoKeys => Self::KeysUnavailable,
            TokenError::Invalid(why) => Self::TokenInvalid(why),
            TokenError::UnknownKey => Self::TokenInvalid("the kid is not a published key"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_sentences() {
        let all = [
            Refusal::TokenMissing,
            Refusal::TokenInvalid("why"),
            Refusal::TokenExpired,
            Refusal::TokenRevoked,
            Refusal::RevocationsUnknown,
            Refusal::PermissionMissing("tasks.read".to_owned()),
            Refusal::KeysUnavailable,
            Refusal::UnknownMethod,
        ];
        for refusal in all {
            let status = refusal.status("task.v1");
            let text = status.message();
            assert!(text.starts_with(char::is_uppercase) && text.ends_with('.'), "{text}");
        }
    }
}
