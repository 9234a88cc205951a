//! The innermost part of the stack: the routes, and in front of them the note of who calls.

use std::convert::Infallible;
use std::task::{Context, Poll};

use tonic::service::Routes;
use tower::Service;

use super::{CallRecord, GrpcRequest, GrpcResponse};

/// Reads the principal's id (no e-mail, no name) from a request's extensions; `None` for an anonymous call.
pub type PrincipalOf = fn(&http::Extensions) -> Option<String>;

/// The routes behind the authentication layer; the service that this layer wraps.
#[derive(Clone)]
pub struct Authenticated {
    routes: Routes,
    principal: PrincipalOf,
}

impl Authenticated {
    pub(super) fn new(routes: Routes, principal: PrincipalOf) -> Self {
        Self { routes: routes.prepare(), principal }
    }
}

impl Service<GrpcRequest> for Authenticated {
    type Response = GrpcResponse;
    type Error = Infallible;
    type Future = <Routes as Service<GrpcRequest>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<GrpcRequest>::poll_ready(&mut self.routes, cx)
    }

    fn call(&mut self, request: GrpcRequest) -> Self::Future {
        if let Some(record) = request.extensions().get::<CallRecord>()
            && let Some(principal) = (self.principal)(request.extensions())
        {
            record.set_principal(principal);
        }
        self.routes.call(request)
    }
}
