//! SIGTERM and Ctrl-C as a value: whoever waits inside a run looks at it, so that a run ends at once and cleanly.

use std::time::Duration;

use tokio::sync::watch;

use crate::error::EngineError;

/// Says whether the run was told to stop.
#[derive(Clone, Debug)]
pub struct Interrupt(watch::Receiver<bool>);

/// Fires an [`Interrupt`].
#[derive(Debug)]
pub struct InterruptHandle(watch::Sender<bool>);

impl InterruptHandle {
    /// Tells the run to stop.
    pub fn fire(&self) {
        self.0.send_replace(true);
    }
}

impl Interrupt {
    /// A pair of both.
    #[must_use]
    pub fn new() -> (InterruptHandle, Self) {
        let (sender, receiver) = watch::channel(false);
        (InterruptHandle(sender), Self(receiver))
    }

    /// One that never fires.
    #[must_use]
    pub fn never() -> Self {
        Self::new().1
    }

    /// Waits until it fires; for ever when nobody can fire it.
    pub(crate) async fn fired(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|fired| *fired).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Sleeps, or ends early with the error.
    pub(crate) async fn sleep(&self, pause: Duration) -> Result<(), EngineError> {
        tokio::select! {
            () = tokio::time::sleep(pause) => self.check(),
            () = self.fired() => Err(EngineError::Interrupted),
        }
    }

    /// The error when it has fired.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        if *self.0.borrow() { Err(EngineError::Interrupted) } else { Ok(()) }
    }
}
