//! The two service processes: started with the runtime role, watched until healthy, drained in order.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::process::{Child, Command};

use super::UpError;
use super::directory::Directory;
use crate::files;
use crate::guard::{EndBy, Guard};
use crate::health::{POLL, is_serving};
use crate::process::ProcessIdentity;

/// Keys and schema are checked before a service is healthy; more than this means that it will not be.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// Longer than the drain deadline that the services are given.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// How a service is started.
pub(super) struct ServicePlan<'a> {
    /// Its name: the program, the log, the pid file.
    pub(super) name: &'static str,
    /// The program.
    pub(super) program: &'a Path,
    /// gRPC address.
    pub(super) address: SocketAddr,
    /// What it is told besides.
    pub(super) environment: Vec<(&'static str, String)>,
}

/// A running service. Dropped without [`Self::stop`] it is killed.
pub(super) struct Service {
    name: &'static str,
    address: SocketAddr,
    log: PathBuf,
    child: Child,
    pid: u32,
}

impl Service {
    pub(super) fn start(plan: ServicePlan<'_>, directory: &Directory, guard: &Guard) -> Result<Self, UpError> {
        let log = directory.log(plan.name);
        let output = File::create(&log).map_err(|error| UpError::file("write", &log, &error))?;
        let errors = output.try_clone().map_err(|error| UpError::file("write", &log, &error))?;
        let mut command = Command::new(plan.program);
        command
            .arg("serve")
            .envs(plan.environment)
            .env("LISTEN_ADDR", plan.address.to_string())
            .env("LOG_FORMAT", "json")
            // Nobody balances load here: there is nothing to wait for before draining.
            .env("SHUTDOWN_PROPAGATION", "0s")
            .env("SHUTDOWN_DRAIN", "10s")
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            // The terminal's Ctrl-C reaches us alone, and we stop the services in order.
            .process_group(0)
            .kill_on_drop(true);
        // The local pair speaks plain text on loopback, whatever the shell has set for others.
        for name in ["TLS_CERT_FILE", "TLS_KEY_FILE", "TLS_CLIENT_CA_FILE"] {
            command.env_remove(name);
        }
        let child = command.spawn().map_err(|error| UpError::file("run", plan.program, &error))?;
        let pid = child.id().unwrap_or_default();
        guard.watch(pid, EndBy::Terminate);
        directory.remember(plan.name, pid)?;
        Ok(Self { name: plan.name, address: plan.address, log, child, pid })
    }

    /// Waits until it says SERVING.
    pub(super) async fn healthy(&mut self) -> Result<(), UpError> {
        let until = Instant::now() + START_PATIENCE;
        let address = reachable(self.address);
        loop {
            if is_serving(address).await {
                return Ok(());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.ended(status));
            }
            if Instant::now() > until {
                return Err(UpError::failed(format!(
                    "{} did not become healthy within 60 s; its log: {}\n{}",
                    self.name,
                    self.log.display(),
                    self.last_lines()
                )));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits for its end, which nobody asked for.
    pub(super) async fn unexpected_end(&mut self) -> UpError {
        match self.child.wait().await {
            Ok(status) => self.ended(status),
            Err(error) => UpError::failed(format!("{} cannot be watched: {error}", self.name)),
        }
    }

    /// SIGTERM, a drain, and SIGKILL if it takes too long.
    pub(super) async fn stop(mut self, directory: &Directory, guard: &Guard) {
        if let Some(process) = ProcessIdentity::of(self.pid) {
            process.signal(Signal::TERM);
        }
        if tokio::time::timeout(STOP_PATIENCE, self.child.wait()).await.is_err() {
            // It fails only when the process has gone.
            let _gone = self.child.kill().await;
        }
        guard.forget(self.pid);
        directory.forget(self.name);
    }

    fn ended(&self, status: ExitStatus) -> UpError {
        UpError::failed(format!(
            "{} ended by itself ({status}); its log: {}\n{}",
            self.name,
            self.log.display(),
            self.last_lines()
        ))
    }

    fn last_lines(&self) -> String {
        files::tail(&self.log, 15).iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
    }
}

/// An address that clients can connect to: a wildcard becomes loopback.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => SocketAddr::from(([127, 0, 0, 1], v4.port())),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, v6.port())),
        given => given,
    }
}
