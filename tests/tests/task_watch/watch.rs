//! A stream of WatchTasks as the tests read it.

use std::time::Duration;

use proto::task::v1::watch_tasks_response::Event;
use proto::task::v1::{WatchTasksRequest, WatchTasksResponse};
use tonic::{Status, Streaming};

use crate::task_support::Tasks;

/// Nothing here takes longer, however busy the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A stream, and the last token that came with it.
pub(crate) struct Watch {
    pub(crate) stream: Streaming<WatchTasksResponse>,
    pub(crate) token: String,
}

/// What a test compares: what happened to which task, in which version (the etag) or with which owner.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Seen {
    SnapshotStarted,
    SnapshotCompleted(i64),
    Upserted(String, String),
    Deleted(String),
}

impl Watch {
    pub(crate) async fn begin(tasks: &mut Tasks, request: WatchTasksRequest) -> Self {
        let token = request.resume_token.clone();
        let stream = tasks.watch_tasks(request).await.unwrap().into_inner();
        Self { stream, token }
    }

    /// From now on; the position is that of the first sign of life.
    pub(crate) async fn live(tasks: &mut Tasks) -> Self {
        let mut watch = Self::begin(tasks, WatchTasksRequest::default()).await;
        assert!(matches!(watch.event().await, Event::Heartbeat(_)), "where the stream begins is told at once");
        watch
    }

    pub(crate) async fn resumed(tasks: &mut Tasks, token: &str) -> Self {
        Self::begin(tasks, WatchTasksRequest { resume_token: token.to_owned(), ..Default::default() }).await
    }

    pub(crate) async fn message(&mut self) -> Result<WatchTasksResponse, Status> {
        let message = tokio::time::timeout(PATIENCE, self.stream.message()).await.unwrap();
        let message = message?.unwrap_or_else(|| panic!("the stream ended"));
        if !message.resume_token.is_empty() {
            message.resume_token.clone_into(&mut self.token);
        }
        assert!(message.sent_at.is_some());
        Ok(message)
    }

    pub(crate) async fn event(&mut self) -> Event {
        self.message().await.unwrap().event.unwrap()
    }

    /// The next that is no sign of life.
    pub(crate) async fn seen(&mut self) -> Seen {
        loop {
            return match self.event().await {
                Event::Heartbeat(_) => continue,
                Event::SnapshotStarted(_) => Seen::SnapshotStarted,
                Event::SnapshotCompleted(completed) => Seen::SnapshotCompleted(completed.task_count),
                Event::Upserted(task) => Seen::Upserted(task.id, task.etag),
                Event::Deleted(deleted) => Seen::Deleted(deleted.id),
            };
        }
    }

    pub(crate) async fn take(&mut self, count: usize) -> Vec<Seen> {
        let mut seen = Vec::with_capacity(count);
        for _ in 0..count {
            seen.push(self.seen().await);
        }
        seen
    }

    /// Nothing but signs of life, one of which comes.
    pub(crate) async fn assert_quiet(&mut self) {
        let event = self.event().await;
        assert!(matches!(event, Event::Heartbeat(_)), "expected nothing more: {event:?}");
    }
}
