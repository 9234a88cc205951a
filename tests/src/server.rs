//! Real service processes on free ports: started, watched until healthy, their log lines kept, killed with the value.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use local_pair::files::free_port;
use local_pair::guard::{EndBy, Guard};
use local_pair::health::{POLL, is_serving};
use local_pair::process::ProcessIdentity;
use rustix::process::Signal;
use tonic::transport::{Channel, Endpoint};

use crate::programs::{Service, programs};
use crate::{Authorized, TestDatabase, authorized};

/// Extra environment variables of a service; they win over the harness's own.
pub type Environment<'a> = &'a [(&'a str, &'a str)];

/// A start under load may take seconds; nothing healthy takes this long.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// What seals the signing keys in all tests: 32 bytes in base64, any will do.
pub const KEY_ENCRYPTION_KEY: &str = "dGhlIHRlc3RzIG5lZWQgMzIgYnl0ZXMgaGVyZS4uLi4=";

/// A program that has ended: how, and what it wrote.
#[derive(Debug, Clone)]
pub struct ProgramRun {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// A service that ended before it was healthy, or was not healthy in time (code -1).
pub type StartFailure = ProgramRun;

/// Runs a service's program with `arguments` and `stdin` until it ends, at most two minutes, in an environment of nothing
/// but `environment`.
pub async fn run_program(
    service: Service,
    arguments: &[&str],
    environment: Environment<'_>,
    stdin: &str,
) -> ProgramRun {
    let mut command = tokio::process::Command::from(command(service, arguments, environment));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().expect("the program runs");
    if let Some(mut input) = child.stdin.take() {
        // A program that does not read its input may have closed it.
        let _closed = tokio::io::AsyncWriteExt::write_all(&mut input, stdin.as_bytes()).await;
    }
    let output = tokio::time::timeout(Duration::from_secs(120), child.wait_with_output()).await;
    let output = output
        .unwrap_or_else(|_| panic!("{} {arguments:?} did not end within two minutes", service.name()))
        .expect("its output");
    ProgramRun {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Status and body of `GET <path>` on the HTTP side of a service.
pub async fn http_get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("the service listens");
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.expect("the service reads");
    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await.expect("the service answers");
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (status.unwrap_or_else(|| panic!("{path}: no HTTP: {answer}")), body)
}

pub(crate) fn command(service: Service, arguments: &[&str], environment: Environment<'_>) -> Command {
    let mut command = Command::new(service.program());
    // Nothing of the developer's own environment may change a test; the profile file is for coverage runs.
    command.args(arguments).env_clear();
    for name in ["PATH", "HOME", "TMPDIR", "LLVM_PROFILE_FILE"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.env("RUST_LOG", "info").env("LOG_FORMAT", "json").envs(environment.iter().copied());
    command
}

/// A running service process.
#[derive(Debug)]
pub(crate) struct ServiceProcess {
    child: Child,
    logs: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
    pub(crate) address: SocketAddr,
    pub(crate) metrics_address: SocketAddr,
}

/// Where a service will listen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    pub(crate) grpc: SocketAddr,
    pub(crate) metrics: SocketAddr,
}

impl Addresses {
    pub(crate) fn free() -> Self {
        let free = || SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().expect("a free port")));
        Self { grpc: free(), metrics: free() }
    }
}

impl ServiceProcess {
    /// Starts `serve` and waits until it is healthy.
    pub(crate) async fn start(
        service: Service,
        addresses: Addresses,
        own: Environment<'_>,
        extra: Environment<'_>,
    ) -> Result<Self, StartFailure> {
        let (grpc, metrics) = (addresses.grpc.to_string(), addresses.metrics.to_string());
        // Small pools: hundreds of tests share one PostgreSQL.
        let mut environment = vec![
            ("LISTEN_ADDR", grpc.as_str()),
            ("METRICS_ADDR", metrics.as_str()),
            ("DATABASE_MAX_CONNECTIONS", "4"),
            ("SHUTDOWN_PROPAGATION", "0s"),
        ];
        environment.extend_from_slice(own);
        environment.extend_from_slice(extra);
        let mut child = command(service, &["serve"], &environment)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        guard().watch(child.id(), EndBy::Kill);
        let logs = Arc::new(Mutex::new(Vec::new()));
        let reader = child.stderr.take().map(|stderr| {
            let logs = Arc::clone(&logs);
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    logs.lock().expect("nobody panics with the lock").push(line);
                }
            })
        });
        let mut process = Self { child, logs, reader, address: addresses.grpc, metrics_address: addresses.metrics };
        let until = Instant::now() + START_PATIENCE;
        while Instant::now() < until {
            if is_serving(process.address).await {
                return Ok(process);
            }
            if let Ok(Some(status)) = process.child.try_wait() {
                return Err(process.failure(status.code().unwrap_or(-1)));
            }
            tokio::time::sleep(POLL).await;
        }
        process.kill();
        Err(process.failure(-1))
    }

    fn failure(&mut self, code: i32) -> StartFailure {
        self.finish_logs();
        StartFailure { code, stdout: String::new(), stderr: self.logs().join("\n") }
    }

    fn finish_logs(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the log reader does not panic");
        }
    }

    pub(crate) fn logs(&self) -> Vec<String> {
        self.logs.lock().expect("nobody panics with the lock").clone()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        // Both fail only when it has ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
        guard().forget(self.child.id());
    }

    /// SIGTERM, then waits for the end.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        ProcessIdentity::of(self.child.id()).expect("the service still runs").signal(Signal::TERM);
        let until = Instant::now() + START_PATIENCE;
        while Instant::now() < until {
            if let Ok(Some(status)) = self.child.try_wait() {
                guard().forget(self.child.id());
                self.finish_logs();
                return status;
            }
            tokio::time::sleep(POLL).await;
        }
        panic!("the service did not end within {START_PATIENCE:?} after SIGTERM:\n{}", self.logs().join("\n"));
    }
}

