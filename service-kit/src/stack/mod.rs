//! The one tower stack, built in one function. Read [`stack`] from top to bottom: a request passes the layers in that order, the
//! answer in the reverse one.

mod around;
mod deadline;
mod details;
mod guard;
mod observe;
mod panics;
mod principal;
mod request_id;
mod stream;

use std::convert::Infallible;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::service::Routes;
use tower::{Layer, Service, ServiceBuilder};

use crate::methods::MethodTable;

pub use observe::CallRecord;
#[cfg(test)]
pub(crate) use observe::call_span;
pub use principal::{Authenticated, PrincipalOf};
pub use request_id::RequestId;

use around::AroundLayer;

/// A request as the stack sees it.
pub type GrpcRequest = http::Request<Body>;
/// An answer as the stack sees it.
pub type GrpcResponse = http::Response<Body>;

/// Deadline of a unary call whose client set none, and the longest a client may ask for.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);

/// What the stack needs to know of the service.
#[derive(Clone)]
pub struct StackOptions {
    /// The RPCs that exist.
    pub methods: MethodTable,
    /// Deadline of unary calls without `grpc-timeout`, and the upper bound of it.
    pub default_deadline: Duration,
    /// Reads the principal's id from the request's extensions, after the authentication layer has put it there.
    pub principal: PrincipalOf,
    /// Cancelled when the server drains: open streams then end with UNAVAILABLE.
    pub draining: CancellationToken,
}

/// Builds the stack around `routes`. `auth` is the authentication layer; `tower::layer::util::Identity` for none.
pub fn stack<L>(
    options: &StackOptions,
    auth: &L,
    routes: Routes,
) -> impl Service<GrpcRequest, Response = GrpcResponse, Error = Infallible, Future: Send> + Clone + Send + 'static
where
    L: Layer<Authenticated>,
    L::Service: Service<GrpcRequest, Response = GrpcResponse, Error: Into<tonic::codegen::StdError>, Future: Send>
        + Clone
        + Send
        + 'static,
{
    let authenticated = Authenticated::new(routes, options.principal);
    ServiceBuilder::new()
        // Outermost, so that every answer carries the id, also one that a layer below gives.
        .layer(AroundLayer(request_id::AssignRequestId))
        // Next, so that log line and metrics tell what the client gets, whichever layer answered, and how long all of it took.
        .layer(AroundLayer(observe::Observe { methods: options.methods.clone() }))
        // Below the log, above all that can fail: no error leaves without ErrorInfo, and the log shows the code as sent.
        .layer(AroundLayer(details::FillDetails))
        // Below whatever reports, so that a panic is reported; above whatever may panic.
        .layer(AroundLayer(panics::CatchPanic))
        // Streams outlive the call's future; their bodies are bounded here, above the deadline of unary calls.
        .layer(AroundLayer(stream::BoundStream {
            methods: options.methods.clone(),
            draining: options.draining.clone(),
        }))
        // Above authentication: waiting for keys counts as well.
        .layer(AroundLayer(deadline::Enforce { methods: options.methods.clone(), default: options.default_deadline }))
        // Right above authentication, which must never have to choose between two tokens.
        .layer(AroundLayer(guard::GuardHeaders))
        // A layer from outside may fail in ways that the stack has no type for; from here on errors are answers.
        .layer(AroundLayer(around::Recover))
        // Innermost: the handlers see a verified principal or are not called.
        .service(auth.layer(authenticated))
}
