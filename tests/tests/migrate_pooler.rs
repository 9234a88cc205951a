//! The `migrate` commands through a real PgBouncer: in session mode all of them work; in transaction mode what writes is
//! refused before anything is changed, and what reads answers as without a pooler.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a suite ends the test with a panic")]

use std::fs::File;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use local_pair::files::free_port;
use local_pair::guard::{EndBy, Guard};
use local_pair::postgres::{ServerAddress, connect};
use tests::catalog::{Snapshot, snapshot};
use tests::legacy::whole_schema;
use tests::{MigrateRun, Postgres, Service, TestDatabase, programs, run_migrate};

const SERVICES: [Service; 2] = [Service::Auth, Service::Task];
/// Both tables of the task-service differ: an index, a column's default, and a key.
const DRIFT: &str = "DROP INDEX idx_tasks_id; ALTER TABLE tasks ALTER COLUMN version DROP DEFAULT; \
    ALTER TABLE task_requests DROP CONSTRAINT task_requests_pkey";

/// A running PgBouncer in front of the shared PostgreSQL; ended with the value.
#[derive(Debug)]
struct Pooler {
    server: ServerAddress,
    process: Child,
    directory: tempfile::TempDir,
}

impl Pooler {
    /// `mode` and `size` are PgBouncer's `pool_mode` and `default_pool_size`.
    async fn start(mode: &str, size: u16) -> Self {
        let postgres = Postgres::shared().await;
        let directory = tempfile::tempdir().unwrap();
        let port = free_port().unwrap();
        let (config, users) = (directory.path().join("pgbouncer.ini"), directory.path().join("users"));
        let roles = postgres.roles();
        let lines = [&roles.migrator, &roles.runtime].map(|role| format!("\"{}\" \"{}\"\n", role.name, role.password));
        std::fs::write(&users, lines.concat()).unwrap();
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = plain\nauth_file = {}\npool_mode = {mode}\ndefault_pool_size = {size}\n\
             server_tls_sslmode = disable\n",
            postgres.address().port,
            users.display()
        );
        std::fs::write(&config, settings).unwrap();
        let log = File::create(directory.path().join("log")).unwrap();
        let mut command = Command::new(pgbouncer());
        command.arg(&config).current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // It refuses to run as root, as PostgreSQL does.
        if let Some((uid, gid)) = unprivileged() {
            std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
            for path in [directory.path(), &config, &users] {
                chown(path, Some(uid), Some(gid)).unwrap();
            }
            command.uid(uid).gid(gid);
        }
        let process = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", pgbouncer().display()));
        guard().watch(process.id(), EndBy::Kill);
        let server = ServerAddress { port, ..postgres.address().clone() };
        let mut pooler = Self { server, process, directory };
        pooler.wait_ready().await;
        pooler
    }

    async fn wait_ready(&mut self) {
        let started = Instant::now();
        while let Err(error) =
            connect(&self.server.role_url(&Postgres::shared().await.roles().migrator, "postgres")).await
        {
            let ended = self.process.try_wait().unwrap();
            if ended.is_some() || started.elapsed() > Duration::from_secs(20) {
                let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
                panic!("PgBouncer is not ready ({ended:?}): {error}\n{log}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The database of a test, through the pooler.
    async fn url(&self, database: &TestDatabase) -> String {
        self.server.role_url(&Postgres::shared().await.roles().migrator, database.name())
    }

    async fn migrate(&self, service: Service, database: &TestDatabase, arguments: &[&str]) -> MigrateRun {
        run_migrate(service, &self.url(database).await, &[arguments, &["--output", "json"]].concat()).await
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
        guard().forget(self.process.id());
    }
}

/// Ends the poolers of this test process if it is killed.
fn guard() -> &'static Guard {
    static GUARD: OnceLock<Guard> = OnceLock::new();
    GUARD.get_or_init(|| Guard::spawn(&programs().local_pair).unwrap())
}

/// The program, from `PATH` or where Debian puts it. As root on Debian and Ubuntu the package is installed where it is missing.
fn pgbouncer() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let find = || {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let directories = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
            directories.map(|directory| directory.join("pgbouncer")).find(|program| program.is_file())
        };
        if find().is_none()
            && rustix::process::geteuid().is_root()
            && Path::new("/usr/bin/apt-get").exists()
        {
            for arguments in [&["update"][..], &["install", "-y", "--no-install-recommends", "pgbouncer"]] {
                let status = Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive").status();
                assert!(status.is_ok_and(|status| status.success()), "`apt-get {}` failed", arguments.join(" "));
            }
        }
        find().unwrap_or_else(|| {
            panic!("no pgbouncer in PATH or /usr/sbin: install the package pgbouncer (`apt-get install pgbouncer`, `brew install pgbouncer`)")
        })
    })
}

/// For root, the user that runs PostgreSQL in the tests.
fn unprivileged() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let ids = |name: &str| {
        let mut fields = users.lines().find(|line| line.split(':').next() == Some(name))?.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    let found = ["postgres", "nobody"].into_iter().find_map(ids);
    Some(found.unwrap_or_else(|| panic!("no user postgres or nobody: create one with `useradd --system postgres`")))
}

/// Everything that a refused command must leave as it was.
async fn whole(database: &TestDatabase) -> Snapshot {
    snapshot(&database.client().await).await
}

/// A lock that a refused run left in a server session of the pool would hold every later run back.
async fn assert_no_lock_left(database: &TestDatabase, about: &str) {
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' \
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let left: i64 = database.client().await.query_one(locks, &[]).await.unwrap().get(0);
    assert_eq!(left, 0, "{about}: a lock was left in the pool");
}

