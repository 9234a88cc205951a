//! The reasons of errors as they go over the wire.

use crate::{auth, task};

/// What stands before the name of each reason in the enum, as buf's rules want it, and not in `ErrorInfo.reason`.
const PREFIX: &str = "ERROR_REASON_";

fn without_prefix(name: &'static str) -> &'static str {
    name.strip_prefix(PREFIX).unwrap_or(name)
}

impl auth::v1::ErrorReason {
    /// The `reason` of `google.rpc.ErrorInfo` with the domain `auth.v1`, as in "CREDENTIALS_INVALID".
    pub fn reason(&self) -> &'static str {
        without_prefix(self.as_str_name())
    }
}

impl task::v1::ErrorReason {
    /// The `reason` of `google.rpc.ErrorInfo` with the domain `task.v1`, as in "TASK_NOT_FOUND".
    pub fn reason(&self) -> &'static str {
        without_prefix(self.as_str_name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_sent_without_their_prefix() {
        assert_eq!(auth::v1::ErrorReason::CredentialsInvalid.reason(), "CREDENTIALS_INVALID");
        assert_eq!(task::v1::ErrorReason::TaskNotFound.reason(), "TASK_NOT_FOUND");
    }
}
