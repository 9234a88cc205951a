//! `cargo up` as a newcomer uses it: from nothing, from a legacy dump, interrupted, killed, and wrongly called.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests may panic")]

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use local_pair::postgres::{Cluster, connect};
use local_pair::process::ProcessIdentity;
use proto::auth::v1::SignInRequest;
use proto::auth::v1::auth_service_client::AuthServiceClient;
use proto::task::v1::task_service_client::TaskServiceClient;
use proto::task::v1::{CreateTaskRequest, ListTasksRequest};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tests::{Account, authorized, programs};
use tonic::transport::{Channel, Endpoint};

/// Builds, migrations and two starts on a machine that also runs other tests.
const READY_PATIENCE: Duration = Duration::from_secs(300);
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// What the shell of somebody with other installations may have set: each would stop or change a service.
const SHELL: [(&str, &str); 10] = [
    ("DATABASE_MAX_CONNECTIONS", "abc"),
    ("JWT_ISSUER", "somebody else"),
    ("ACCESS_TOKEN_TTL", "never"),
    ("SESSION_TTL", "never"),
    ("SIGN_UP", "perhaps"),
    ("HASHING_QUEUE", "0"),
    ("SMTP_URL", "mail:25"),
    ("PAGE_TOKEN_KEY", "c2hvcnQ="),
    ("TLS_CERT_FILE", "/missing/cert.pem"),
    ("AUTH_SERVICE_CA_FILE", "/missing/ca.pem"),
];

/// A place for one test below a directory that is closed to other users, with spaces in its path, as a home directory often is.
struct Place {
    base: TempDir,
}

impl Place {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o700)).unwrap();
        Self { base }
    }

    fn directory(&self) -> PathBuf {
        self.base.path().join("x y/.local")
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.base.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// A copy of the program, which [`Self::up`] removes while it runs: another build may replace the file at any time.
    fn program(&self) -> PathBuf {
        let path = self.base.path().join("local-pair");
        // Not written by this process: a child forked meanwhile would keep it open, and then it cannot be run.
        let copied = Command::new("cp").arg(&programs().local_pair).arg(&path).status().unwrap();
        assert!(copied.success());
        path
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program());
        command.args(["up", "--auth-addr", "127.0.0.1:0", "--task-addr", "127.0.0.1:0", "--dir"]);
        command.arg(self.directory()).args(arguments).envs(SHELL).stdin(Stdio::null());
        command
    }

    /// Runs to the end, which must come before `ready`: exit code and the last line of stderr.
    fn refused(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.command(arguments).output().unwrap();
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!stdout.lines().any(|line| line == "ready"), "{stdout}");
        (output.status.code().unwrap(), stderr.lines().last().unwrap_or_default().to_owned())
    }

    fn up(&self, arguments: &[&str]) -> Up {
        let (stdout, stderr) = (self.base.path().join("stdout"), self.base.path().join("stderr"));
        let mut command = self.command(arguments);
        command.stdout(fs::File::create(&stdout).unwrap()).stderr(fs::File::create(&stderr).unwrap());
        let mut up = Up { child: command.spawn().unwrap(), stdout, stderr, environment: Value::Null };
        if cfg!(target_os = "linux") {
            fs::remove_file(self.base.path().join("local-pair")).unwrap();
        }
        let until = Instant::now() + READY_PATIENCE;
        while !fs::read_to_string(&up.stdout).unwrap().lines().any(|line| line == "ready") {
            let ended = up.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < until, "not ready ({ended:?}):\n{}", up.said());
            pause();
        }
        let file = self.directory().join("env.json");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        up.environment = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        up
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The data may lie elsewhere, where the unprivileged user reaches them.
        Cluster::remove(&self.directory().join("postgres")).unwrap();
    }
}

/// A running `cargo up`.
struct Up {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    environment: Value,
}

impl Up {
    fn said(&self) -> String {
        [&self.stdout, &self.stderr].map(|path| fs::read_to_string(path).unwrap_or_default()).join("\n")
    }

    fn value(&self, key: &str) -> &str {
        self.environment[key].as_str().unwrap_or_else(|| panic!("env.json has no {key}: {}", self.environment))
    }

