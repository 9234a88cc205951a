//! auth.v1.TokenService.

use chrono::Utc;
use proto::auth::v1::token_service_server;
use proto::auth::v1::*;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::convert;
use crate::errors::{AuthReason, Problem, not_implemented};
use crate::keys::Keys;

/// Keys and tokens, for other services.
pub struct TokenService {
    keys: Keys,
}

impl TokenService {
    /// On these keys.
    pub fn new(keys: Keys) -> Self {
        Self { keys }
    }
}

#[tonic::async_trait]
impl token_service_server::TokenService for TokenService {
    /// From memory: other services ask when the database is away, too.
    async fn list_signing_keys(
        &self,
        _: Request<ListSigningKeysRequest>,
    ) -> Result<Response<ListSigningKeysResponse>, Status> {
        let (ring, now) = (self.keys.ring(), Utc::now());
        let signing = ring.signing(now).map(|key| key.stored.kid.as_str());
        let keys: Vec<_> = ring.published(now).map(|key| convert::signing_key(key, signing, now)).collect();
        if keys.is_empty() {
            return Err(Problem::new(AuthReason::KeysUnavailable)
                .retry_after(std::time::Duration::from_secs(1))
                .into());
        }
        Ok(Response::new(ListSigningKeysResponse { keys }))
    }

    async fn watch_revocations(
        &self,
        _: Request<WatchRevocationsRequest>,
    ) -> Result<Response<BoxStream<WatchRevocationsResponse>>, Status> {
        not_implemented()
    }

    async fn introspect_token(
        &self,
        _: Request<IntrospectTokenRequest>,
    ) -> Result<Response<IntrospectTokenResponse>, Status> {
        not_implemented()
    }

    async fn issue_service_token(
        &self,
        _: Request<IssueServiceTokenRequest>,
    ) -> Result<Response<IssueServiceTokenResponse>, Status> {
        not_implemented()
    }

    async fn rotate_signing_key(
        &self,
        _: Request<RotateSigningKeyRequest>,
    ) -> Result<Response<RotateSigningKeyResponse>, Status> {
        not_implemented()
    }
}
