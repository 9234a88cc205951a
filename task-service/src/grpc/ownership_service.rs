//! task.v1.OwnershipService: what happens to tasks when their owner goes.

use proto::task::v1;
use proto::task::v1::ownership_service_server::OwnershipService as Service;
use tonic::{Request, Response, Status};

use super::parse;
use crate::domain::time::now;
use crate::errors::store_problem;
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
        let purged = self.store.tasks_purge(user_id, now()).await;
        let task_count = purged.map_err(|error| store_problem("tasks_purge", &error))?;
        Ok(Response::new(v1::PurgeUserTasksResponse { task_count }))
    }

    async fn reassign_tasks(
        &self,
        request: Request<v1::ReassignTasksRequest>,
    ) -> Result<Response<v1::ReassignTasksResponse>, Status> {
        let (from, to, ids) = parse::reassign(request.get_ref())?;
        let moved = match ids.as_slice() {
            [] => self.store.tasks_reassign_all(from, to, now()).await,
            ids => self.store.tasks_reassign(from, to, ids, now()).await,
        };
        let task_count = moved.map_err(|error| store_problem("tasks_reassign", &error))?;
        Ok(Response::new(v1::ReassignTasksResponse { task_count }))
    }
}