    fn address(&self, key: &str) -> SocketAddr {
        self.value(key).parse().unwrap()
    }

    fn channel(&self, key: &str) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.value(key))).unwrap().connect_lazy()
    }

    async fn sign_in(&self, login: &str, password: &str) -> Account {
        let request = SignInRequest { login: login.to_owned(), password: password.to_owned() };
        let answer = AuthServiceClient::new(self.channel("auth_addr")).sign_in(request).await.unwrap().into_inner();
        Account { tokens: answer.tokens.unwrap(), user: answer.user.unwrap() }
    }

    async fn administrator(&self) -> Account {
        self.sign_in(self.value("admin_email"), self.value("admin_password")).await
    }

    async fn create_task(&self, account: &Account, title: &str) {
        let channel = authorized(self.channel("task_addr"), account.access_token());
        let request = CreateTaskRequest { title: title.to_owned(), ..Default::default() };
        TaskServiceClient::new(channel).create_task(request).await.unwrap();
    }

    async fn titles(&self, account: &Account) -> Vec<String> {
        let channel = authorized(self.channel("task_addr"), account.access_token());
        let request = ListTasksRequest { user_id: account.id().to_owned(), ..Default::default() };
        let answer = TaskServiceClient::new(channel).list_tasks(request).await.unwrap().into_inner();
        let mut titles: Vec<String> = answer.tasks.into_iter().map(|task| task.title).collect();
        titles.sort();
        titles
    }

    /// Every address that something of this pair listens on.
    fn listeners(&self) -> Vec<SocketAddr> {
        let mut all: Vec<SocketAddr> =
            ["auth_addr", "task_addr", "auth_metrics_addr", "task_metrics_addr"].map(|key| self.address(key)).to_vec();
        let url = self.value("auth_database_url");
        all.push(url.split_once('@').unwrap().1.split_once('/').unwrap().0.parse().unwrap());
        all
    }

    fn signal(&mut self, signal: Signal) -> ExitStatus {
        ProcessIdentity::of(self.child.id()).unwrap().signal(signal);
        let until = Instant::now() + STOP_PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "does not end:\n{}", self.said());
            pause();
        }
    }

    fn assert_all_gone(&self) {
        let until = Instant::now() + STOP_PATIENCE;
        for listener in self.listeners() {
            while TcpStream::connect(listener).is_ok() {
                assert!(Instant::now() < until, "something still listens on {listener}");
                pause();
            }
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // After SIGKILL the guard ends the rest.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "waits for processes on the test's own thread")]
fn pause() {
    std::thread::sleep(Duration::from_millis(100));
}

#[tokio::test]
async fn from_nothing_stopped_killed_and_started_again() {
    let place = Place::new();
    let mut up = place.up(&[]);
    let administrator = up.administrator().await;
    assert_eq!(administrator.user.role, "admin");
    up.create_task(&administrator, "kept").await;
    assert!(Path::new(up.value("mail_dir")).is_absolute() && Path::new(up.value("mail_dir")).is_dir());
    assert_ne!(up.value("auth_database_url"), up.value("task_database_url"));
    for key in ["auth_database_url", "task_database_url"] {
        let client = connect(up.value(key)).await.unwrap();
        assert!(client.batch_execute("CREATE TABLE mine ()").await.is_err(), "{key} may change the schema");
    }
    let (code, message) = place.refused(&[]);
    assert!(code == 5 && message.contains("another `cargo up` runs in"), "{code} {message}");
    assert_eq!(up.signal(Signal::INT).code(), Some(0), "{}", up.said());
    up.assert_all_gone();

    let mut again = place.up(&[]);
    let administrator = again.administrator().await;
    assert_eq!(again.titles(&administrator).await, ["kept"]);
    // A crash of its own: nobody is left to clean up but the guard.
    again.signal(Signal::KILL);
    again.assert_all_gone();

    let mut after_crash = place.up(&[]);
    let administrator = after_crash.administrator().await;
    assert_eq!(after_crash.titles(&administrator).await, ["kept"]);
    assert_eq!(after_crash.signal(Signal::TERM).code(), Some(0), "{}", after_crash.said());
    after_crash.assert_all_gone();

    let fresh = place.up(&["--fresh"]);
    assert!(fresh.titles(&fresh.administrator().await).await.is_empty());
}

#[tokio::test]
async fn a_legacy_dump_is_adopted_and_its_users_go_on() {
    let place = Place::new();
    let dump = place.file("legacy dump.sql", &tests::legacy::fixture("legacy/incident"));
    let mut up = place.up(&["--restore", dump.to_str().unwrap()]);
    let carol = up.sign_in("carol@example.com", "Carol-Pa55word!").await;
    assert_eq!(carol.user.role, "member");
    assert_eq!(up.titles(&carol).await, ["Write the post-mortem", "バックアップを確認する"]);
    assert_eq!(up.administrator().await.user.role, "admin");
    assert!(!["admin@example.com", "carol@example.com"].contains(&up.value("admin_email")));
    assert_eq!(up.value("auth_database_url"), up.value("task_database_url"));
    let said = up.said();
    for part in ["found: rows by table:", "tasks 4", "users 3", "changed: "] {
        assert!(said.contains(part), "it does not say `{part}`:\n{said}");
    }
    assert_eq!(up.signal(Signal::TERM).code(), Some(0), "{}", up.said());

    // Never over what is there; without --restore it goes on.
    let (code, message) = place.refused(&["--restore", dump.to_str().unwrap()]);
    assert!(code == 2 && message.contains("--fresh"), "{code} {message}");
    let again = place.up(&[]);
    again.sign_in("carol", "Carol-Pa55word!").await;
}

#[tokio::test]
async fn a_service_that_dies_ends_everything_and_is_named() {
    let place = Place::new();
    let mut up = place.up(&[]);
    let pid_file = fs::read_to_string(place.directory().join("run/task-service.pid")).unwrap();
    ProcessIdentity::parse(&pid_file).unwrap().signal(Signal::KILL);
    let until = Instant::now() + STOP_PATIENCE;
    while up.child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < until, "it goes on without task-service");
        pause();
    }
    assert_eq!(up.child.wait().unwrap().code(), Some(1));
    // The end of its log stands above; the error is one line.
    let stderr = fs::read_to_string(&up.stderr).unwrap();
    assert!(stderr.lines().last().unwrap().starts_with("error: task-service ended by itself"), "{stderr}");
    up.assert_all_gone();
}

