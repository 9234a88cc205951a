//! task.v1.OwnershipService: what happens to tasks when their owner goes.

use proto::task::v1;
use proto::task::v1::ownership_service_server::OwnershipService as Service;
use tonic::{Request, Response, Status};

use crate::errors::not_implemented;

/// The handlers of task.v1.OwnershipService.
#[derive(Clone, Default)]
pub struct OwnershipService;

#[tonic::async_trait]
impl Service for OwnershipService {
    async fn purge_user_tasks(
        &self,
        _: Request<v1::PurgeUserTasksRequest>,
    ) -> Result<Response<v1::PurgeUserTasksResponse>, Status> {
        not_implemented()
    }

    async fn reassign_tasks(
        &self,
        _: Request<v1::ReassignTasksRequest>,
    ) -> Result<Response<v1::ReassignTasksResponse>, Status> {
        not_implemented()
    }
}
