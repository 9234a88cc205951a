//! Errors of the stack itself, and ErrorInfo for answers of tonic's own that have none.

use http::HeaderMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::around::{Around, Infallibly};
use super::{GrpcRequest, GrpcResponse};
use crate::status::CommonReason;

/// What the stack itself may answer; the text is constant, the domain is the package of the service that was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StackError {
    /// The deadline passed.
    Deadline,
    /// A panic or a failing layer.
    Internal,
    /// The server drains.
    Draining,
    /// Two `authorization` headers, or one that is no text.
    Authorization,
    /// The message is no message of that type.
    Malformed,
    /// The message is larger than the method's limit.
    TooLarge,
    /// No such method.
    Unimplemented,
}

impl StackError {
    fn parts(self) -> (Code, &'static str, &'static str) {
        let common = |reason: CommonReason| (reason.code(), reason.name(), reason.message());
        match self {
            Self::Deadline => common(CommonReason::DeadlineExceeded),
            Self::Internal => common(CommonReason::Internal),
            Self::Draining => (Code::Unavailable, "UNAVAILABLE", CommonReason::Unavailable.message()),
            Self::Unimplemented => common(CommonReason::NotImplemented),
            Self::Authorization => {
                (Code::Unauthenticated, "AUTHORIZATION_AMBIGUOUS", "Send exactly one authorization header.")
            }
            Self::Malformed => {
                (Code::InvalidArgument, "MALFORMED_MESSAGE", "The request is not a message of this method.")
            }
            Self::TooLarge => {
                (Code::InvalidArgument, "MESSAGE_TOO_LARGE", "The request is larger than this method allows.")
            }
        }
    }

    /// The status in the domain of the service that was called.
    pub(super) fn status(self, domain: &str) -> Status {
        let (code, reason, message) = self.parts();
        let mut details = ErrorDetails::with_error_info(reason, domain, std::collections::HashMap::new());
        if self == Self::Draining {
            details.set_retry_info(Some(std::time::Duration::ZERO));
        }
        Status::with_error_details(code, message, details)
    }

    /// The status as an answer.
    pub(super) fn answer(self, domain: &str) -> GrpcResponse {
        self.status(domain).into_http()
    }
}

/// The proto package of a request path: `/task.v1.TaskService/GetTask` → `task.v1`.
pub(super) fn domain_of(path: &str) -> &str {
    let service = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    service.rsplit_once('.').map_or(service, |(package, _)| package)
}

/// See [`super::stack`].
#[derive(Clone)]
pub(super) struct FillDetails;

impl<S: Infallibly> Around<S> for FillDetails {
    async fn around(self, request: GrpcRequest, mut inner: S) -> GrpcResponse {
        let domain = domain_of(request.uri().path()).to_owned();
        let mut response = inner.answer(request).await;
        if let Some(status) = bare_error(response.headers()) {
            let filled = fill(&status, &domain);
            // Writes grpc-status, grpc-message and grpc-status-details-bin over the bare ones; other headers stay.
            if filled.add_header(response.headers_mut()).is_err() {
                return StackError::Internal.answer(&domain);
            }
        }
        response
    }
}

/// The status of an answer that is an error without details.
fn bare_error(headers: &HeaderMap) -> Option<Status> {
    let status = Status::from_header_map(headers)?;
    (status.code() != Code::Ok && status.details().is_empty()).then_some(status)
}

/// tonic answers INTERNAL to bytes that are no message and OUT_OF_RANGE to too many of them; both are the caller's bad input.
fn fill(bare: &Status, domain: &str) -> Status {
    match bare.code() {
        Code::Internal if bare.message().starts_with("failed to decode Protobuf message") => {
            StackError::Malformed.status(domain)
        }
        Code::OutOfRange if bare.message().contains("message length too large") => StackError::TooLarge.status(domain),
        Code::Unimplemented if bare.message().is_empty() => StackError::Unimplemented.status(domain),
        code => {
            let details = ErrorDetails::with_error_info(code_name(code), domain, std::collections::HashMap::new());
            Status::with_error_details_and_metadata(code, bare.message(), details, bare.metadata().clone())
        }
    }
}

/// UPPER_SNAKE name of a code, as gRPC's documentation writes it; the metrics' label as well.
pub(super) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_domain_is_the_package() {
        assert_eq!(domain_of("/task.v1.TaskService/GetTask"), "task.v1");
        assert_eq!(domain_of("/Plain/X"), "Plain");
        assert_eq!(domain_of(""), "");
    }

    #[test]
    fn bad_input_that_tonic_finds_is_invalid_argument() {
        let code = |status: Status| fill(&status, "x.v1").code();
        assert_eq!(
            code(Status::internal("failed to decode Protobuf message: A.b: invalid wire type")),
            Code::InvalidArgument
        );
        assert_eq!(
            code(Status::out_of_range("Error, decoded message length too large: found 9 bytes")),
            Code::InvalidArgument
        );
        assert_eq!(code(Status::internal("x")), Code::Internal);
        assert_eq!(fill(&Status::not_found("x"), "x.v1").get_error_details().error_info().unwrap().reason, "NOT_FOUND");
    }
}
