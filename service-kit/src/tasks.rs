//! Owned background tasks: each has a name, its end is watched, and an end that nobody asked for ends the process.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How a background task may fail.
pub type TaskError = Box<dyn std::error::Error + Send + Sync>;

/// A background task that ended although nobody asked it to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("background task {task} {what}")]
pub struct TaskFailure {
    /// The task's name.
    pub task: &'static str,
    /// What happened: `failed: …`, `panicked`, `ended by itself`.
    pub what: String,
}

/// Owns every background task of the process. Cheap to clone; all clones own the same tasks.
#[derive(Clone, Default)]
pub struct Supervisor {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    cancel: CancellationToken,
    tracker: TaskTracker,
    failed: CancellationToken,
    failure: OnceLock<TaskFailure>,
}

impl Supervisor {
    /// A supervisor without tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the tasks are to end.
    pub fn token(&self) -> CancellationToken {
        self.inner.cancel.clone()
    }

    /// Spawns a task that runs until its token is cancelled; any earlier end is a failure.
    pub fn spawn<F, Fut>(&self, name: &'static str, task: F)
    where
        F: FnOnce(CancellationToken) -> Fut,
        Fut: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        self.watch(name, false, task(self.token()));
    }

    /// Spawns a task that may end by itself with `Ok`; only an error or a panic is a failure.
    pub fn spawn_once<F, Fut>(&self, name: &'static str, task: F)
    where
        F: FnOnce(CancellationToken) -> Fut,
        Fut: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        self.watch(name, true, task(self.token()));
    }

    fn watch(
        &self,
        name: &'static str,
        may_end: bool,
        task: impl Future<Output = Result<(), TaskError>> + Send + 'static,
    ) {
        let inner = Arc::clone(&self.inner);
        self.inner.tracker.spawn(async move {
            let what = match AssertUnwindSafe(task).catch_unwind().await {
                Ok(Ok(())) if may_end || inner.cancel.is_cancelled() => return,
                Ok(Ok(())) => "ended by itself".to_owned(),
                Ok(Err(error)) => format!("failed: {error}"),
                // The panic hook has logged the message.
                Err(_) => "panicked".to_owned(),
            };
            let failure = TaskFailure { task: name, what };
            tracing::error!(task = name, error = %failure, "background task is gone");
            // Only the first failure ends the process; later ones are its echoes and are logged above.
            let _ = inner.failure.set(failure);
            inner.failed.cancel();
        });
    }

    /// Waits until a task has failed; pending as long as none has.
    pub async fn failed(&self) -> TaskFailure {
        self.inner.failed.cancelled().await;
        self.inner.failure.get().cloned().unwrap_or_else(|| TaskFailure { task: "unknown", what: "failed".to_owned() })
    }

    /// Cancels the tasks and waits for their end, at most `patience`; whether all have ended.
    pub async fn shutdown(&self, patience: Duration) -> bool {
        self.inner.cancel.cancel();
        self.inner.tracker.close();
        tokio::time::timeout(patience, self.inner.tracker.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_panics_or_fails_is_reported_with_its_name() {
        let supervisor = Supervisor::new();
        supervisor.spawn("quits", |_| async { Ok(()) });
        assert_eq!(supervisor.failed().await.to_string(), "background task quits ended by itself");

        let supervisor = Supervisor::new();
        supervisor.spawn("panics", |_| async { panic!("on purpose") });
        assert_eq!(supervisor.failed().await.what, "panicked");

        let supervisor = Supervisor::new();
        supervisor.spawn_once("fails", |_| async { Err("no luck".into()) });
        assert_eq!(supervisor.failed().await.what, "failed: no luck");
    }

    #[tokio::test]
    async fn shutdown_waits_for_tasks_but_not_without_end() {
        let supervisor = Supervisor::new();
        supervisor.spawn("obeys", |token| async move {
            token.cancelled().await;
            Ok(())
        });
        supervisor.spawn_once("done", |_| async { Ok(()) });
        assert!(supervisor.shutdown(Duration::from_secs(5)).await);
        assert!(supervisor.failed().now_or_never().is_none());

        let supervisor = Supervisor::new();
        supervisor.spawn("stubborn", |_| std::future::pending());
        assert!(!supervisor.shutdown(Duration::from_millis(20)).await);
    }
}
