//! task.v1.TaskService.

use std::sync::Arc;
use std::time::Duration;

use auth_client::{Principal, Revocations};
use prost::Message as _;
use proto::task::v1;
use proto::task::v1::task_service_server::TaskService as Service;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::convert::{stats_message, task_message};
use super::watch::{Watch, end_problem};
use super::{caller_of, parse};
use crate::domain::access::{Caller, TASKS_WRITE};
use crate::domain::etag::version_of;
use crate::domain::ids::TaskId;
use crate::domain::page_token::PageTokens;
use crate::domain::time::now;
use crate::errors::{Problem, TaskReason, permission_missing, store_problem};
use crate::store::{BatchError, TaskStore, TaskStoreError};
use crate::watch::{Begin, Feed};

/// A page ends early rather than grow beyond this many bytes: clients refuse messages over 4 MiB unless told otherwise.
const PAGE_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Where an answer cannot end early it is refused beyond what clients take.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The handlers of task.v1.TaskService.
#[derive(Clone)]
pub struct TaskService {
    store: TaskStore,
    page_tokens: Arc<PageTokens>,
    feed: Feed,
    revocations: Option<Revocations>,
}

impl TaskService {
    /// On this store, with page tokens of this key; what is revoked ends streams, too.
    pub fn new(store: TaskStore, page_tokens: Arc<PageTokens>, feed: Feed, revocations: Option<Revocations>) -> Self {
        Self { store, page_tokens, feed, revocations }
    }

    /// Why a change by id failed. Another's task is not there for a caller, unless the caller may read it.
    async fn change_problem(
        &self,
        operation: &'static str,
        caller: &Caller,
        id: TaskId,
        error: TaskStoreError,
    ) -> Problem {
        if matches!(error, TaskStoreError::NotFound)
            && caller.only_reads_all()
            && self.store.task_find(caller.read_scope(), id).await.is_ok()
        {
            return permission_missing(TASKS_WRITE);
        }
        store_problem(operation, &error)
    }

    /// The same for a batch.
    async fn batch_change_problem(
        &self,
        operation: &'static str,
        caller: &Caller,
        id: Option<TaskId>,
        error: BatchError,
    ) -> Problem {
        match (error.index, id) {
            (Some(index), Some(id)) => {
                let problem = self.change_problem(operation, caller, id, error.error).await;
                problem.metadata("index", index.to_string())
            }
            _ => batch_problem(operation, error),
        }
    }
}

#[tonic::async_trait]
impl Service for TaskService {
    async fn create_task(
        &self,
        request: Request<v1::CreateTaskRequest>,
    ) -> Result<Response<v1::CreateTaskResponse>, Status> {
        let caller = caller_of(&request)?;
        let task = parse::create(&caller, request.get_ref(), now())?;
        let task = self.store.task_create(&task).await.map_err(|error| store_problem("task_create", &error))?;
        Ok(Response::new(v1::CreateTaskResponse { task: Some(task_message(task)) }))
    }

    async fn get_task(&self, request: Request<v1::GetTaskRequest>) -> Result<Response<v1::GetTaskResponse>, Status> {
        let caller = caller_of(&request)?;
        let request = request.into_inner();
        let id = parse::task_id(&request, &request.id)?;
        let task =
            self.store.task_find(caller.read_scope(), id).await.map_err(|error| store_problem("task_find", &error))?;
        Ok(Response::new(v1::GetTaskResponse { task: Some(task_message(task)) }))
    }

    async fn list_tasks(
        &self,
        request: Request<v1::ListTasksRequest>,
    ) -> Result<Response<v1::ListTasksResponse>, Status> {
        let caller = caller_of(&request)?;
        let page = parse::list(&caller, &self.page_tokens, request.get_ref())?;
        // One more than asked for tells whether there is a next page.
        let found = self.store.task_list(&page.query, page.cursor.as_ref(), page.size + 1).await;
        let found = found.map_err(|error| store_problem("task_list", &error))?;
        let found_count = found.len();
        let mut tasks = Vec::with_capacity(page.size.min(found_count));
        let mut bytes = 0;
        let mut last = None;
        for task in found.into_iter().take(page.size) {
            let cursor = page.query.order.cursor_at(&task);
            let task = task_message(task);
            bytes += task.encoded_len();
            if bytes > PAGE_BYTES_MAX && last.is_some() {
                break;
            }
            last = Some(cursor);
            tasks.push(task);
        }
        let more = last.filter(|_| tasks.len() < found_count);
        let next_page_token =
            more.map(|cursor| self.page_tokens.seal(caller.user_id, &page.query, &cursor)).unwrap_or_default();
        Ok(Response::new(v1::ListTasksResponse { tasks, next_page_token }))
    }

    async fn update_task(
        &self,
        request: Request<v1::UpdateTaskRequest>,
    ) -> Result<Response<v1::UpdateTaskResponse>, Status> {
        let caller = caller_of(&request)?;
        let (id, change, etag) = parse::update(request.into_inner())?;
        let updated = self.store.task_update(caller.write_scope(), id, &change, version_of(&etag), now()).await;
        match updated {
            Ok(task) => Ok(Response::new(v1::UpdateTaskResponse { task: Some(task_message(task)) })),
            Err(error) => Err(self.change_problem("task_update", &caller, id, error).await.into()),
        }
    }

