//! A panic in a handler is that call's INTERNAL, not the connection's end.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;

use super::around::{Around, Infallibly};
use super::details::{StackError, domain_of};
use super::{GrpcRequest, GrpcResponse};

/// See [`super::stack`].
#[derive(Clone)]
pub(super) struct CatchPanic;

impl<S: Infallibly> Around<S> for CatchPanic {
    async fn around(self, request: GrpcRequest, mut inner: S) -> GrpcResponse {
        let path = request.uri().path().to_owned();
        // The service is this call's own clone; nothing sees it after a panic.
        match AssertUnwindSafe(async move { inner.answer(request).await }).catch_unwind().await {
            Ok(response) => response,
            Err(_) => {
                tracing::error!(path, "a handler panicked");
                StackError::Internal.answer(domain_of(&path))
            }
        }
    }
}
