//! The stream of WatchTasks.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use auth_client::{Principal, Revocations};
use futures_util::{TryStreamExt as _, stream};
use proto::task::v1;
use proto::task::v1::watch_tasks_response::Event;
use proto::time::from_utc;
use service_kit::database::DatabaseError;
use service_kit::streams::driven;
use tonic::Status;
use tonic::codegen::BoxStream;

use super::convert::task_message;
use crate::domain::access::Scope;
use crate::domain::change::ChangeKind;
use crate::domain::ids::UserId;
use crate::domain::page_token::PageTokens;
use crate::domain::resume_token;
use crate::domain::time::now;
use crate::errors::{Problem, TaskReason, store_problem};
use crate::store::TaskStoreError;
use crate::watch::{Step, WatchEnd, Watcher, Whereabouts};

/// When to come back to a database that is away.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A watch that goes on for as long as the caller may watch.
pub(super) struct Watch {
    pub(super) watcher: Watcher,
    pub(super) principal: Principal,
    pub(super) revocations: Option<Revocations>,
    pub(super) tokens: Arc<PageTokens>,
    pub(super) caller: UserId,
    pub(super) scope: Scope,
}

impl Watch {
    /// The events, up to the first error.
    pub(super) fn stream(self) -> BoxStream<v1::WatchTasksResponse> {
        let (principal, revocations) = (self.principal.clone(), self.revocations.clone());
        let steps = stream::unfold(Some(self), |watch| async {
            let mut watch = watch?;
            match watch.next().await {
                Ok(message) => Some((Ok(message), Some(watch))),
                Err(problem) => Some((Err(Status::from(problem)), None)),
            }
        });
        let ended = move || may_go_on(&principal, revocations.as_ref()).err().map(Status::from);
        // Stamped when it is taken, however long it has waited for its client.
        let sent =
            |message: v1::WatchTasksResponse| v1::WatchTasksResponse { sent_at: Some(from_utc(now())), ..message };
        Box::pin(driven(steps, ended).map_ok(sent))
    }

    async fn next(&mut self) -> Result<v1::WatchTasksResponse, Problem> {
        loop {
            may_go_on(&self.principal, self.revocations.as_ref())?;
            if let Some(step) = self.watcher.next().await.map_err(end_problem)? {
                return Ok(self.message(step));
            }
        }
    }

    fn message(&self, step: Step) -> v1::WatchTasksResponse {
        let (event, position) = match step {
            Step::SnapshotStarted => (Event::SnapshotStarted(v1::TaskSnapshotStarted {}), None),
            Step::InSnapshot(task) => (Event::Upserted(task_message(task)), None),
            Step::SnapshotCompleted(task_count, position) => {
                (Event::SnapshotCompleted(v1::TaskSnapshotCompleted { task_count }), Some(position))
            }
            Step::Changed(kind, task, position) => {
                let event = match kind {
                    ChangeKind::Upserted => Event::Upserted(task_message(task)),
                    ChangeKind::Deleted | ChangeKind::Moved => Event::Deleted(v1::TaskDeleted {
                        id: task.id.to_string(),
                        user_id: task.user_id.to_string(),
                        deleted_at: Some(from_utc(task.updated_at)),
                    }),
                };
                (event, Some(position))
            }
            Step::Heartbeat(position) => (Event::Heartbeat(v1::TaskHeartbeat {}), Some(position)),
        };
        let resume_token = position.map(|whereabouts| self.token(&whereabouts)).unwrap_or_default();
        v1::WatchTasksResponse { resume_token, sent_at: None, event: Some(event) }
    }

    fn token(&self, whereabouts: &Whereabouts) -> String {
        resume_token::seal(&self.tokens, self.caller, self.scope, &whereabouts.position, whereabouts.current_at)
    }
}

fn may_go_on(principal: &Principal, revocations: Option<&Revocations>) -> Result<(), Problem> {
    if principal.expires_at <= SystemTime::now() {
        return Err(TaskReason::TokenExpired.into());
    }
    if revocations.is_some_and(|revocations| revocations.voids(principal)) {
        return Err(TaskReason::TokenRevoked.into());
    }
    Ok(())
}

pub(super) fn end_problem(end: WatchEnd) -> Problem {
    match end {
        WatchEnd::PositionUnknown => TaskReason::ResumeTokenExpired.into(),
        WatchEnd::Silent => Problem::new(TaskReason::Unavailable).retry_after(RETRY_AFTER),
        // The client has set no deadline that could have passed.
        WatchEnd::Store(TaskStoreError::Database(DatabaseError::Timeout)) => end_problem(WatchEnd::Silent),
        WatchEnd::Store(error) => store_problem("watch_tasks", &error),
    }
}