impl Drop for ServiceProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The last lines of the log beside the failed assertion.
            let logs = self.logs();
            eprintln!("--- last log lines of {}\n{}", self.address, logs[logs.len().saturating_sub(20)..].join("\n"));
        }
        self.kill();
    }
}

/// Ends the services of this test process if it is killed.
fn guard() -> &'static Guard {
    static GUARD: OnceLock<Guard> = OnceLock::new();
    GUARD.get_or_init(|| Guard::spawn(&programs().local_pair).expect("the guard runs"))
}

macro_rules! server {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name {
            process: ServiceProcess,
        }

        impl $name {
            /// gRPC address.
            pub fn address(&self) -> SocketAddr {
                self.process.address
            }

            /// Address of `/metrics`, `/livez`, `/readyz`.
            pub fn metrics_address(&self) -> SocketAddr {
                self.process.metrics_address
            }

            /// Process id.
            pub fn pid(&self) -> u32 {
                self.process.child.id()
            }

            /// A channel that connects at the first call.
            pub fn channel(&self) -> Channel {
                Endpoint::from_shared(format!("http://{}", self.address())).expect("an address").connect_lazy()
            }

            /// A channel whose calls carry the access token.
            pub fn channel_with(&self, access_token: &str) -> Authorized {
                authorized(self.channel(), access_token)
            }

            /// The log lines so far.
            pub fn logs(&self) -> Vec<String> {
                self.process.logs()
            }

            /// Waits up to ten seconds for a log line; panics with the log if none comes.
            pub async fn wait_for_log(&self, wanted: impl Fn(&str) -> bool) -> String {
                for _ in 0..200 {
                    if let Some(line) = self.logs().into_iter().find(|line| wanted(line)) {
                        return line;
                    }
                    tokio::time::sleep(POLL).await;
                }
                panic!("no such log line in:\n{}", self.logs().join("\n"));
            }

            /// SIGTERM; waits for the orderly end.
            pub async fn terminate(&mut self) -> ExitStatus {
                self.process.terminate().await
            }

            /// SIGKILL.
            pub fn kill(&mut self) {
                self.process.kill();
            }
        }
    };
}

server! {
    /// A running auth-service.
    AuthServer
}

server! {
    /// A running task-service.
    TaskServer
}

impl AuthServer {
    /// Starts it on a migrated database, alone: no task service is there.
    pub async fn start(database: &TestDatabase, extra: Environment<'_>) -> Self {
        Self::try_start(database, extra)
            .await
            .unwrap_or_else(|failure| panic!("auth-service did not start: {failure:#?}"))
    }

    /// Starts it and answers how it failed.
    ///
    /// # Errors
    /// It ended or was not healthy within a minute.
    pub async fn try_start(database: &TestDatabase, extra: Environment<'_>) -> Result<Self, StartFailure> {
        // Port 1 answers nobody.
        Self::start_at(Addresses::free(), database, SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), extra).await
    }

    pub(crate) async fn start_at(
        at: Addresses,
        database: &TestDatabase,
        task: SocketAddr,
        extra: Environment<'_>,
    ) -> Result<Self, StartFailure> {
        let (url, other) = (database.runtime_url(), format!("http://{task}"));
        let own = [
            ("DATABASE_URL", url.as_str()),
            ("TASK_SERVICE_URL", other.as_str()),
            ("KEY_ENCRYPTION_KEY", KEY_ENCRYPTION_KEY),
        ];
        Ok(Self { process: ServiceProcess::start(Service::Auth, at, &own, extra).await? })
    }
}

impl TaskServer {
    /// Starts it on a migrated database beside the auth service at `auth`.
    pub async fn start(database: &TestDatabase, auth: SocketAddr, extra: Environment<'_>) -> Self {
        Self::try_start(database, auth, extra)
            .await
            .unwrap_or_else(|failure| panic!("task-service did not start: {failure:#?}"))
    }

    /// Starts it and answers how it failed.
    ///
    /// # Errors
    /// It ended or was not healthy within a minute.
    pub async fn try_start(
        database: &TestDatabase,
        auth: SocketAddr,
        extra: Environment<'_>,
    ) -> Result<Self, StartFailure> {
        Self::start_at(Addresses::free(), database, auth, extra).await
    }

    pub(crate) async fn start_at(
        at: Addresses,
        database: &TestDatabase,
        auth: SocketAddr,
        extra: Environment<'_>,
    ) -> Result<Self, StartFailure> {
        let (url, other) = (database.runtime_url(), format!("http://{auth}"));
        let own = [("DATABASE_URL", url.as_str()), ("AUTH_SERVICE_URL", other.as_str())];
        Ok(Self { process: ServiceProcess::start(Service::Task, at, &own, extra).await? })
    }
}
