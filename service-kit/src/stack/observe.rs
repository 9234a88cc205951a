//! One log line and one set of metrics per RPC, whoever answered it and however it ended.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::HttpBody;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};
use tracing::Instrument as _;

use super::around::{Around, Infallibly};
use super::details::code_name;
use super::{GrpcRequest, GrpcResponse, RequestId};
use crate::methods::{Method, MethodTable};

/// What the layers and the handler note about a call for its log line; in the request's extensions. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct CallRecord {
    principal: Arc<OnceLock<String>>,
}

impl CallRecord {
    /// Notes who calls: an id, never an e-mail or a name. The first note counts; a sign-in notes whom it signed in.
    pub fn set_principal(&self, id: impl Into<String>) {
        let _ = self.principal.set(id.into());
    }

    /// Who calls, as noted.
    pub fn principal(&self) -> Option<&str> {
        self.principal.get().map(String::as_str)
    }
}

/// See [`super::stack`].
#[derive(Clone)]
pub(super) struct Observe {
    pub(super) methods: MethodTable,
}

impl<S: Infallibly> Around<S> for Observe {
    async fn around(self, mut request: GrpcRequest, mut inner: S) -> GrpcResponse {
        let method = self.methods.lookup(request.uri().path()).clone();
        let request_id = request.extensions().get::<RequestId>().map(|id| id.as_str().to_owned()).unwrap_or_default();
        let record = CallRecord::default();
        request.extensions_mut().insert(record.clone());
        let span = call_span(&request_id, &method.service, &method.method);
        let mut call = Call { method, request_id, record, started: Instant::now(), told: false };
        let response = inner.answer(request).instrument(span.clone()).await;
        match Status::from_header_map(response.headers()) {
            // An answer without a message: the status stands in the headers.
            Some(status) => {
                call.tell(status.code());
                response
            }
            None => response.map(|body| Body::new(ObservedBody { inner: body, call, span })),
        }
    }
}

/// What every log line inside a call carries. Of the level ERROR, so that a filter for errors only keeps it.
pub(crate) fn call_span(request_id: &str, service: &str, method: &str) -> tracing::Span {
    tracing::error_span!("rpc", request_id, service, method)
}

/// A call that has not been told of yet. Dropped untold, its client went away.
struct Call {
    method: Method,
    request_id: String,
    record: CallRecord,
    started: Instant,
    told: bool,
}

impl Call {
    fn tell(&mut self, code: Code) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        let elapsed = self.started.elapsed();
        let (service, method, code_name) = (&self.method.service, &self.method.method, code_name(code));
        metrics::counter!("grpc_server_requests_total", "service" => Arc::clone(service), "method" => Arc::clone(method), "code" => code_name)
            .increment(1);
        metrics::histogram!("grpc_server_request_duration_seconds", "service" => Arc::clone(service), "method" => Arc::clone(method))
            .record(elapsed);
        let duration_ms = (elapsed.as_secs_f64() * 1e6).round() / 1e3;
        let principal = self.record.principal();
        let request_id = self.request_id.as_str();
        // Probes and scrapes would drown the rest.
        if &**service == "grpc.health.v1.Health" {
            tracing::debug!(
                service = &**service,
                method = &**method,
                code = code_name,
                duration_ms,
                request_id,
                principal,
                "rpc"
            );
        } else {
            tracing::info!(
                service = &**service,
                method = &**method,
                code = code_name,
                duration_ms,
                request_id,
                principal,
                "rpc"
            );
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.tell(Code::Cancelled);
    }
}

/// A body that waits for the status in the trailers.
struct ObservedBody {
    inner: Body,
    call: Call,
    span: tracing::Span,
}

impl HttpBody for ObservedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Self { inner, span, .. } = &mut *self;
        let polled = span.in_scope(|| Pin::new(inner).poll_frame(cx));
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(status) = frame.trailers_ref().and_then(Status::from_header_map) {
                    self.call.tell(status.code());
                }
            }
            Poll::Ready(Some(Err(status))) => self.call.tell(status.code()),
            Poll::Ready(None) => self.call.tell(Code::Unknown),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
