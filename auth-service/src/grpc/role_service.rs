//! auth.v1.RoleService.

use std::sync::Arc;

use proto::auth::v1::role_service_server;
use proto::auth::v1::*;
use service_kit::page_token::{Bound, PageTokens};
use tonic::{Request, Response, Status};

use super::{convert, page, parse};
use crate::errors::flow_problem;
use crate::flows::Flows;

/// Roles and the catalogue of permissions.
pub struct RoleService {
    flows: Flows,
    page_tokens: Arc<PageTokens>,
}

impl RoleService {
    /// On these flows, with page tokens of this key.
    pub fn new(flows: Flows, page_tokens: Arc<PageTokens>) -> Self {
        Self { flows, page_tokens }
    }
}

#[tonic::async_trait]
impl role_service_server::RoleService for RoleService {
    async fn create_role(&self, request: Request<CreateRoleRequest>) -> Result<Response<CreateRoleResponse>, Status> {
        let (caller, origin) = (parse::acting(&request)?, parse::origin(&request));
        let role = parse::create_role(request.get_ref())?;
        let role = self.flows.create_role(caller, &role, &origin).await;
        let role = role.map_err(|error| flow_problem("create_role", &error))?;
        Ok(Response::new(CreateRoleResponse { role: Some(convert::role(role)) }))
    }

    async fn get_role(&self, request: Request<GetRoleRequest>) -> Result<Response<GetRoleResponse>, Status> {
        let caller = parse::acting(&request)?;
        let id = parse::id(request.get_ref(), "id", &request.get_ref().id)?;
        let role = self.flows.get_role(caller, id).await.map_err(|error| flow_problem("get_role", &error))?;
        Ok(Response::new(GetRoleResponse { role: Some(convert::role(role)) }))
    }

    async fn list_roles(&self, request: Request<ListRolesRequest>) -> Result<Response<ListRolesResponse>, Status> {
        let caller = parse::acting(&request)?;
        let request = request.into_inner();
        parse::valid(&request)?;
        let bound = Bound::new("roles", caller.id().as_bytes());
        let asked = page::Asked { size: request.page_size, token: &request.page_token };
        let page = asked.open(&self.page_tokens, &bound, page::name)?;
        let found = self.flows.list_roles(caller, page.behind.as_deref(), page.limit()).await;
        let found = found.map_err(|error| flow_problem("list_roles", &error))?;
        let (found, next_page_token) =
            page.close(&self.page_tokens, &bound, found, |role| role.name.as_bytes().to_vec());
        Ok(Response::new(ListRolesResponse { roles: found.into_iter().map(convert::role).collect(), next_page_token }))
    }

    async fn update_role(&self, request: Request<UpdateRoleRequest>) -> Result<Response<UpdateRoleResponse>, Status> {
        let (caller, origin) = (parse::acting(&request)?, parse::origin(&request));
        let (id, change) = parse::update_role(request.into_inner())?;
        let role = self.flows.update_role(caller, id, &change, &origin).await;
        let role = role.map_err(|error| flow_problem("update_role", &error))?;
        Ok(Response::new(UpdateRoleResponse { role: Some(convert::role(role)) }))
    }

    async fn delete_role(&self, request: Request<DeleteRoleRequest>) -> Result<Response<DeleteRoleResponse>, Status> {
        let (caller, origin) = (parse::acting(&request)?, parse::origin(&request));
        let id = parse::id(request.get_ref(), "id", &request.get_ref().id)?;
        let deleted = self.flows.delete_role(caller, id, &origin).await;
        deleted.map_err(|error| flow_problem("delete_role", &error))?;
        Ok(Response::new(DeleteRoleResponse {}))
    }

    async fn list_permissions(
        &self,
        _: Request<ListPermissionsRequest>,
    ) -> Result<Response<ListPermissionsResponse>, Status> {
        let permissions = proto::policy::permissions().iter().map(|name| Permission {
            name: name.clone(),
            description: proto::policy::describe(name).unwrap_or_default().to_owned(),
        });
        Ok(Response::new(ListPermissionsResponse { permissions: permissions.collect() }))
    }
}
