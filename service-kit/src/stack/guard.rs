//! Header rules that authentication relies on.

use http::header::AUTHORIZATION;

use super::around::{Around, Infallibly};
use super::details::{StackError, domain_of};
use super::{GrpcRequest, GrpcResponse};

/// See [`super::stack`].
#[derive(Clone)]
pub(super) struct GuardHeaders;

impl<S: Infallibly> Around<S> for GuardHeaders {
    async fn around(self, mut request: GrpcRequest, mut inner: S) -> GrpcResponse {
        let mut values = request.headers().get_all(AUTHORIZATION).iter();
        let ambiguous = match (values.next(), values.next()) {
            (Some(_), Some(_)) => true,
            (Some(value), None) => value.to_str().is_err(),
            _ => false,
        };
        if ambiguous {
            return StackError::Authorization.answer(domain_of(request.uri().path()));
        }
        // Debug output of the headers shows `Sensitive` instead of the token.
        if let Some(value) = request.headers_mut().get_mut(AUTHORIZATION) {
            value.set_sensitive(true);
        }
        inner.answer(request).await
    }
}
