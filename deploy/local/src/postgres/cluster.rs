//! A private PostgreSQL cluster: made once in a directory, started on a free port of 127.0.0.1, stopped when the value goes.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::account::Account;
use super::{PostgresBinaries, PostgresError, place};
use crate::files;
use crate::process::{ProcessIdentity, is_postgres_in, pause, postgres_processes_in};

/// The superuser of a private cluster; the same name as in most dumps, so that their owners exist.
pub const SUPERUSER: &str = "postgres";

/// A crash recovery of a local database ends well within this.
const START_PATIENCE: Duration = Duration::from_secs(120);

/// How a cluster is started.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// The directory of the cluster; made if missing. May hold spaces, may lie below a directory that is closed to others.
    pub directory: PathBuf,
    /// Do not wait for the disk: faster, but a crash of the machine loses the data. For tests only.
    pub unsafe_fast: bool,
    /// `max_connections` of the server.
    pub max_connections: u16,
}

impl ClusterOptions {
    /// Options for data that must last.
    pub fn durable(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), unsafe_fast: false, max_connections: 100 }
    }

    /// Options for tests: no fsync, many connections.
    pub fn for_tests(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), unsafe_fast: true, max_connections: 400 }
    }
}

/// A running private cluster. Dropping it stops the server (fast shutdown); the data stay.
#[derive(Debug)]
pub struct Cluster {
    account: Account,
    binaries: PostgresBinaries,
    place: PathBuf,
    port: u16,
    password: String,
    server: Child,
    running: bool,
}

impl Cluster {
    /// Makes the cluster if it is not there and starts it. A server left running in this directory by a killed run is stopped
    /// first; a stale pid file is no obstacle; a process that is not this cluster's server is never touched.
    ///
    /// # Errors
    /// The directory belongs to somebody else (it is left alone then) or cannot be used, `initdb` failed, or the server did not come up: with the last line of its log.
    pub fn start(binaries: &PostgresBinaries, options: &ClusterOptions) -> Result<Self, PostgresError> {
        let account = Account::choose()?;
        if let Some(obstacle) = account.obstacle(binaries.directory()) {
            return Err(PostgresError::Cluster(format!(
                "{binaries}: the unprivileged user that runs PostgreSQL cannot pass {}; open it with `chmod o+x` or set PG_BIN_DIR to another place",
                obstacle.display()
            )));
        }
        let wanted =
            files::absolute(&options.directory).map_err(|e| PostgresError::file("resolve", &options.directory, e))?;
        let place = place::prepare(account, &wanted)?;
        stop_running(&place)?;
        let password = initialize(account, binaries, &place, !options.unsafe_fast)?;
        let mut last = String::new();
        // A port that was free may be taken by another process before the server binds it.
        for _ in 0..5 {
            let port = files::free_port().map_err(|e| PostgresError::file("find a free port on", "127.0.0.1", e))?;
            let log = place.join("server.log");
            let mut server = spawn(account, binaries, &place, &log, port, options)?;
            match wait_ready(&mut server, &place) {
                Ok(()) => {
                    return Ok(Self {
                        account,
                        binaries: binaries.clone(),
                        place,
                        port,
                        password,
                        server,
                        running: true,
                    });
                }
                Err(reason) => {
                    end_child(&mut server);
                    let lines = files::tail(&log, 20);
                    let port_taken = lines.iter().any(|line| {
                        line.contains("could not bind") || line.contains("could not create any TCP/IP sockets")
                    });
                    let cause = lines
                        .iter()
                        .rev()
                        .find(|line| line.contains("FATAL") || line.contains("PANIC"))
                        .or(lines.last());
                    last = format!("{reason}: {} (log: {})", cause.map_or("no log", String::as_str), log.display());
                    if !port_taken {
                        break;
                    }
                }
            }
        }
        Err(PostgresError::Cluster(format!("PostgreSQL did not start: {last}")))
    }

    /// Whether a cluster was ever made in `directory`.
    pub fn exists(directory: &Path) -> bool {
        let wanted = files::absolute(directory).unwrap_or_else(|_| directory.to_owned());
        place::find(&wanted).is_some_and(|place| place.join("superuser-password").is_file())
    }

    /// Refuses a `directory` that holds something and was not made here; [`Self::start`] and [`Self::remove`] refuse it as well.
    ///
    /// # Errors
    /// It belongs to somebody else or cannot be read. Nothing was changed.
    pub fn check(directory: &Path) -> Result<(), PostgresError> {
        let wanted = files::absolute(directory).map_err(|e| PostgresError::file("resolve", directory, e))?;
        place::check(&wanted).map(|_ours_or_free| ())
    }

