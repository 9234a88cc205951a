//! Checks the whole of an error: code, `google.rpc.ErrorInfo`, the fields of `google.rpc.BadRequest`, `google.rpc.RetryInfo`.

use std::fmt::Debug;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// What a refused call answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status code.
    pub code: Code,
    /// Reason of ErrorInfo.
    pub reason: String,
    /// Domain of ErrorInfo.
    pub domain: String,
    /// The fields that BadRequest names, in order.
    pub fields: Vec<String>,
    /// The pause that RetryInfo asks for.
    pub retry_after: Option<Duration>,
    /// The public text.
    pub message: String,
}

impl Refusal {
    /// Reads a status; panics when it carries no ErrorInfo, as every error must.
    pub fn of(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().unwrap_or_else(|| panic!("a status without ErrorInfo: {status:?}"));
        Self {
            code: status.code(),
            reason: info.reason.clone(),
            domain: info.domain.clone(),
            fields: details
                .bad_request()
                .map(|bad| bad.field_violations.iter().map(|violation| violation.field.clone()).collect())
                .unwrap_or_default(),
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
            message: status.message().to_owned(),
        }
    }
}

/// Checks that a call was refused with this code and reason; answers the rest for further checks.
#[track_caller]
pub fn assert_refused<T: Debug>(answer: Result<T, Status>, code: Code, reason: &str) -> Refusal {
    let status = match answer {
        Err(status) => status,
        Ok(answer) => panic!("expected {code:?} {reason}, but the call succeeded: {answer:?}"),
    };
    let refusal = Refusal::of(&status);
    assert_eq!((refusal.code, refusal.reason.as_str()), (code, reason), "{status:?}");
    if matches!(code, Code::Unavailable | Code::ResourceExhausted) {
        assert!(refusal.retry_after.is_some(), "{code:?} must say when to try again: {status:?}");
    }
    if code == Code::InvalidArgument && reason == "VALIDATION_FAILED" {
        assert!(!refusal.fields.is_empty(), "bad input must name the field: {status:?}");
    }
    refusal
}
