//! auth.v1.UserService.

use proto::auth::v1::user_service_server;
use proto::auth::v1::*;
use tonic::{Request, Response, Status};

use crate::errors::not_implemented;

/// Administration of accounts.
pub struct UserService;

#[tonic::async_trait]
impl user_service_server::UserService for UserService {
    async fn get_user(&self, _: Request<GetUserRequest>) -> Result<Response<GetUserResponse>, Status> {
        not_implemented()
    }

    async fn batch_get_users(
        &self,
        _: Request<BatchGetUsersRequest>,
    ) -> Result<Response<BatchGetUsersResponse>, Status> {
        not_implemented()
    }

    async fn list_users(&self, _: Request<ListUsersRequest>) -> Result<Response<ListUsersResponse>, Status> {
        not_implemented()
    }

    async fn update_user(&self, _: Request<UpdateUserRequest>) -> Result<Response<UpdateUserResponse>, Status> {
        not_implemented()
    }

    async fn set_user_active(
        &self,
        _: Request<SetUserActiveRequest>,
    ) -> Result<Response<SetUserActiveResponse>, Status> {
        not_implemented()
    }

    async fn assign_role(&self, _: Request<AssignRoleRequest>) -> Result<Response<AssignRoleResponse>, Status> {
        not_implemented()
    }

    async fn delete_user(&self, _: Request<DeleteUserRequest>) -> Result<Response<DeleteUserResponse>, Status> {
        not_implemented()
    }

    async fn get_user_stats(&self, _: Request<GetUserStatsRequest>) -> Result<Response<GetUserStatsResponse>, Status> {
        not_implemented()
    }
}
