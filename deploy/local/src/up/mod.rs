//! The command `cargo up`: PostgreSQL, databases, migrations, administrator, both services; then waits and stops them in order.

mod administrator;
mod child;
mod databases;
mod directory;
mod error;
mod migrations;
mod options;
mod progress;
mod screen;
mod service_account;
mod services;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};

use self::directory::{Directory, Secrets, State};
use self::progress::Progress;
use self::screen::Environment;
use self::services::{Service, ServicePlan, reachable};
use crate::files;
use crate::guard::{EndBy, Guard};
use crate::postgres::{Cluster, ClusterOptions, Dump, PostgresBinaries, ServerAddress, database_grant};
use crate::programs::{Profile, build_command, built};

pub use error::UpError;
pub use options::UpOptions;

/// The packages that are built and run.
const SERVICES: [&str; 2] = ["auth-service", "task-service"];

/// Runs `cargo up` to its end and answers the exit code.
pub fn main(options: &UpOptions) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(Err(anyhow::Error::new(error).context("the asynchronous runtime does not start"))),
    };
    match runtime.block_on(run(options)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let code = error.code;
            for line in &error.context {
                anstream::eprintln!("    {line}");
            }
            report(Err(error.into()));
            ExitCode::from(code)
        }
    }
}

/// Prints the error of a command, if any, and answers its exit code.
pub fn report(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, whatever a program has said.
            anstream::eprintln!("error: {}", format!("{error:#}").trim_end().replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

/// The signals that ask us to stop.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Interrupts {
    fn listen() -> Result<Self, UpError> {
        let on = |kind| signal(kind).map_err(|error| UpError::failed(format!("signals cannot be received: {error}")));
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hang_up: on(SignalKind::hangup())?,
        })
    }

    /// Waits for one; answers its number.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
            _ = self.hang_up.recv() => 1,
        }
    }
}

async fn run(options: &UpOptions) -> Result<u8, UpError> {
    let mut interrupts = Interrupts::listen()?;
    let progress = Progress::new();
    let started = tokio::select! {
        started = start(options, &progress) => started,
        number = interrupts.next() => {
            // What was started so far has been stopped by being dropped.
            progress.pause();
            anstream::eprintln!("stopped before the pair was up");
            return Ok(128 + number);
        }
    };
    progress.pause();
    let mut pair = started?;
    let ended = tokio::select! {
        error = pair.unexpected_end() => Some(error),
        _ = interrupts.next() => None,
    };
    progress.begin("stopping");
    tokio::select! {
        stopped = pair.stop() => stopped?,
        _ = interrupts.next() => anstream::eprintln!("stopping at once"),
    }
    match ended {
        Some(error) => Err(error),
        None => {
            progress.done("stopped; the data stay for the next `cargo up`");
            Ok(0)
        }
    }
}

/// Everything that runs. The order of the fields is the order in which they are dropped: services, PostgreSQL, guard, lock.
struct Pair {
    task: Service,
    auth: Service,
    cluster: Cluster,
    guard: Guard,
    directory: Directory,
}

impl Pair {
    /// Waits until something ends that nobody asked to.
    async fn unexpected_end(&mut self) -> UpError {
        loop {
            tokio::select! {
                error = self.auth.unexpected_end() => return error,
                error = self.task.unexpected_end() => return error,
                () = tokio::time::sleep(std::time::Duration::from_millis(500)) => {
                    if !self.cluster.is_running() {
                        return UpError::failed(format!("PostgreSQL ended by itself; its log: {}", self.cluster.log_file().display()));
                    }
                }
            }
        }
    }

    /// Drains the services, then stops PostgreSQL.
    async fn stop(self) -> Result<(), UpError> {
        let Self { task, auth, cluster, guard, directory } = self;
        tokio::join!(task.stop(&directory, &guard), auth.stop(&directory, &guard));
        let server = cluster.process();
        blocking(move || cluster.stop()).await?;
        if let Some(server) = server {
            guard.forget(server.pid);
        }
        Ok(())
    }
}

