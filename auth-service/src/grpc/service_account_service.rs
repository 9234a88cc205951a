//! auth.v1.ServiceAccountService.

use proto::auth::v1::service_account_service_server;
use proto::auth::v1::*;
use tonic::{Request, Response, Status};

use crate::errors::not_implemented;

/// Accounts of programs.
pub struct ServiceAccountService;

#[tonic::async_trait]
impl service_account_service_server::ServiceAccountService for ServiceAccountService {
    async fn create_service_account(
        &self,
        _: Request<CreateServiceAccountRequest>,
    ) -> Result<Response<CreateServiceAccountResponse>, Status> {
        not_implemented()
    }

    async fn list_service_accounts(
        &self,
        _: Request<ListServiceAccountsRequest>,
    ) -> Result<Response<ListServiceAccountsResponse>, Status> {
        not_implemented()
    }

    async fn rotate_secret(&self, _: Request<RotateSecretRequest>) -> Result<Response<RotateSecretResponse>, Status> {
        not_implemented()
    }

    async fn delete_service_account(
        &self,
        _: Request<DeleteServiceAccountRequest>,
    ) -> Result<Response<DeleteServiceAccountResponse>, Status> {
        not_implemented()
    }
}
