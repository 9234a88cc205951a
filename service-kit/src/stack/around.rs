//! The shape of every layer of the stack: an async function around the call.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tonic::codegen::StdError;
use tower::{Layer, Service};

use super::{GrpcRequest, GrpcResponse};

/// What a layer does around a call.
pub(super) trait Around<S>: Clone + Send + 'static {
    /// Calls `inner` at most once and gives the answer. `inner` is ready.
    fn around(self, request: GrpcRequest, inner: S) -> impl Future<Output = GrpcResponse> + Send;
}

/// Makes a tower layer of an [`Around`].
#[derive(Clone)]
pub(super) struct AroundLayer<A>(pub(super) A);

/// A service with an [`Around`] around it.
#[derive(Clone)]
pub(super) struct AroundService<A, S> {
    around: A,
    inner: S,
}

impl<A: Clone, S> Layer<S> for AroundLayer<A> {
    type Service = AroundService<A, S>;

    fn layer(&self, inner: S) -> Self::Service {
        AroundService { around: self.0.clone(), inner }
    }
}

impl<A, S> Service<GrpcRequest> for AroundService<A, S>
where
    A: Around<S>,
    S: Service<GrpcRequest> + Clone + Send + 'static,
{
    type Response = GrpcResponse;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<GrpcResponse, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // An inner service that is broken says so in its call, where it can be turned into an answer.
        self.inner.poll_ready(cx).map(|_| Ok(()))
    }

    fn call(&mut self, request: GrpcRequest) -> Self::Future {
        // The clone takes the place of the one that is ready, as tower's contract asks.
        let clone = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, clone);
        let around = self.around.clone();
        Box::pin(async move { Ok(around.around(request, ready).await) })
    }
}

/// A service whose errors are answers already.
pub(super) trait Infallibly:
    Service<GrpcRequest, Response = GrpcResponse, Error = Infallible, Future: Send> + Send + 'static
{
    /// Calls it.
    fn answer(&mut self, request: GrpcRequest) -> impl Future<Output = GrpcResponse> + Send {
        let answer = self.call(request);
        async move {
            match answer.await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        }
    }
}

impl<S> Infallibly for S where
    S: Service<GrpcRequest, Response = GrpcResponse, Error = Infallible, Future: Send> + Send + 'static
{
}

/// Turns an error of the service below into an answer.
#[derive(Clone)]
pub(super) struct Recover;

impl<S> Around<S> for Recover
where
    S: Service<GrpcRequest, Response = GrpcResponse, Error: Into<StdError>, Future: Send> + Send + 'static,
{
    async fn around(self, request: GrpcRequest, mut inner: S) -> GrpcResponse {
        let domain = super::details::domain_of(request.uri().path()).to_owned();
        let answer = inner.call(request);
        match answer.await {
            Ok(response) => response,
            Err(error) => {
                let error: StdError = error.into();
                match tonic::Status::try_from_error(error) {
                    Ok(status) => status.into_http(),
                    Err(error) => {
                        tracing::error!(error = %error, "a layer failed");
                        super::details::StackError::Internal.answer(&domain)
                    }
                }
            }
        }
    }
}
