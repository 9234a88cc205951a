//! Readiness as named latches: all must be set for the service to be ready, and each can be lost again.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// Name of the latch that falls when the process is asked to end.
const RUNNING: &str = "running";

/// The latches. Cheap to clone; all clones share them.
#[derive(Clone)]
pub struct Readiness {
    latches: Arc<watch::Sender<Latches>>,
}

/// Why each latch that is not set is not set; empty means ready.
pub type NotReady = BTreeMap<&'static str, String>;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Latches(BTreeMap<&'static str, Result<(), String>>);

impl Latches {
    fn is_ready(&self) -> bool {
        self.0.values().all(Result::is_ok)
    }

    fn not_ready(&self) -> NotReady {
        self.0.iter().filter_map(|(name, state)| Some((*name, state.clone().err()?))).collect()
    }
}

impl Readiness {
    /// Latches of these names, none of them set.
    pub fn new(names: &[&'static str]) -> Self {
        let waiting = names.iter().map(|name| (*name, Err("not checked yet".to_owned())));
        let latches = waiting.chain([(RUNNING, Ok(()))]).collect();
        Self { latches: Arc::new(watch::Sender::new(Latches(latches))) }
    }

    /// Sets a latch, or takes it back with a reason that may be shown to operators (no secret). A change is logged. A name that
    /// [`Readiness::new`] did not get becomes a further latch.
    pub fn set(&self, name: &'static str, state: Result<(), impl Into<String>>) {
        let state = state.map_err(Into::into);
        self.latches.send_if_modified(|latches| {
            let before = latches.0.get(name);
            if before == Some(&state) {
                return false;
            }
            match &state {
                Ok(()) => tracing::info!(latch = name, "ready"),
                Err(reason) => tracing::warn!(latch = name, reason, "not ready"),
            }
            latches.0.insert(name, state);
            true
        });
    }

    /// From now on not ready, whatever the other latches say: the process is ending.
    pub fn stop(&self) {
        self.set(RUNNING, Err("shutting down"));
    }

    /// Whether all latches are set.
    pub fn is_ready(&self) -> bool {
        self.latches.borrow().is_ready()
    }

    /// Whether one latch is set.
    pub fn is_set(&self, name: &str) -> bool {
        self.latches.borrow().0.get(name).is_some_and(Result::is_ok)
    }

    /// The latches that are not set, with their reasons.
    pub fn not_ready(&self) -> NotReady {
        self.latches.borrow().not_ready()
    }

    /// Waits until all latches are set.
    pub async fn ready(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.latches.subscribe().wait_for(Latches::is_ready).await;
    }

    /// Keeps gRPC health at the latches' state for "" and `services`, until `stop` is cancelled. `told` is what
    /// [`Readiness::report`] gave: watchers are told of changes only.
    pub async fn drive_health(
        &self,
        reporter: HealthReporter,
        services: Vec<String>,
        mut told: bool,
        stop: CancellationToken,
    ) {
        let mut changes = self.latches.subscribe();
        loop {
            let ready = changes.borrow_and_update().is_ready();
            if ready != told {
                told = self.report(&reporter, &services).await;
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = stop.cancelled() => return,
            }
        }
    }

    /// Reports the latches' state once and says what it was. To be called before the server accepts: tonic-health's own ""
    /// starts as SERVING.
    pub async fn report(&self, reporter: &HealthReporter, services: &[String]) -> bool {
        let ready = self.is_ready();
        let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        reporter.set_service_status("", status).await;
        for service in services {
            reporter.set_service_status(service, status).await;
        }
        metrics::gauge!("service_ready").set(if ready { 1.0 } else { 0.0 });
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_latches_make_ready_and_any_one_unmakes_it() {
        let readiness = Readiness::new(&["database", "keys"]);
        assert_eq!(readiness.not_ready().into_keys().collect::<Vec<_>>(), ["database", "keys"]);
        readiness.set("database", Ok::<_, String>(()));
        assert!(!readiness.is_ready());
        readiness.set("keys", Ok::<_, String>(()));
        readiness.ready().await;
        readiness.set("database", Err("gone"));
        assert_eq!(readiness.not_ready(), NotReady::from([("database", "gone".to_owned())]));
        readiness.set("database", Ok::<_, String>(()));
        readiness.stop();
        assert!(!readiness.is_ready());
    }
}