/// All steps up to `ready`. Dropped in the middle, or failed, it leaves nothing running.
async fn start(options: &UpOptions, progress: &Progress) -> Result<Pair, UpError> {
    let dump = options.restore.as_deref().map(read_dump).transpose()?;
    let directory = Directory::open(&options.dir)?;
    let state = if options.fresh { None } else { directory.state()? };
    if state.as_ref().is_some_and(|state| state.complete) && options.restore.is_some() {
        return Err(UpError::usage(format!(
            "--restore: {} holds a database already; go on with it by `cargo up` alone, choose another --dir, or replace it with --fresh",
            directory.path().display()
        )));
    }
    let (auth_at, task_at) = addresses(options)?;

    progress.begin("looking for PostgreSQL");
    let telling = progress.clone();
    let binaries = blocking(move || PostgresBinaries::find_or_install(&mut |text| telling.begin(text))).await?;
    progress.done(&binaries.to_string());

    let programs = build(options, progress).await?;
    let auth_program = &programs[SERVICES[0]];
    let task_program = &programs[SERVICES[1]];
    if options.fresh {
        directory.clear()?;
    }
    directory.prepare()?;
    let mut secrets = directory.secrets(state.as_ref())?;

    progress.begin("starting PostgreSQL");
    let cluster_options = ClusterOptions::durable(directory.postgres());
    let cluster = blocking(move || Cluster::start(&binaries, &cluster_options)).await?;
    let guard = guard()?;
    if let Some(server) = cluster.process() {
        guard.watch(server.pid, EndBy::Interrupt);
    }
    progress.done(&format!(
        "PostgreSQL on 127.0.0.1:{}, data in {}",
        cluster.port(),
        cluster.data_directory().display()
    ));

    let server = ServerAddress { port: cluster.port(), password: cluster.password().to_owned() };
    let dump = options.restore.as_deref().zip(dump.as_ref());
    let state = databases::prepare(&directory, state, dump, &secrets, &server, progress).await?;
    migrate(&state, &secrets, &server, auth_program, task_program, progress).await?;
    let administrator =
        administrator::bootstrap(&directory, &mut secrets, auth_program, &server, &state.auth_database, progress)
            .await?;

    let task_secret =
        service_account::setup(&directory, &mut secrets, auth_program, &server, &state.auth_database).await?;

    progress.begin("starting the services");
    let metrics = || {
        files::free_port()
            .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            .map_err(|error| UpError::failed(format!("no free port: {error}")))
    };
    let environment = Environment {
        auth_addr: reachable(auth_at).to_string(),
        task_addr: reachable(task_at).to_string(),
        auth_metrics_addr: metrics()?.to_string(),
        task_metrics_addr: metrics()?.to_string(),
        auth_database_url: server.role_url(&secrets.roles(&state.auth_database).runtime, &state.auth_database),
        task_database_url: server.role_url(&secrets.roles(&state.task_database).runtime, &state.task_database),
        admin_email: administrator.email,
        admin_password: secrets.admin_password.clone(),
        mail_dir: directory.mail().display().to_string(),
    };
    let (auth, task) = plans(&environment, &secrets, task_secret, (auth_program, auth_at), (task_program, task_at));
    let mut auth = Service::start(auth, &directory, &guard)?;
    let mut task = Service::start(task, &directory, &guard)?;
    tokio::try_join!(auth.healthy(), task.healthy())?;
    progress.done("both services are healthy");
    environment.announce(&directory)?;
    Ok(Pair { task, auth, cluster, guard, directory })
}

fn read_dump(path: &Path) -> Result<Dump, UpError> {
    if !path.is_file() {
        return Err(UpError::usage(format!(
            "--restore {}: no such file; name a plain SQL dump as pg_dump writes it",
            path.display()
        )));
    }
    Ok(Dump::read(path)?)
}

/// The addresses with port 0 replaced; both can be bound now.
fn addresses(options: &UpOptions) -> Result<(SocketAddr, SocketAddr), UpError> {
    if overlap(options.auth_addr, options.task_addr) {
        return Err(UpError::usage(format!(
            "--auth-addr {} and --task-addr {} cannot both be listened on: give them different ports",
            options.auth_addr, options.task_addr
        )));
    }
    let bindable = |flag: &str, address: SocketAddr| {
        files::bindable(address).map_err(|error| {
            UpError::failed(format!("{flag} {address}: {error}; choose another address, or port 0 for a free one"))
        })
    };
    Ok((bindable("--auth-addr", options.auth_addr)?, bindable("--task-addr", options.task_addr)?))
}

/// Whether only one of two programs can listen: the same port on the same address, or on one that includes the other.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    // `::` takes the port for IPv4 as well on most systems.
    let includes = |a: IpAddr, b: IpAddr| a.is_unspecified() && (a.is_ipv6() || b.is_ipv4());
    one.port() != 0 && one.port() == other.port() && (a == b || includes(a, b) || includes(b, a))
}

