//! auth.v1.TokenService.

use auth_client::Verifier;
use chrono::Utc;
use proto::auth::v1::token_service_server;
use proto::auth::v1::*;
use service_kit::stack::CallRecord;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::{convert, parse};
use crate::domain::opaque_token::OpaqueToken;
use crate::errors::{AuthReason, Problem, flow_problem, not_implemented};
use crate::flows::Flows;
use crate::store::introspection::Said;

/// Keys and tokens, for other services.
pub struct TokenService {
    flows: Flows,
    verifier: Verifier,
}

impl TokenService {
    /// On these flows; tokens are verified as callers' are.
    pub fn new(flows: Flows, verifier: Verifier) -> Self {
        Self { flows, verifier }
    }
}

#[tonic::async_trait]
impl token_service_server::TokenService for TokenService {
    /// From memory: other services ask when the database is away, too.
    async fn list_signing_keys(
        &self,
        _: Request<ListSigningKeysRequest>,
    ) -> Result<Response<ListSigningKeysResponse>, Status> {
        let (ring, now) = (self.flows.keys.ring(), Utc::now());
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

    /// A token that is not good, for whatever reason, is answered with `active: false` and nothing else.
    async fn introspect_token(
        &self,
        request: Request<IntrospectTokenRequest>,
    ) -> Result<Response<IntrospectTokenResponse>, Status> {
        let acting = parse::acting(&request)?;
        let token = OpaqueToken::presented(request.into_inner().token);
        let principal = self.verifier.verify(token.reveal()).await.ok();
        let said = principal.as_ref().map(|principal| Said {
            whose: parse::acting_as(principal),
            role: &principal.role,
            permissions: &principal.permissions,
        });
        let good = self.flows.token_is_good(acting, said).await;
        let good = good.map_err(|error| flow_problem("introspect_token", &error))?;
        Ok(Response::new(principal.filter(|_| good).map(convert::introspected).unwrap_or_default()))
    }

    async fn issue_service_token(
        &self,
        request: Request<IssueServiceTokenRequest>,
    ) -> Result<Response<IssueServiceTokenResponse>, Status> {
        let (origin, record) = (parse::origin(&request), request.extensions().get::<CallRecord>().cloned());
        let IssueServiceTokenRequest { client_id, client_secret } = request.into_inner();
        let secret = OpaqueToken::presented(client_secret);
        let issued = self.flows.issue_service_token(&client_id, &secret, &origin).await;
        let issued = issued.map_err(|error| flow_problem("issue_service_token", &error))?;
        if let Some(record) = record {
            record.set_principal(issued.id.to_string());
        }
        Ok(Response::new(convert::service_token(issued)))
    }

    async fn rotate_signing_key(
        &self,
        request: Request<RotateSigningKeyRequest>,
    ) -> Result<Response<RotateSigningKeyResponse>, Status> {
        let (acting, origin) = (parse::acting(&request)?, parse::origin(&request));
        let key = self.flows.rotate_signing_key(acting, &origin).await;
        let key = key.map_err(|error| flow_problem("rotate_signing_key", &error))?;
        Ok(Response::new(RotateSigningKeyResponse { key: Some(convert::signing_key(&key, None, Utc::now())) }))
    }
}