fn assert_refused(run: &MigrateRun, about: &str) {
    assert_eq!(run.code, 2, "{about}: {run:#?}");
    let told = format!("{}{}", run.stdout, run.stderr);
    for word in ["pooler", "transaction mode", "direct address", "session mode"] {
        assert!(told.contains(word), "{about}: `{word}` is not told: {run:#?}");
    }
}

#[tokio::test]
async fn in_session_mode_everything_works() {
    let pooler = Pooler::start("session", 20).await;
    let direct = TestDatabase::migrated_both().await;
    let fresh = whole_schema(&direct.client().await).await;
    let database = TestDatabase::empty().await;
    // Two runners of each service at once.
    let up = SERVICES.into_iter().chain(SERVICES).map(|service| pooler.migrate(service, &database, &["up"]));
    for run in futures_util::future::join_all(up).await {
        assert_eq!(run.code, 0, "{run:#?}");
    }
    assert_eq!(whole_schema(&database.client().await).await, fresh);
    for service in SERVICES {
        for command in ["verify", "status", "plan", "up"] {
            let run = pooler.migrate(service, &database, &[command]).await;
            assert_eq!(run.code, 0, "{command}: {run:#?}");
        }
    }
    database.execute(DRIFT).await;
    let mended = pooler.migrate(Service::Task, &database, &["repair", "--apply"]).await;
    assert_eq!(mended.code, 0, "{mended:#?}");
    assert_eq!(whole_schema(&database.client().await).await, fresh);
    let down = pooler.migrate(Service::Task, &database, &["down", "--steps", "1"]).await;
    assert_eq!(down.code, 0, "{down:#?}");
    let up = pooler.migrate(Service::Task, &database, &["up"]).await;
    assert_eq!(up.code, 0, "{up:#?}");
    assert_eq!(whole_schema(&database.client().await).await, fresh);
    assert_no_lock_left(&database, "session mode").await;
}

#[tokio::test]
async fn in_transaction_mode_what_writes_is_refused_and_changes_nothing() {
    for size in [1, 2, 8] {
        let pooler = Pooler::start("transaction", size).await;
        let (empty, drifted) = (TestDatabase::empty().await, TestDatabase::migrated_task().await);
        let whole_one = TestDatabase::migrated_task().await;
        drifted.execute(DRIFT).await;
        for (database, arguments) in [
            (&empty, &["up"][..]),
            (&drifted, &["up"]),
            (&drifted, &["repair", "--apply"]),
            (&whole_one, &["down", "--steps", "1"]),
        ] {
            let about = format!("{arguments:?} with default_pool_size={size}");
            let before = whole(database).await;
            // Again and again: which server session is lent to whom is chance.
            for _ in 0..3 {
                assert_refused(&pooler.migrate(Service::Task, database, arguments).await, &about);
                assert_no_lock_left(database, &about).await;
            }
            assert_eq!(whole(database).await, before, "{about}");
        }
        // Directly it goes on, with the pool's sessions still open.
        for database in [&empty, &drifted] {
            let run = run_migrate(Service::Task, &database.migrator_url(), &["up", "--lock-wait", "5s"]).await;
            assert_eq!(run.code, 0, "{run:#?}");
        }
    }
}

#[tokio::test]
async fn in_transaction_mode_what_reads_answers_as_without_a_pooler() {
    let (empty, drifted) = (TestDatabase::empty().await, TestDatabase::migrated_task().await);
    let whole_one = TestDatabase::migrated_task().await;
    drifted.execute(DRIFT).await;
    for size in [1, 8] {
        let pooler = Pooler::start("transaction", size).await;
        for (database, state) in [(&empty, "pending"), (&drifted, "drift"), (&whole_one, "match")] {
            let before = whole(database).await;
            for arguments in [&["verify"][..], &["status"], &["plan"], &["repair"]] {
                let about = format!("{arguments:?}, {state}, default_pool_size={size}");
                let through = pooler.migrate(Service::Task, database, arguments).await;
                let json = [arguments, &["--output", "json"]].concat();
                let directly = run_migrate(Service::Task, &database.migrator_url(), &json).await;
                assert_eq!(through.code, directly.code, "{about}: {through:#?}");
                let (through, directly) = (through.json(), directly.json());
                if arguments[0] != "status" {
                    assert_eq!(through["state"], state, "{about}: {through:#}");
                }
                for part in ["applied", "pending", "unknown", "drift", "statements", "repairs", "blockers", "last_run"]
                {
                    assert_eq!(through[part], directly[part], "{about}: {part}");
                }
            }
            assert_eq!(whole(database).await, before, "{state}, default_pool_size={size}");
        }
    }
}

/// Each of the two could take the lock that the pool keeps for the other.
#[tokio::test]
async fn in_transaction_mode_two_runners_at_once_change_nothing() {
    for size in [1, 2, 8] {
        let pooler = Pooler::start("transaction", size).await;
        let database = TestDatabase::migrated_task().await;
        database.execute(DRIFT).await;
        let before = whole(&database).await;
        for round in 0..3 {
            let about = format!("round {round} with default_pool_size={size}");
            let (one, other) = tokio::join!(
                pooler.migrate(Service::Task, &database, &["up", "--lock-wait", "3s"]),
                pooler.migrate(Service::Task, &database, &["up", "--lock-wait", "3s"])
            );
            assert_refused(&one, &about);
            assert_refused(&other, &about);
            assert_eq!(whole(&database).await, before, "{about}");
            assert_no_lock_left(&database, &about).await;
        }
    }
}