async fn build(options: &UpOptions, progress: &Progress) -> Result<BTreeMap<String, PathBuf>, UpError> {
    let profile = if options.release { Profile::Release } else { Profile::Dev };
    progress.begin("building auth-service and task-service (the first time takes some minutes)");
    // cargo shows its own progress.
    progress.pause();
    let mut command = tokio::process::Command::from(build_command(&SERVICES, profile, false));
    let output = command
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| UpError::failed(format!("cannot run cargo: {error}")))?;
    let programs = built(&output, &SERVICES)?;
    progress.done("built auth-service and task-service");
    Ok(programs)
}

async fn migrate(
    state: &State,
    secrets: &Secrets,
    server: &ServerAddress,
    auth: &Path,
    task: &Path,
    progress: &Progress,
) -> Result<(), UpError> {
    let mut owned = Vec::new();
    for (service, program, database) in
        [(SERVICES[0], auth, &state.auth_database), (SERVICES[1], task, &state.task_database)]
    {
        let roles = secrets.roles(database);
        let migrated =
            migrations::migrate(service, program, &server.role_url(&roles.migrator, database), progress).await;
        owned.extend(migrated.map_err(|error| UpError {
            message: format!("{}; the database is kept: `cargo up` tries again, `--fresh` starts over", error.message),
            ..error
        })?);
        database_grant(server, database, &roles).await?;
    }
    let others = databases::other_tables(server, &state.auth_database, &owned).await?;
    if !others.is_empty() {
        progress.done(&format!("left alone, as they belong to neither service: {}", others.join(", ")));
    }
    Ok(())
}

/// How both services are started.
fn plans<'a>(
    environment: &Environment,
    secrets: &Secrets,
    task_secret: String,
    (auth_program, auth_at): (&'a Path, SocketAddr),
    (task_program, task_at): (&'a Path, SocketAddr),
) -> (ServicePlan<'a>, ServicePlan<'a>) {
    let auth = vec![
        ("DATABASE_URL", environment.auth_database_url.clone()),
        ("METRICS_ADDR", environment.auth_metrics_addr.clone()),
        ("TASK_SERVICE_URL", format!("http://{}", environment.task_addr)),
        ("KEY_ENCRYPTION_KEY", secrets.key_encryption_key.clone()),
        ("MAIL_DIR", environment.mail_dir.clone()),
    ];
    let task = vec![
        ("DATABASE_URL", environment.task_database_url.clone()),
        ("METRICS_ADDR", environment.task_metrics_addr.clone()),
        ("AUTH_SERVICE_URL", format!("http://{}", environment.auth_addr)),
        ("AUTH_CLIENT_ID", service_account::CLIENT_ID.to_owned()),
        ("AUTH_CLIENT_SECRET", task_secret),
    ];
    (
        ServicePlan { name: SERVICES[0], program: auth_program, address: auth_at, environment: auth },
        ServicePlan { name: SERVICES[1], program: task_program, address: task_at, environment: task },
    )
}

/// The guard that ends everything if we are killed.
fn guard() -> Result<Guard, UpError> {
    // On Linux this name holds also after another build has replaced the file, which happens while ours waits for cargo.
    let program = match cfg!(target_os = "linux") {
        true => PathBuf::from("/proc/self/exe"),
        false => std::env::current_exe()
            .map_err(|error| UpError::failed(format!("our own program cannot be found: {error}")))?,
    };
    Guard::spawn(&program).map_err(|error| UpError::file("run", &program, &error))
}

/// Runs work that blocks on a thread of its own.
async fn blocking<T: Send + 'static, E: Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, UpError>
where
    UpError: From<E>,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => Ok(outcome?),
        Err(error) => Err(UpError::failed(format!("a worker thread ended: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_takes_the_port_of_every_address() {
        let overlaps = |one: &str, other: &str| {
            let (one, other) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(overlap(one, other), overlap(other, one));
            overlap(one, other)
        };
        for (one, other) in [
            ("127.0.0.1:7000", "127.0.0.1:7000"),
            ("0.0.0.0:7000", "127.0.0.1:7000"),
            ("[::]:7000", "127.0.0.1:7000"),
            ("[::]:7000", "0.0.0.0:7000"),
            ("[::]:7000", "[::1]:7000"),
            ("[::ffff:127.0.0.1]:7000", "127.0.0.1:7000"),
        ] {
            assert!(overlaps(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("0.0.0.0:7000", "127.0.0.1:7001"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            ("127.0.0.1:7000", "127.0.0.2:7000"),
            ("0.0.0.0:7000", "[::1]:7000"),
        ] {
            assert!(!overlaps(one, other), "{one} {other}");
        }
    }
}
