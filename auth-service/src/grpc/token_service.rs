//! auth.v1.TokenService.

use std::time::SystemTime;

use auth_client::{Principal, Refusal, Verifier};
use chrono::Utc;
use futures_util::stream;
use proto::auth::v1::token_service_server;
use proto::auth::v1::*;
use service_kit::stack::CallRecord;
use service_kit::status::Reason as _;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::{convert, parse};
use crate::domain::opaque_token::OpaqueToken;
use crate::errors::{AuthReason, Problem, flow_problem};
use crate::flows::Flows;
use crate::revocations::{Follower, Revocations, Step};
use crate::store::introspection::Said;

/// Keys and tokens, for other services.
pub struct TokenService {
    flows: Flows,
    verifier: Verifier,
    revocations: Revocations,
}

impl TokenService {
    /// On these flows; tokens are verified as callers' are.
    pub fn new(flows: Flows, verifier: Verifier, revocations: Revocations) -> Self {
        Self { flows, verifier, revocations }
    }
}

/// A stream of revocations, for as long as the watcher's own token is good.
struct Watch {
    follower: Follower,
    principal: Principal,
}

impl Watch {
    async fn next(&mut self) -> Result<WatchRevocationsResponse, Status> {
        let left = self.principal.expires_at.duration_since(SystemTime::now()).unwrap_or_default();
        let Ok(step) = tokio::time::timeout(left, self.follower.next()).await else {
            return Err(Refusal::TokenExpired.status(AuthReason::DOMAIN));
        };
        let step = step.map_err(|_| Status::from(Problem::new(AuthReason::RevisionUnknown)))?;
        if let Step::Revoked { revocation, .. } = &step
            && revocation.voids(&self.principal)
        {
            return Err(Problem::new(AuthReason::TokenRevoked).into());
        }
        Ok(convert::revocation_step(&step, Utc::now()))
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
        request: Request<WatchRevocationsRequest>,
    ) -> Result<Response<BoxStream<WatchRevocationsResponse>>, Status> {
        let acting = parse::acting(&request)?;
        let after = parse::watch(request.get_ref())?;
        let principal = request.extensions().get::<Principal>().cloned().ok_or(AuthReason::TokenMissing);
        let principal = principal.map_err(Problem::from)?;
        let may = self.flows.may_watch(acting).await;
        may.map_err(|error| flow_problem("watch_revocations", &error))?;
        let watch = Watch { follower: self.revocations.follow(after), principal };
        let steps = stream::unfold(Some(watch), |watch| async {
            let mut watch = watch?;
            match watch.next().await {
                Ok(message) => Some((Ok(message), Some(watch))),
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(Box::pin(steps)))
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
