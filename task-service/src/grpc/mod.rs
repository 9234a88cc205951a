//! The proto services, one file each. A handler is parse → act → map back.

mod convert;
mod ownership_service;
mod parse;
mod task_service;
mod watch;

use auth_client::Principal;
use tonic::Request;

use crate::domain::access::{Caller, TASKS_READ, TASKS_WRITE};
use crate::domain::ids::UserId;
use crate::errors::{Problem, TaskReason};

pub use ownership_service::OwnershipService;
pub use task_service::TaskService;

/// Who calls. The authentication layer has put the verified principal there; metadata of the client never names a user.
fn caller_of<T>(request: &Request<T>) -> Result<Caller, Problem> {
    let principal = request.extensions().get::<Principal>().ok_or(TaskReason::TokenMissing)?;
    Ok(Caller {
        user_id: UserId(principal.id),
        reads_all: principal.has(TASKS_READ),
        writes_all: principal.has(TASKS_WRITE),
    })
}