    /// Stops what runs in `directory` and removes the cluster with all its data, wherever they lie.
    ///
    /// # Errors
    /// The directory belongs to somebody else, the server does not stop or the files cannot be removed.
    pub fn remove(directory: &Path) -> Result<(), PostgresError> {
        let wanted = files::absolute(directory).map_err(|e| PostgresError::file("resolve", directory, e))?;
        place::remove(&wanted)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The superuser's password.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The binaries that run it.
    pub fn binaries(&self) -> &PostgresBinaries {
        &self.binaries
    }

    /// Where the data really lie.
    pub fn data_directory(&self) -> PathBuf {
        self.place.join("data")
    }

    /// The server's log.
    pub fn log_file(&self) -> PathBuf {
        self.place.join("server.log")
    }

    /// The server process, for a guard that stops it if we are killed.
    pub fn process(&self) -> Option<ProcessIdentity> {
        ProcessIdentity::of(self.server.id())
    }

    /// Whether the server still runs; `false` once it has ended by itself.
    pub fn is_running(&mut self) -> bool {
        self.running && matches!(self.server.try_wait(), Ok(None))
    }

    /// Fast shutdown: ends sessions, writes a checkpoint, waits for the end.
    ///
    /// # Errors
    /// The server does not end within a minute; it is killed then.
    pub fn stop(mut self) -> Result<(), PostgresError> {
        self.shut_down()
    }

    fn shut_down(&mut self) -> Result<(), PostgresError> {
        if !std::mem::take(&mut self.running) || !matches!(self.server.try_wait(), Ok(None)) {
            return Ok(());
        }
        let mut command = Command::new(self.binaries.program("pg_ctl"));
        command
            .args(["stop", "--silent", "--mode=fast", "--wait", "--timeout=60", "--pgdata"])
            .arg(self.data_directory());
        self.account.apply(&mut command);
        let stopped = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        end_child(&mut self.server);
        if stopped {
            Ok(())
        } else {
            Err(PostgresError::Cluster(
                "PostgreSQL did not stop within 60 s and was killed; it recovers at the next start".to_owned(),
            ))
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The error only says that it had to be killed: nothing more can be done here.
        let _killed = self.shut_down();
    }
}

/// Stops the server that works in the cluster at `place`, if there is one, by proof of its working directory.
pub(super) fn stop_running(place: &Path) -> Result<(), PostgresError> {
    let Ok(data) = place.join("data").canonicalize() else {
        return Ok(());
    };
    let pid_file = data.join("postmaster.pid");
    if let Ok(text) = fs::read_to_string(&pid_file) {
        let recorded = text.lines().next().and_then(|line| line.trim().parse::<u32>().ok());
        if let Some(server) = recorded.filter(|pid| is_postgres_in(*pid, &data)).and_then(ProcessIdentity::of) {
            // SIGINT is PostgreSQL's fast shutdown.
            server.signal(Signal::INT);
            if !server.wait_gone(Duration::from_secs(30)) {
                server.end(Signal::QUIT, Duration::from_secs(5));
            }
        }
    }
    // Backends of a killed server end by themselves; a new server must not start before they have.
    for process in postgres_processes_in(&data) {
        if !process.wait_gone(Duration::from_secs(5)) {
            process.end(Signal::QUIT, Duration::from_secs(5));
        }
    }
    // What is left is stale; its pid may meanwhile belong to somebody else, which would keep the server from starting.
    files::remove_file(&pid_file).map_err(|e| PostgresError::file("remove", &pid_file, e))
}

/// Makes the data directory unless it is complete; answers the superuser's password.
fn initialize(
    account: Account,
    binaries: &PostgresBinaries,
    place: &Path,
    sync: bool,
) -> Result<String, PostgresError> {
    let password_file = place.join("superuser-password");
    let data = place.join("data");
    let handed_over = place.join("initdb-password");
    // Written when initdb was completed.
    if let Ok(password) = fs::read_to_string(&password_file) {
        check_version(binaries, &data)?;
        return Ok(password);
    }
    // This one is there as long as initdb is not completed.
    if data.join("PG_VERSION").exists() && !handed_over.exists() {
        return Err(PostgresError::InTheWay(format!(
            "{} is gone, so nobody can sign in to the data beside it: put it back or start over with --fresh",
            password_file.display()
        )));
    }
    files::remove_dir_all(&data).map_err(|e| PostgresError::file("remove", &data, e))?;
    files::create_dir(&data, 0o700).map_err(|e| PostgresError::file("create", &data, e))?;
    account.own(&data)?;
    let random = |e| PostgresError::file("read", "the random generator", e);
    let password = files::random_hex(16).map_err(random)?;
    files::write_private(&handed_over, &password).map_err(|e| PostgresError::file("write", &handed_over, e))?;
    account.own(&handed_over)?;
    // C.UTF-8 sorts by code point and knows the case of all letters; not every system has it.
    let mut outcome = Err(String::new());
    for locale in ["C.UTF-8", "en_US.UTF-8", "C"] {
        outcome = initdb(account, binaries, &data, &handed_over, locale, sync);
        if outcome.is_ok() {
            break;
        }
    }
    outcome.map_err(|message| PostgresError::Cluster(format!("initdb failed: {message}")))?;
    files::write_private(&password_file, &password).map_err(|e| PostgresError::file("write", &password_file, e))?;
    files::remove_file(&handed_over).map_err(|e| PostgresError::file("remove", &handed_over, e))?;
    Ok(password)
}

fn initdb(
    account: Account,
    binaries: &PostgresBinaries,
    data: &Path,
    password_file: &Path,
    locale: &str,
    sync: bool,
) -> Result<(), String> {
    let mut command = Command::new(binaries.program("initdb"));
    command
        .args(["--auth=scram-sha-256", "--encoding=UTF8", "--username", SUPERUSER, "--locale", locale])
        .arg("--pwfile")
        .arg(password_file)
        .arg("--pgdata")
        .arg(data);
    if !sync {
        command.arg("--no-sync");
    }
    account.apply(&mut command);
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(text.lines().find(|line| line.contains("error:")).or(text.lines().last()).unwrap_or("no message").to_owned())
}

/// Data of one major version cannot be opened by another one.
fn check_version(binaries: &PostgresBinaries, data: &Path) -> Result<(), PostgresError> {
    let file = data.join("PG_VERSION");
    let version = fs::read_to_string(&file).map_err(|e| PostgresError::file("read", &file, e))?;
    if version.trim() == binaries.major().to_string() {
        return Ok(());
    }
    Err(PostgresError::Cluster(format!(
        "the data in {} were made by PostgreSQL {}, but {binaries} was found: set PG_BIN_DIR to version {} or start over with --fresh",
        data.display(),
        version.trim(),
        version.trim()
    )))
}

fn spawn(
    account: Account,
    binaries: &PostgresBinaries,
    place: &Path,
    log: &Path,
    port: u16,
    options: &ClusterOptions,
) -> Result<Child, PostgresError> {
    let output: File = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(log)
        .map_err(|e| PostgresError::file("write", log, e))?;
    let errors = output.try_clone().map_err(|e| PostgresError::file("write", log, e))?;
    let mut command = Command::new(binaries.program("postgres"));
    command.arg("-D").arg(place.join("data")).arg("-p").arg(port.to_string());
    // No Unix socket: its path would be limited to about 100 bytes, and nothing needs it.
    let mut settings = vec![
        "listen_addresses=127.0.0.1".to_owned(),
        "unix_socket_directories=".to_owned(),
        "logging_collector=off".to_owned(),
    ];
    settings.push(format!("max_connections={}", options.max_connections));
    if options.unsafe_fast {
        settings.extend(
            [
                "fsync=off",
                "synchronous_commit=off",
                "full_page_writes=off",
                "max_wal_size=2GB",
                "autovacuum_naptime=1h",
            ]
            .map(str::to_owned),
        );
    }
    for setting in settings {
        command.arg("-c").arg(setting);
    }
    account.apply(&mut command);
    // A group of its own: Ctrl-C in the terminal reaches us alone, and we stop the server after the services.
    command.process_group(0).stdin(Stdio::null()).stdout(output).stderr(errors);
    command.spawn().map_err(|e| PostgresError::file("run", binaries.program("postgres"), e))
}

/// Waits for "ready" in line 8 of `postmaster.pid`, as pg_ctl does.
fn wait_ready(server: &mut Child, place: &Path) -> Result<(), &'static str> {
    let until = Instant::now() + START_PATIENCE;
    let own = server.id().to_string();
    while Instant::now() < until {
        if !matches!(server.try_wait(), Ok(None)) {
            return Err("the server ended");
        }
        let text = fs::read_to_string(place.join("data/postmaster.pid")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        if lines.first() == Some(&own.as_str()) && lines.get(7) == Some(&"ready") {
            return Ok(());
        }
        pause(Duration::from_millis(20));
    }
    Err("the server was not ready after 120 s")
}

/// Waits for a child that was told to end; kills it if it does not.
fn end_child(child: &mut Child) {
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        pause(Duration::from_millis(20));
    }
    // Both only fail when the child has gone already.
    let _gone = child.kill();
    let _reaped = child.wait();
}
