//! The deadline of unary calls: the client's `grpc-timeout`, at most the service's own; answers DEADLINE_EXCEEDED.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::around::{Around, Infallibly};
use super::details::{StackError, domain_of};
use super::{GrpcRequest, GrpcResponse};
use crate::deadline;
use crate::methods::MethodTable;

/// See [`super::stack`].
#[derive(Clone)]
pub(super) struct Enforce {
    pub(super) methods: MethodTable,
    pub(super) default: Duration,
}

impl<S: Infallibly> Around<S> for Enforce {
    async fn around(self, request: GrpcRequest, mut inner: S) -> GrpcResponse {
        let asked = asked_timeout(&request);
        let streaming = self.methods.lookup(request.uri().path()).streaming;
        let timeout = match asked {
            Some(asked) if streaming => asked,
            None if streaming => return inner.answer(request).await,
            asked => asked.unwrap_or(self.default).min(self.default),
        };
        let domain = domain_of(request.uri().path()).to_owned();
        let deadline = Instant::now() + timeout;
        // Dropping the call stops its query as well: see `database::work`.
        match timeout_at(deadline, deadline::scope(deadline, inner.answer(request))).await {
            Ok(response) => response,
            Err(_) => StackError::Deadline.answer(&domain),
        }
    }
}

/// `grpc-timeout`, a little shortened: tonic has a timer of its own on the same header that answers CANCELLED, and an answer that
/// comes just before the client gives up is worth more than one just after.
pub(super) fn asked_timeout(request: &GrpcRequest) -> Option<Duration> {
    let value = request.headers().get("grpc-timeout")?.to_str().ok()?;
    let asked = deadline::parse_grpc_timeout(value)?;
    Some(asked.saturating_sub((asked / 10).min(Duration::from_millis(10))))
}
