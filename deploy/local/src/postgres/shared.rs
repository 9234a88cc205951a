//! One private cluster for all test processes of this user and workspace at once. A small watching process holds it: the first
//! test starts that process, and it stops and removes the cluster when no test process has been there for three seconds.
//!
//! Everything lies in one directory per user and workspace below the temporary directory:
//! `start.lock` (held while somebody joins or the watcher leaves), `users.lock` (shared by every test process, so the kernel
//! counts the users, also killed ones), `alive.lock` (held by the watcher), `address` (port and password).

use std::env;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Cluster, ClusterOptions, PostgresBinaries, PostgresError, ServerAddress};
use crate::files::{self, FileLock};
use crate::process::pause;

/// Test binaries of one `cargo test` follow each other within less than this.
const IDLE_LIMIT: Duration = Duration::from_secs(3);

/// initdb and start take about two seconds; a machine under load needs more.
const JOIN_PATIENCE: Duration = Duration::from_secs(120);

/// A place in the shared test cluster: the cluster runs at least until this is dropped.
#[derive(Debug)]
pub struct SharedCluster {
    address: ServerAddress,
    _user: FileLock,
}

impl SharedCluster {
    /// Joins the shared cluster, starting it if need be. Blocks for a few seconds, and the first time while it builds the
    /// program `local-pair`, which watches over the cluster.
    ///
    /// # Errors
    /// No PostgreSQL, or the cluster did not start: with the reason from its watcher.
    pub fn join() -> Result<Self, PostgresError> {
        let programs =
            crate::programs::for_tests(&["local-pair"]).map_err(|error| PostgresError::Cluster(error.to_string()))?;
        let program = programs.get("local-pair").map(PathBuf::as_path).unwrap_or(Path::new("local-pair"));
        let directory = directory()?;
        let _joining = lock(FileLock::exclusive(&directory.join("start.lock")), &directory)?;
        let user = lock(FileLock::shared(&directory.join("users.lock")), &directory)?;
        if let Some(address) = running(&directory)? {
            return Ok(Self { address, _user: user });
        }
        let address_file = directory.join("address");
        files::remove_file(&address_file).map_err(|e| PostgresError::file("remove", &address_file, e))?;
        let log = directory.join("watch.log");
        let output = File::create(&log).map_err(|e| PostgresError::file("write", &log, e))?;
        let mut watcher = Command::new(program)
            .arg("watch-cluster")
            .arg(&directory)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            // Ctrl-C on the tests must leave it time to clean up.
            .process_group(0)
            .spawn()
            .map_err(|e| PostgresError::file("run", program, e))?;
        let until = Instant::now() + JOIN_PATIENCE;
        while Instant::now() < until {
            // Not by its lock: trying that one here could keep the watcher from taking it.
            if let Some(address) = written_address(&directory) {
                return Ok(Self { address, _user: user });
            }
            if !matches!(watcher.try_wait(), Ok(None)) {
                break;
            }
            pause(Duration::from_millis(50));
        }
        let reason = files::tail(&log, 1).pop().unwrap_or_else(|| format!("no message in {}", log.display()));
        Err(PostgresError::Cluster(format!("the shared test cluster did not start: {reason}")))
    }

    /// Where it listens.
    pub fn address(&self) -> &ServerAddress {
        &self.address
    }
}

/// The body of the hidden subcommand `watch-cluster DIR`: returns when nobody has used the cluster for three seconds.
///
/// # Errors
/// The cluster cannot be started or removed.
pub fn watch_cluster(directory: &Path) -> Result<(), PostgresError> {
    let Some(_alive) = lock(FileLock::try_exclusive(&directory.join("alive.lock")), directory)? else {
        return Ok(());
    };
    let postgres = directory.join("postgres");
    // What a killed watcher left.
    Cluster::remove(&postgres)?;
    let binaries = PostgresBinaries::find_or_install(&mut |_| ())?;
    let mut cluster = Cluster::start(&binaries, &ClusterOptions::for_tests(&postgres))?;
    let address = directory.join("address");
    files::write_private(&address, &format!("{} {}\n", cluster.port(), cluster.password()))
        .map_err(|e| PostgresError::file("write", &address, e))?;
    let mut last_use = Instant::now();
    loop {
        pause(Duration::from_millis(250));
        if !cluster.is_running() {
            files::remove_file(&address).map_err(|e| PostgresError::file("remove", &address, e))?;
            return Err(PostgresError::Cluster("the shared test cluster ended by itself".to_owned()));
        }
        if lock(FileLock::try_exclusive(&directory.join("users.lock")), directory)?.is_none() {
            last_use = Instant::now();
        }
        if last_use.elapsed() < IDLE_LIMIT {
            continue;
        }
        // Whoever joins from here on waits for the lock and then starts a new cluster.
        let Some(_leaving) = lock(FileLock::try_exclusive(&directory.join("start.lock")), directory)? else {
            continue;
        };
        if lock(FileLock::try_exclusive(&directory.join("users.lock")), directory)?.is_none() {
            continue;
        }
        files::remove_file(&address).map_err(|e| PostgresError::file("remove", &address, e))?;
        cluster.stop()?;
        return Cluster::remove(&postgres);
    }
}

/// The address, if a watcher is alive and has written it.
fn running(directory: &Path) -> Result<Option<ServerAddress>, PostgresError> {
    if lock(FileLock::try_exclusive(&directory.join("alive.lock")), directory)?.is_some() {
        return Ok(None);
    }
    Ok(written_address(directory))
}

fn written_address(directory: &Path) -> Option<ServerAddress> {
    let text = fs::read_to_string(directory.join("address")).ok()?;
    let (port, password) = text.trim().split_once(' ')?;
    Some(ServerAddress { port: port.parse().ok()?, password: password.to_owned() })
}

fn lock<T>(outcome: std::io::Result<T>, directory: &Path) -> Result<T, PostgresError> {
    outcome.map_err(|e| PostgresError::file("lock a file in", directory, e))
}

/// `<temporary directory>/local-pair-tests-<uid>-<hash of the workspace>`, ours alone.
fn directory() -> Result<PathBuf, PostgresError> {
    let uid = rustix::process::geteuid().as_raw();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, env!("CARGO_MANIFEST_DIR").as_bytes());
    let path = env::temp_dir().join(format!("local-pair-tests-{uid}-{}", hex::encode(&digest.as_ref()[..4])));
    files::create_dir(&path, 0o711).map_err(|e| PostgresError::file("create", &path, e))?;
    let owner = fs::symlink_metadata(&path).map_err(|e| PostgresError::file("read", &path, e))?;
    if owner.uid() != uid || !owner.is_dir() {
        return Err(PostgresError::Cluster(format!(
            "{} belongs to somebody else: remove it or set TMPDIR",
            path.display()
        )));
    }
    Ok(path)
}
