//! Bounds of response streams: a stream ends with UNAVAILABLE when the server drains, with DEADLINE_EXCEEDED when the client's own
//! deadline passes, with INTERNAL when it panics. Unary answers pass untouched.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::HttpBody;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use tonic::body::Body;

use super::around::{Around, Infallibly};
use super::details::{StackError, domain_of};
use super::{GrpcRequest, GrpcResponse};
use crate::methods::MethodTable;

/// See [`super::stack`].
#[derive(Clone)]
pub(super) struct BoundStream {
    pub(super) methods: MethodTable,
    pub(super) draining: CancellationToken,
}

impl<S: Infallibly> Around<S> for BoundStream {
    async fn around(self, request: GrpcRequest, mut inner: S) -> GrpcResponse {
        if !self.methods.lookup(request.uri().path()).streaming {
            return inner.answer(request).await;
        }
        let domain = domain_of(request.uri().path()).to_owned();
        let deadline = super::deadline::asked_timeout(&request).map(|asked| Box::pin(tokio::time::sleep(asked)));
        let response = inner.answer(request).await;
        if response.headers().contains_key(Status::GRPC_STATUS) {
            return response;
        }
        let draining = Box::pin(self.draining.cancelled_owned());
        response.map(|body| Body::new(BoundedBody { inner: Some(body), draining, deadline, domain }))
    }
}

struct BoundedBody {
    /// `None` once the stream was ended from here.
    inner: Option<Body>,
    draining: Pin<Box<WaitForCancellationFutureOwned>>,
    deadline: Option<Pin<Box<Sleep>>>,
    domain: String,
}

impl BoundedBody {
    /// Ends the stream: drops what feeds it and gives the trailers.
    fn end(&mut self, error: StackError) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.inner = None;
        let status = error.status(&self.domain);
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }
}

impl HttpBody for BoundedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        // What is ready is sent before any bound is looked at; the body is dropped after a panic.
        match std::panic::catch_unwind(AssertUnwindSafe(|| Pin::new(inner).poll_frame(cx))) {
            Ok(Poll::Pending) => {}
            Ok(ready) => return ready,
            Err(_) => {
                tracing::error!(domain = self.domain, "a response stream panicked");
                return self.end(StackError::Internal);
            }
        }
        if self.draining.as_mut().poll(cx).is_ready() {
            return self.end(StackError::Draining);
        }
        if self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready()) {
            return self.end(StackError::Deadline);
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}
