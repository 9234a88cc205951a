//! auth.v1.UserService.

use std::sync::Arc;

use futures_util::stream;
use proto::auth::v1::user_service_server;
use proto::auth::v1::*;
use service_kit::page_token::PageTokens;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::user_import::Import;
use super::{convert, page, parse};
use crate::domain::user::User as Account;
use crate::domain::user_list::UserCursor;
use crate::errors::{AuthReason, Problem, flow_problem};
use crate::flows::Flows;

/// Administration of accounts.
pub struct UserService {
    flows: Flows,
    page_tokens: Arc<PageTokens>,
}

impl UserService {
    /// On these flows, with page tokens of this key.
    pub fn new(flows: Flows, page_tokens: Arc<PageTokens>) -> Self {
        Self { flows, page_tokens }
    }
}

#[tonic::async_trait]
impl user_service_server::UserService for UserService {
    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<GetUserResponse>, Status> {
        let caller = parse::acting(&request)?;
        let id = parse::id(request.get_ref(), "id", &request.get_ref().id)?;
        let found = self.flows.get_users(caller, &[id]).await;
        let found = found.map_err(|error| flow_problem("get_user", &error))?;
        let user =
            found.ok().and_then(|users| users.into_iter().next()).ok_or(Problem::from(AuthReason::UserNotFound))?;
        Ok(Response::new(GetUserResponse { user: Some(convert::user(user)) }))
    }

    async fn batch_get_users(
        &self,
        request: Request<BatchGetUsersRequest>,
    ) -> Result<Response<BatchGetUsersResponse>, Status> {
        let caller = parse::acting(&request)?;
        let ids = parse::ids(request.get_ref())?;
        let found = self.flows.get_users(caller, &ids).await;
        let found = found.map_err(|error| flow_problem("batch_get_users", &error))?;
        let users = found.map_err(|place| {
            Status::from(Problem::new(AuthReason::UserNotFound).metadata("index", place.to_string()))
        })?;
        Ok(Response::new(BatchGetUsersResponse { users: users.into_iter().map(convert::user).collect() }))
    }

    async fn list_users(&self, request: Request<ListUsersRequest>) -> Result<Response<ListUsersResponse>, Status> {
        let caller = parse::acting(&request)?;
        let request = request.into_inner();
        let (query, bound) = parse::users(caller, &request)?;
        let field = query.order.field;
        let asked = page::Asked { size: request.page_size, token: &request.page_token };
        let page = asked.open(&self.page_tokens, &bound, |bytes| UserCursor::from_bytes(bytes, field))?;
        let found = self.flows.list_users(caller, &query, page.behind.as_ref(), page.limit()).await;
        let found = found.map_err(|error| flow_problem("list_users", &error))?;
        let place = |user: &Account| UserCursor::of(user, field).to_bytes();
        let (found, next_page_token) = page.close(&self.page_tokens, &bound, found, place);
        Ok(Response::new(ListUsersResponse { users: found.into_iter().map(convert::user).collect(), next_page_token }))
    }

    async fn update_user(&self, request: Request<UpdateUserRequest>) -> Result<Response<UpdateUserResponse>, Status> {
        let (caller, origin) = (parse::acting(&request)?, parse::origin(&request));
        let (id, change) = parse::update_user(request.get_ref())?;
        let user = self.flows.update_user(caller, id, &change, &origin).await;
        let user = user.map_err(|error| flow_problem("update_user", &error))?;
        Ok(Response::new(UpdateUserResponse { user: Some(convert::user(user)) }))
    }

    async fn set_user_active(
        &self,
        request: Request<SetUserActiveRequest>,
    ) -> Result<Response<SetUserActiveResponse>, Status> {
        let (caller, origin) = (parse::acting(&request)?, parse::origin(&request));
        let id = parse::id(request.get_ref(), "id", &request.get_ref().id)?;
        let user = self.flows.set_user_active(caller, id, request.get_ref().is_active, &origin).await;
        let user = user.map_err(|error| flow_problem("set_user_active", &error))?;
        Ok(Response::new(SetUserActiveResponse { user: Some(convert::user(user)) }))
    }

    async fn assign_role(&self, request: Request<AssignRoleRequest>) -> Result<Response<AssignRoleResponse>, Status> {
        let (caller, origin) = (parse::acting(&request)?, parse::origin(&request));
        let id = parse::id(request.get_ref(), "user_id", &request.get_ref().user_id)?;
        let user = self.flows.assign_role(caller, id, &request.get_ref().role, &origin).await;
        let user = user.map_err(|error| flow_problem("assign_role", &error))?;
        Ok(Response::new(AssignRoleResponse { user: Some(convert::user(user)) }))
    }

    async fn delete_user(&self, request: Request<DeleteUserRequest>) -> Result<Response<DeleteUserResponse>, Status> {
        let (caller, origin) = (parse::acting(&request)?, parse::origin(&request));
        let id = parse::id(request.get_ref(), "id", &request.get_ref().id)?;
        let deleted = self.flows.delete_user(caller, id, &origin).await;
        deleted.map_err(|error| flow_problem("delete_user", &error))?;
        Ok(Response::new(DeleteUserResponse {}))
    }

    async fn import_users(
        &self,
        request: Request<Streaming<ImportUsersRequest>>,
    ) -> Result<Response<BoxStream<ImportUsersResponse>>, Status> {
        let (caller, origin) = (parse::acting(&request)?, parse::origin(&request));
        let import = Import::begin(self.flows.clone(), caller, origin, request.into_inner()).await?;
        let answers =
            stream::try_unfold(import, |mut import| async { Ok(import.next().await?.map(|answer| (answer, import))) });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn get_user_stats(
        &self,
        request: Request<GetUserStatsRequest>,
    ) -> Result<Response<GetUserStatsResponse>, Status> {
        let caller = parse::acting(&request)?;
        let counts = self.flows.count_users(caller).await;
        let counts = counts.map_err(|error| flow_problem("get_user_stats", &error))?;
        Ok(Response::new(GetUserStatsResponse { stats: Some(convert::user_stats(counts)) }))
    }
}