    async fn delete_task(
        &self,
        request: Request<v1::DeleteTaskRequest>,
    ) -> Result<Response<v1::DeleteTaskResponse>, Status> {
        let caller = caller_of(&request)?;
        let request = request.into_inner();
        let id = parse::task_id(&request, &request.id)?;
        let deleted = self.store.task_delete(caller.write_scope(), id, version_of(&request.etag), now()).await;
        match deleted {
            Ok(()) => Ok(Response::new(v1::DeleteTaskResponse {})),
            Err(error) => Err(self.change_problem("task_delete", &caller, id, error).await.into()),
        }
    }

    async fn batch_create_tasks(
        &self,
        request: Request<v1::BatchCreateTasksRequest>,
    ) -> Result<Response<v1::BatchCreateTasksResponse>, Status> {
        let caller = caller_of(&request)?;
        let new = parse::batch_create(&caller, &request.get_ref().requests, now())?;
        let made = self.store.tasks_create(&new).await.map_err(|error| batch_problem("tasks_create", error))?;
        Ok(Response::new(v1::BatchCreateTasksResponse { tasks: made.into_iter().map(task_message).collect() }))
    }

    async fn batch_get_tasks(
        &self,
        request: Request<v1::BatchGetTasksRequest>,
    ) -> Result<Response<v1::BatchGetTasksResponse>, Status> {
        let caller = caller_of(&request)?;
        let ids = parse::ids(request.get_ref(), &request.get_ref().ids)?;
        let found = self.store.tasks_find(caller.read_scope(), &ids, ANSWER_BYTES_MAX).await;
        let found = found.map_err(|error| batch_problem("tasks_find", error))?;
        let answer = v1::BatchGetTasksResponse { tasks: found.into_iter().map(task_message).collect() };
        if answer.encoded_len() > ANSWER_BYTES_MAX {
            return Err(Problem::from(TaskReason::MessageTooLarge).into());
        }
        Ok(Response::new(answer))
    }

    async fn batch_update_tasks(
        &self,
        request: Request<v1::BatchUpdateTasksRequest>,
    ) -> Result<Response<v1::BatchUpdateTasksResponse>, Status> {
        let caller = caller_of(&request)?;
        let updates = parse::batch_update(request.into_inner().requests)?;
        match self.store.tasks_update(caller.write_scope(), &updates, now()).await {
            Ok(tasks) => {
                let tasks = tasks.into_iter().map(task_message).collect();
                Ok(Response::new(v1::BatchUpdateTasksResponse { tasks }))
            }
            Err(error) => {
                let id = error.index.and_then(|index| updates.get(index)).map(|(id, ..)| *id);
                Err(self.batch_change_problem("tasks_update", &caller, id, error).await.into())
            }
        }
    }

    async fn batch_delete_tasks(
        &self,
        request: Request<v1::BatchDeleteTasksRequest>,
    ) -> Result<Response<v1::BatchDeleteTasksResponse>, Status> {
        let caller = caller_of(&request)?;
        let ids = parse::ids(request.get_ref(), &request.get_ref().ids)?;
        match self.store.tasks_delete(caller.write_scope(), &ids, now()).await {
            Ok(()) => Ok(Response::new(v1::BatchDeleteTasksResponse {})),
            Err(error) => {
                let id = error.index.and_then(|index| ids.get(index)).copied();
                Err(self.batch_change_problem("tasks_delete", &caller, id, error).await.into())
            }
        }
    }

    async fn get_task_stats(
        &self,
        request: Request<v1::GetTaskStatsRequest>,
    ) -> Result<Response<v1::GetTaskStatsResponse>, Status> {
        let caller = caller_of(&request)?;
        let query = parse::stats(&caller, request.get_ref())?;
        let stats = self.store.task_stats(&query, now()).await;
        let stats = stats.map_err(|error| store_problem("task_stats", &error))?;
        Ok(Response::new(v1::GetTaskStatsResponse { stats: Some(stats_message(stats)) }))
    }

    async fn watch_tasks(
        &self,
        request: Request<v1::WatchTasksRequest>,
    ) -> Result<Response<BoxStream<v1::WatchTasksResponse>>, Status> {
        let caller = caller_of(&request)?;
        let (scope, begin) = parse::watch(&caller, &self.page_tokens, request.get_ref(), now())?;
        let principal = request.extensions().get::<Principal>().cloned().ok_or(TaskReason::TokenMissing);
        let principal = principal.map_err(Problem::from)?;
        let begin = match begin {
            Some(begin) => begin,
            None => {
                let position = self.feed.position_now(&self.store).await;
                let position = position.map_err(|error| end_problem(error.into()))?;
                Begin::Behind { position, current_at: now(), or_snapshot: false }
            }
        };
        let watcher = self.feed.watch(self.store.clone(), caller.user_id, scope, begin);
        let watcher = watcher.map_err(|_| Problem::new(TaskReason::RateLimited).retry_after(Duration::from_secs(5)))?;
        let (revocations, tokens) = (self.revocations.clone(), Arc::clone(&self.page_tokens));
        let watch = Watch { watcher, principal, revocations, tokens, caller: caller.user_id, scope };
        Ok(Response::new(watch.stream()))
    }
}

/// What an error of a batch means to a caller.
fn batch_problem(operation: &'static str, error: BatchError) -> Problem {
    let problem = store_problem(operation, &error.error);
    match error.index {
        Some(index) => problem.metadata("index", index.to_string()),
        None => problem,
    }
}
