//! task.v1.OwnershipService: what happens to tasks when their owner goes.

use proto::task::v1;
use proto::task::v1::ownership_service_server::OwnershipService as Service;
use tonic::{Request, Response, Status};

use super::parse;
use crate::errors::{not_implemented, store_problem};
use crate::store::TaskStore;

/// The handlers of task.v1.OwnershipService.
#[derive(Clone)]
pub struct OwnershipService {
    store: TaskStore,
}

impl OwnershipService {
    /// On this store.
    pub fn new(store: TaskStore) -> Self {
        Self { store }
    }
}

#[tonic::async_trait]
impl Service for OwnershipService {
    async fn purge_user_tasks(
        &self,
        request: Request<v1::PurgeUserTasksRequest>,
    ) -> Result<Response<v1::PurgeUserTasksResponse>, Status> {
        let user_id = parse::purge(request.get_ref())?;
        let purged = self.store.tasks_purge(user_id).await;
        let task_count = purged.map_err(|error| store_problem("tasks_purge", &error))?;
        Ok(Response::new(v1::PurgeUserTasksResponse { task_count }))
    }

    async fn reassign_tasks(
        &self,
        _: Request<v1::ReassignTasksRequest>,
    ) -> Result<Response<v1::ReassignTasksResponse>, Status> {
        not_implemented()
    }
}