#[test]
fn bad_input_is_one_line_and_nothing_half_done() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_address = taken.local_addr().unwrap().to_string();
    let broken = place.file("broken.sql", "CREATE TABLE users (id uuid);\nCREATE TABLE tasks (id uid);\n");
    let missing = place.base.path().join("missing.sql");
    for (arguments, code, part) in [
        (["--restore", broken.to_str().unwrap()], 1, "broken.sql:2: type \"uid\" does not exist"),
        (["--restore", missing.to_str().unwrap()], 2, "no such file"),
    ] {
        let (found, message) = place.refused(&arguments);
        assert!(found == code && message.contains(part), "{found} {message}");
    }
    let free = local_pair::files::free_port().unwrap();
    let output = Command::new(&programs().local_pair)
        .args(["up", "--auth-addr", &format!("0.0.0.0:{free}"), "--task-addr", &format!("127.0.0.1:{free}"), "--dir"])
        .arg(place.directory())
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && message.lines().count() == 1, "{message}");
    assert!(message.contains("different ports"), "{message}");
    let output = Command::new(&programs().local_pair)
        .args(["up", "--auth-addr", &taken_address, "--dir"])
        .arg(place.directory())
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.lines().count() == 1 && message.contains("--auth-addr"), "{message}");
}

#[test]
fn a_directory_of_somebody_else_is_refused_untouched() {
    let place = Place::new();
    let files = ["log/syslog", "mail/root", "run/auth-service.pid", "postgres/data/PG_VERSION", "env.json"];
    for name in files {
        let path = place.directory().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "mine").unwrap();
    }
    for arguments in [&[][..], &["--fresh"]] {
        let (code, message) = place.refused(arguments);
        assert!(code == 2 && message.contains("was not made by `cargo up`"), "{code} {message}");
    }
    for name in files {
        assert_eq!(fs::read_to_string(place.directory().join(name)).unwrap(), "mine");
    }
    fs::remove_dir_all(place.directory()).unwrap();
}
