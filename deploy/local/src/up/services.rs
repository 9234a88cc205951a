//! The two service processes: started with the runtime role, watched until healthy, drained in order.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::process::Child;

use super::UpError;
use super::child::service_command;
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
        let mut command = service_command(plan.program);
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
            .process_group(0);
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
                return Err(self.failed("did not become healthy within 60 s"));
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
        self.failed(&format!("ended by itself ({status})"))
    }

    /// One line, with the end of the log to be shown before it.
    fn failed(&self, reason: &str) -> UpError {
        let context = files::tail(&self.log, 15);
        UpError { context, ..UpError::failed(format!("{} {reason}; its log: {}", self.name, self.log.display())) }
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_failed_start_is_one_line_with_the_log_apart() {
        let base = tempfile::tempdir().unwrap();
        let program = base.path().join("broken service");
        fs::write(&program, "#!/bin/sh\necho one; echo two; exit 3\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let directory = Directory::open(&base.path().join("dir")).unwrap();
        directory.prepare().unwrap();
        // Stands in for our own program, which a unit test cannot run; it ends at once, and nothing is left to guard.
        let guard = Guard::spawn(Path::new("/bin/true")).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], files::free_port().unwrap()));
        let plan = ServicePlan { name: "auth-service", program: &program, address, environment: Vec::new() };
        let error = Service::start(plan, &directory, &guard).unwrap().healthy().await.unwrap_err();
        assert!(!error.message.contains('\n') && error.message.contains("exit status: 3"), "{}", error.message);
        assert_eq!(error.context, ["one", "two"]);
    }
}
