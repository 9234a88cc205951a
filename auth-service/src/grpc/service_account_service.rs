//! auth.v1.ServiceAccountService.

use std::sync::Arc;

use proto::auth::v1::service_account_service_server;
use proto::auth::v1::*;
use proto::time::from_utc;
use service_kit::page_token::{Bound, PageTokens};
use tonic::{Request, Response, Status};

use super::{convert, page, parse};
use crate::errors::flow_problem;
use crate::flows::Flows;

/// Accounts of programs.
pub struct ServiceAccountService {
    flows: Flows,
    page_tokens: Arc<PageTokens>,
}

impl ServiceAccountService {
    /// On these flows, with page tokens of this key.
    pub fn new(flows: Flows, page_tokens: Arc<PageTokens>) -> Self {
        Self { flows, page_tokens }
    }
}

#[tonic::async_trait]
impl service_account_service_server::ServiceAccountService for ServiceAccountService {
    async fn create_service_account(
        &self,
        request: Request<CreateServiceAccountRequest>,
    ) -> Result<Response<CreateServiceAccountResponse>, Status> {
        let (acting, origin) = (parse::acting(&request)?, parse::origin(&request));
        let account = parse::create_service_account(request.get_ref())?;
        let made = self.flows.create_service_account(acting, &account, &origin).await;
        let (account, secret) = made.map_err(|error| flow_problem("create_service_account", &error))?;
        Ok(Response::new(CreateServiceAccountResponse {
            client_id: account.client_id.clone(),
            client_secret: secret.reveal().to_owned(),
            service_account: Some(convert::service_account(account)),
        }))
    }

    async fn list_service_accounts(
        &self,
        request: Request<ListServiceAccountsRequest>,
    ) -> Result<Response<ListServiceAccountsResponse>, Status> {
        let acting = parse::acting(&request)?;
        let request = request.into_inner();
        parse::valid(&request)?;
        let bound = Bound::new("service accounts", acting.id().as_bytes());
        let asked = page::Asked { size: request.page_size, token: &request.page_token };
        let page = asked.open(&self.page_tokens, &bound, page::name)?;
        let found = self.flows.list_service_accounts(acting, page.behind.as_deref(), page.limit()).await;
        let found = found.map_err(|error| flow_problem("list_service_accounts", &error))?;
        let (found, next_page_token) =
            page.close(&self.page_tokens, &bound, found, |account| account.name.as_bytes().to_vec());
        let service_accounts = found.into_iter().map(convert::service_account).collect();
        Ok(Response::new(ListServiceAccountsResponse { service_accounts, next_page_token }))
    }

    async fn rotate_secret(
        &self,
        request: Request<RotateSecretRequest>,
    ) -> Result<Response<RotateSecretResponse>, Status> {
        let (acting, origin) = (parse::acting(&request)?, parse::origin(&request));
        let (id, overlap) = parse::rotate_secret(request.get_ref())?;
        let rotated = self.flows.rotate_secret(acting, id, overlap, &origin).await;
        let (account, secret, until) = rotated.map_err(|error| flow_problem("rotate_secret", &error))?;
        Ok(Response::new(RotateSecretResponse {
            client_id: account.client_id.clone(),
            client_secret: secret.reveal().to_owned(),
            service_account: Some(convert::service_account(account)),
            previous_secret_expires_at: until.map(from_utc),
        }))
    }

    async fn delete_service_account(
        &self,
        request: Request<DeleteServiceAccountRequest>,
    ) -> Result<Response<DeleteServiceAccountResponse>, Status> {
        let (acting, origin) = (parse::acting(&request)?, parse::origin(&request));
        let id = parse::id(request.get_ref(), "id", &request.get_ref().id)?;
        let deleted = self.flows.delete_service_account(acting, id, &origin).await;
        deleted.map_err(|error| flow_problem("delete_service_account", &error))?;
        Ok(Response::new(DeleteServiceAccountResponse {}))
    }
}
