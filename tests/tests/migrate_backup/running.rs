//! While the dump runs: what others can see of it, what SIGTERM leaves, and what a server that goes away does to it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;
use tests::legacy::{all_rows, fixture, whole_schema};
use tests::{Service, TestDatabase, client_tools};
use tokio::process::Child;

use crate::{archive, names, password, tools_with, up_with};

const PATIENCE: Duration = Duration::from_secs(60);

/// A run of `up` that is looked at while it works.
struct Run {
    child: Child,
    /// Files, as nobody reads a pipe meanwhile.
    output: TempDir,
}

impl Run {
    fn start(database: &TestDatabase, directory: &Path) -> Self {
        let output = tempfile::tempdir().unwrap();
        let file = |name: &str| fs::File::create(output.path().join(name)).unwrap();
        let child = tokio::process::Command::new(Service::Auth.program())
            .args(["migrate", "up", "--output", "json", "--backup-dir"])
            .arg(directory)
            .env("DATABASE_URL", database.migrator_url())
            .env("PG_BIN_DIR", client_tools())
            .env("RUST_LOG", "trace")
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { child, output }
    }

    /// SIGTERM; answers the exit code and all it has written.
    async fn terminate(mut self) -> (Option<i32>, String) {
        kill_process(Pid::from_raw(self.child.id().unwrap().try_into().unwrap()).unwrap(), Signal::TERM).unwrap();
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap();
        let text = |name: &str| fs::read_to_string(self.output.path().join(name)).unwrap();
        (status.code(), [text("stdout"), text("stderr")].concat())
    }
}

/// Asks again until there is an answer.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(found) = ask().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited {PATIENCE:?} for {what}");
}

/// The children of a process: their numbers and whole command lines.
fn children(parent: u32) -> Vec<(u32, String)> {
    if cfg!(target_os = "linux") {
        let tasks = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        // Not every kernel has that file: then each process is asked for its parent.
        let ids: Vec<u32> = match tasks {
            Ok(text) if !text.is_empty() => text.split_whitespace().map(|id| id.parse().unwrap()).collect(),
            _ => fs::read_dir("/proc")
                .unwrap()
                .filter_map(|entry| entry.unwrap().file_name().to_str().and_then(|name| name.parse().ok()))
                .filter(|id: &u32| {
                    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
                    status.lines().any(|line| line.split_whitespace().eq(["PPid:", &parent.to_string()]))
                })
                .collect(),
        };
        let line = |id: u32| fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default().replace('\0', " ");
        return ids.into_iter().map(|id| (id, line(id))).collect();
    }
    let listed = std::process::Command::new("ps").args(["-A", "-o", "pid=,ppid=,command="]).output().unwrap();
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let fields = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (id, of) = (words.next()?.parse().ok()?, words.next()?.parse::<u32>().ok()?);
        (of == parent).then(|| (id, words.collect::<Vec<_>>().join(" ")))
    });
    fields.collect()
}

fn partial(directory: &Path) -> Option<PathBuf> {
    names(directory).into_iter().find(|name| name.ends_with(".dump.partial")).map(|name| directory.join(name))
}

/// How many sessions of a dump are in the database.
async fn dumps(client: &tokio_postgres::Client) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'auth-service backup'";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Somebody holds a table, so the dump waits: time to look at it, then to end it.
#[tokio::test]
async fn the_password_is_in_no_argument_and_no_log_and_sigterm_ends_a_waiting_dump() {
    let sql = format!("{}\nCREATE TABLE elsewhere (a int);", fixture("legacy/incident"));
    let database = TestDatabase::from_sql(&sql).await;
    let (client, holder) = (database.client().await, database.client().await);
    let (schema, rows) = (whole_schema(&client).await, all_rows(&client).await);
    let (place, secret) = (tempfile::tempdir().unwrap(), password(&database));
    holder.batch_execute("BEGIN; LOCK TABLE elsewhere").await.unwrap();

    let run = Run::start(&database, place.path());
    let id = run.child.id().unwrap();
    until("the dump's session", async || (dumps(&client).await > 0).then_some(())).await;
    let (dump, line) = until("pg_dump", async || {
        children(id).into_iter().find(|(_, line)| line.contains("pg_dump") && line.contains("--format=custom"))
    })
    .await;
    assert!(!line.contains(&secret) && !line.contains("127.0.0.1"), "{line}");
    let unfinished = partial(place.path()).unwrap();
    assert_eq!(fs::metadata(unfinished).unwrap().permissions().mode() & 0o777, 0o600);

    let (code, written) = run.terminate().await;
    assert_eq!(code, Some(1), "{written}");
    assert_eq!(names(place.path()), [""; 0]);
    let gone = test_kill_process(Pid::from_raw(dump.try_into().unwrap()).unwrap()).is_err();
    assert!(gone, "pg_dump {dump} is still there");
    // The table is still held: only a cancelled statement ends now.
    until("the end of the dump's session", async || (dumps(&client).await == 0).then_some(())).await;
    assert!(written.contains("dumping the database") && written.contains("interrupted"), "{written}");
    assert!(!written.contains(&secret), "the password is in the output");
    holder.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(whole_schema(&client).await, schema);
    assert_eq!(all_rows(&client).await, rows);
}

/// The rows are on their way into the file.
#[tokio::test]
async fn sigterm_while_rows_are_written_leaves_nothing() {
    let sql = format!(
        "{}\nCREATE TABLE elsewhere (a text);
         INSERT INTO elsewhere SELECT gen_random_uuid()::text || gen_random_uuid() FROM generate_series(1, 500000);",
        fixture("legacy/incident")
    );
    let database = TestDatabase::from_sql(&sql).await;
    let client = database.client().await;
    let schema = whole_schema(&client).await;
    let place = tempfile::tempdir().unwrap();
    let run = Run::start(&database, place.path());
    until("the first rows in the file", async || {
        partial(place.path()).filter(|path| fs::metadata(path).is_ok_and(|metadata| metadata.len() > 1_000_000))
    })
    .await;
    let (code, written) = run.terminate().await;
    assert_eq!(code, Some(1), "{written}");
    assert_eq!(names(place.path()), [""; 0]);
    assert_eq!(whole_schema(&client).await, schema);
    until("the end of the dump's session", async || (dumps(&client).await == 0).then_some(())).await;
}

/// Every session of the database is ended in the middle of the first dump, as by a restart: the run begins again.
#[tokio::test]
async fn a_lost_server_is_ridden_out_with_a_new_archive() {
    let database = TestDatabase::from_sql(&fixture("legacy/incident")).await;
    let client = database.client().await;
    let (place, marks) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (begun, lost) = (marks.path().join("begun"), marks.path().join("lost"));
    let tools = tools_with(&format!(
        "if [ -e '{0}' ]; then exec \"$REAL\" \"$@\"; fi\ntouch '{0}'\nuntil [ -e '{1}' ]; do sleep 0.05; done\nexit 1",
        begun.display(),
        lost.display()
    ));
    let url = database.migrator_url();
    let environment = [("PG_BIN_DIR", tools.path().to_str().unwrap())];
    let run = up_with(Service::Auth, &url, place.path(), &[], &environment);
    let cut = async {
        until("the first dump", async || begun.exists().then_some(())).await;
        let sql = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
        assert!(client.query(sql, &[]).await.unwrap().len() >= 2, "the run and its lock");
        fs::write(&lost, "").unwrap();
    };
    let (run, ()) = tokio::join!(run, cut);
    let made = archive(&run);
    assert_eq!(names(place.path()), [made.file_name().unwrap().to_str().unwrap()]);
}
