//! auth.v1.RoleService.

use proto::auth::v1::role_service_server;
use proto::auth::v1::*;
use tonic::{Request, Response, Status};

use crate::errors::not_implemented;

/// Roles and the catalogue of permissions.
pub struct RoleService;

#[tonic::async_trait]
impl role_service_server::RoleService for RoleService {
    async fn create_role(&self, _: Request<CreateRoleRequest>) -> Result<Response<CreateRoleResponse>, Status> {
        not_implemented()
    }

    async fn get_role(&self, _: Request<GetRoleRequest>) -> Result<Response<GetRoleResponse>, Status> {
        not_implemented()
    }

    async fn list_roles(&self, _: Request<ListRolesRequest>) -> Result<Response<ListRolesResponse>, Status> {
        not_implemented()
    }

    async fn update_role(&self, _: Request<UpdateRoleRequest>) -> Result<Response<UpdateRoleResponse>, Status> {
        not_implemented()
    }

    async fn delete_role(&self, _: Request<DeleteRoleRequest>) -> Result<Response<DeleteRoleResponse>, Status> {
        not_implemented()
    }

    async fn list_permissions(
        &self,
        _: Request<ListPermissionsRequest>,
    ) -> Result<Response<ListPermissionsResponse>, Status> {
        not_implemented()
    }
}
