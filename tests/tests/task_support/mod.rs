//! What the suites of the task service share.
#![expect(clippy::unwrap_used, reason = "a suite ends the test with a panic")]

use prost_types::{FieldMask, Timestamp};
use proto::task::v1::task_service_client::TaskServiceClient;
use proto::task::v1::{CreateTaskRequest, Task, UpdateTaskRequest};
use tests::Authorized;
use tonic::Status;

/// A client of the task service for one account.
pub(crate) type Tasks = TaskServiceClient<Authorized>;

/// A request for a task with a title and nothing else.
pub(crate) fn titled(title: &str) -> CreateTaskRequest {
    CreateTaskRequest { title: title.to_owned(), ..Default::default() }
}

/// Creates a task; panics when that fails.
pub(crate) async fn create(tasks: &mut Tasks, request: CreateTaskRequest) -> Task {
    tasks.create_task(request).await.unwrap().into_inner().task.unwrap()
}

/// Updates the fields of the mask; an empty mask is none.
pub(crate) async fn update(tasks: &mut Tasks, task: Task, mask: &[&str]) -> Result<Task, Status> {
    let paths: Vec<_> = mask.iter().map(|path| (*path).to_owned()).collect();
    let update_mask = (!paths.is_empty()).then_some(FieldMask { paths });
    let answer = tasks.update_task(UpdateTaskRequest { task: Some(task), update_mask }).await?;
    Ok(answer.into_inner().task.unwrap())
}

/// A time by its seconds and nanoseconds since 1970.
pub(crate) fn at(seconds: i64, nanos: i32) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos })
}
