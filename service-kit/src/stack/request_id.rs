//! `x-request-id`: taken from the caller when it is well formed, made otherwise, and always sent back.

use http::HeaderValue;
use uuid::Uuid;

use super::around::{Around, Infallibly};
use super::{GrpcRequest, GrpcResponse};

/// Name of the header.
const HEADER: &str = "x-request-id";

/// Longest id that is taken from a caller.
const MAX_LENGTH: usize = 64;

/// The id of the request at hand, in its extensions. Handlers pass it on to other services and into audit rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The id as text: 1 to 64 characters of letters, digits, `-`, `_`, `.`, `:`.
    pub fn as_str(&self) -> &str {
        // Checked when it was taken; made ids are UUIDs.
        self.0.to_str().unwrap_or_default()
    }

    fn accept(value: &HeaderValue) -> Option<Self> {
        let bytes = value.as_bytes();
        let well_formed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
        ((1..=MAX_LENGTH).contains(&bytes.len()) && bytes.iter().all(well_formed)).then(|| Self(value.clone()))
    }

    fn make() -> Self {
        let text = Uuid::now_v7().to_string();
        Self(HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("none")))
    }
}

/// See [`super::stack`].
#[derive(Clone)]
pub(super) struct AssignRequestId;

impl<S: Infallibly> Around<S> for AssignRequestId {
    async fn around(self, mut request: GrpcRequest, mut inner: S) -> GrpcResponse {
        let id = request.headers().get(HEADER).and_then(RequestId::accept).unwrap_or_else(RequestId::make);
        request.headers_mut().insert(HEADER, id.0.clone());
        request.extensions_mut().insert(id.clone());
        let mut response = inner.answer(request).await;
        response.headers_mut().insert(HEADER, id.0);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_ids_are_taken() {
        for good in ["a", "0193-x_y.z:1"] {
            assert!(RequestId::accept(&HeaderValue::from_static(good)).is_some());
        }
        let long = HeaderValue::try_from("a".repeat(65)).unwrap();
        for bad in
            [HeaderValue::from_static(""), HeaderValue::from_static("a b"), HeaderValue::from_static("\"x\""), long]
        {
            assert!(RequestId::accept(&bad).is_none());
        }
        assert_eq!(RequestId::make().as_str().len(), 36);
    }
}
