//! Locks, signals and the journal of `migrate up`: who holds it up is named, SIGTERM and Ctrl-C end it cleanly wherever it
//! waits, a killed run leaves no lock, and the journal tells what the report tells.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a suite ends the test with a panic")]

use std::time::{Duration, Instant};

use local_pair::postgres::connect;
use migration_engine::lock_key;
use rustix::process::Signal;
use tests::legacy::{fixture, whole_schema};
use tests::{MigrateRun, Runner, Service, TestDatabase, run_migrate};
use tokio_postgres::Client;

const UP: &[&str] = &["up", "--output", "json"];
/// Nothing here takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);
/// An index build waits until this has ended; it holds no lock on a table of ours.
const OLD_SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class WHERE relname \
    IN ('mallory@example.com', E'mallory@\\'example.com', $$mallory@example.com$$, $m$mallory@example.com$m$)";
const LOCK_TASKS: &str = "LOCK TABLE tasks IN ACCESS EXCLUSIVE MODE";
const BUILD_WAITS: &str = "SELECT EXISTS (SELECT FROM pg_stat_progress_create_index \
    WHERE datname = current_database() AND phase LIKE 'waiting for %')";
const TABLE_WAITED_FOR: &str = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'relation' \
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))";
/// As long as a statement queues for a table, everybody else queues behind it.
const NOBODY_QUEUES: &str =
    "SELECT NOT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'tasks'::regclass)";
const INVALID: &str = "SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid \
    WHERE c.relnamespace = 'public'::regnamespace AND NOT i.indisvalid";

/// Another session, whose last statement is `sql`.
struct Other {
    client: Client,
    pid: i32,
}

impl Other {
    /// The same role as the run's, so that the run may read what it does.
    async fn begin(database: &TestDatabase, sql: &str) -> Self {
        let client = connect(&database.migrator_url()).await.unwrap();
        let pid = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        client.batch_execute(sql).await.unwrap();
        Self { client, pid }
    }

    async fn end(&self) {
        self.client.batch_execute("COMMIT").await.unwrap();
    }
}

/// Waits until `sql` is true; answers how long that took.
async fn until(client: &Client, sql: &str) -> Duration {
    let started = Instant::now();
    loop {
        if client.query_one(sql, &[]).await.unwrap().get::<_, bool>(0) {
            return started.elapsed();
        }
        assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {sql}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn count(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

async fn text(client: &Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
}

/// Whether the lock of the service's migrations is free, as `pg_locks` shows it.
fn lock_is_free(service: Service) -> String {
    // A 64-bit key is shown in two halves.
    let key = lock_key(service.name());
    format!(
        "SELECT NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 \
         AND classid::bigint = ({key}::bigint >> 32) & 4294967295 AND objid::bigint = {key}::bigint & 4294967295 \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
    )
}

const LAST_RUN: &str = "SELECT outcome FROM __migration_runs ORDER BY started_at DESC LIMIT 1";
const STARTED: &str = "SELECT count(*) FROM __migration_actions WHERE outcome = 'started'";

/// Exit 1 within moments, and what to do next.
fn assert_interrupted(run: &MigrateRun, took: Duration) {
    assert_eq!(run.code, 1, "{run:#?}");
    assert!(took < Duration::from_secs(5), "it took {took:?} to end: {run:#?}");
    let error = run.json()["error"].as_str().unwrap().to_owned();
    assert!(error.contains("interrupted") && error.contains("run the command again"), "{error}");
}

#[tokio::test]
async fn a_held_up_index_build_ends_at_a_signal_and_leaves_nothing() {
    for signal in [Signal::TERM, Signal::INT] {
        let database = TestDatabase::migrated_task().await;
        let client = database.client().await;
        let fresh = whole_schema(&client).await;
        database.execute("DROP INDEX idx_tasks_id").await;
        let other = Other::begin(&database, OLD_SNAPSHOT).await;
        let runner = Runner::start(Service::Task, &database.migrator_url(), UP);
        until(&client, BUILD_WAITS).await;
        assert_eq!(count(&client, INVALID).await, 1, "it is under way");
        assert!(!client.query_one(&lock_is_free(Service::Task), &[]).await.unwrap().get::<_, bool>(0));
        let signalled = Instant::now();
        runner.process().signal(signal);
        let run = runner.wait(PATIENCE).await;
        assert_interrupted(&run, signalled.elapsed());
        assert!(client.query_one(&lock_is_free(Service::Task), &[]).await.unwrap().get::<_, bool>(0), "{signal:?}");
        assert_eq!(count(&client, INVALID).await, 0, "{signal:?}: {run:#?}");
        assert_eq!(text(&client, LAST_RUN).await, "interrupted");
        other.end().await;
        let next = run_migrate(Service::Task, &database.migrator_url(), UP).await;
        assert_eq!(next.code, 0, "{next:#?}");
        assert_eq!(whole_schema(&client).await, fresh, "{signal:?}");
        assert_eq!(count(&client, STARTED).await, 0);
    }
}

/// A session that has read the table holds up the build and the drop of what it left, too.
#[tokio::test]
async fn what_an_ended_build_could_not_clear_away_is_mended_by_the_next_run() {
    let database = TestDatabase::migrated_auth().await;
    let client = database.client().await;
    let fresh = whole_schema(&client).await;
    database.execute("DROP INDEX idx_refresh_tokens_user_id").await;
    let reader = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM refresh_tokens";
    let other = Other::begin(&database, reader).await;
    let runner = Runner::start(Service::Auth, &database.migrator_url(), UP);
    until(&client, BUILD_WAITS).await;
    let signalled = Instant::now();
    runner.process().signal(Signal::TERM);
    let run = runner.wait(PATIENCE).await;
    assert_eq!(run.code, 1, "{run:#?}");
    assert!(signalled.elapsed() < Duration::from_secs(12), "{:?}: {run:#?}", signalled.elapsed());
    assert!(run.json()["error"].as_str().unwrap().contains("interrupted"), "{run:#?}");
    assert!(run.stderr.contains("the next run mends it"), "{run:#?}");
    assert!(client.query_one(&lock_is_free(Service::Auth), &[]).await.unwrap().get::<_, bool>(0));
    assert_eq!(count(&client, INVALID).await, 1, "the reader is still there");
    assert_eq!(text(&client, LAST_RUN).await, "interrupted");
    other.end().await;
    let next = run_migrate(Service::Auth, &database.migrator_url(), UP).await;
    assert_eq!(next.code, 0, "{next:#?}");
    assert_eq!(whole_schema(&client).await, fresh);
    assert_eq!((count(&client, INVALID).await, count(&client, STARTED).await), (0, 0));
}

#[tokio::test]
async fn a_run_that_waits_for_another_one_ends_at_a_signal() {
    for signal in [Signal::TERM, Signal::INT] {
        let database = TestDatabase::migrated_task().await;
        database.execute("DROP INDEX idx_tasks_id").await;
        let client = database.client().await;
        let runs = count(&client, "SELECT count(*) FROM __migration_runs").await;
        let lock = format!("SELECT pg_advisory_lock({})", lock_key(Service::Task.name()));
        let other = Other::begin(&database, &lock).await;
        let runner = Runner::start(Service::Task, &database.migrator_url(), UP);
        // Its connection for the lock has tried, and is quiet until it tries again.
        let tried = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() \
            AND pid <> pg_backend_pid() AND state = 'idle' AND query LIKE '%pg_try_advisory_lock%')";
        until(&client, tried).await;
        let signalled = Instant::now();
        runner.process().signal(signal);
        let run = runner.wait(PATIENCE).await;
        assert_interrupted(&run, signalled.elapsed());
        assert!(run.stderr.contains(&format!("pid {},", other.pid)), "who holds it is told: {run:#?}");
        assert_eq!(count(&client, "SELECT count(*) FROM __migration_runs").await, runs, "it did not begin");
        drop(other);
        let next = run_migrate(Service::Task, &database.migrator_url(), UP).await;
        assert_eq!(next.code, 0, "{next:#?}");
    }
}

#[tokio::test]
async fn a_run_that_waits_to_alter_a_table_ends_at_a_signal() {
    for signal in [Signal::TERM, Signal::INT] {
        ends_while_it_waits_for_a_table("SELECT count(*) FROM tasks", signal).await;
    }
}

/// The catalog's own functions wait for such a lock: already the first look at the schema does.
#[tokio::test]
async fn a_run_that_waits_to_look_at_a_table_ends_at_a_signal() {
    ends_while_it_waits_for_a_table(LOCK_TASKS, Signal::TERM).await;
}

async fn ends_while_it_waits_for_a_table(held: &str, signal: Signal) {
    let database = TestDatabase::migrated_task().await;
    let client = database.client().await;
    let fresh = whole_schema(&client).await;
    database.execute("ALTER TABLE tasks ALTER COLUMN status DROP DEFAULT").await;
    let other = Other::begin(&database, &format!("BEGIN; {held}")).await;
    let runner = Runner::start(Service::Task, &database.migrator_url(), UP);
    until(&client, TABLE_WAITED_FOR).await;
    let signalled = Instant::now();
    runner.process().signal(signal);
    let run = runner.wait(PATIENCE).await;
    assert_interrupted(&run, signalled.elapsed());
    assert!(client.query_one(&lock_is_free(Service::Task), &[]).await.unwrap().get::<_, bool>(0));
    until(&client, NOBODY_QUEUES).await;
    other.end().await;
    let next = run_migrate(Service::Task, &database.migrator_url(), UP).await;
    assert_eq!(next.code, 0, "{next:#?}");
    assert_eq!(whole_schema(&client).await, fresh);
    let failed = "SELECT count(*) FROM __migration_runs WHERE outcome NOT IN ('done', 'interrupted')";
    assert_eq!(count(&client, failed).await, 0);
}

#[tokio::test]
async fn the_log_names_who_holds_up_an_index_build_without_values() {
    let database = TestDatabase::migrated_task().await;
    database.execute("DROP INDEX idx_tasks_id").await;
    let client = database.client().await;
    let other = Other::begin(&database, OLD_SNAPSHOT).await;
    let runner = Runner::start(Service::Task, &database.migrator_url(), UP);
    until(&client, BUILD_WAITS).await;
    // Longer than the time between two looks of the run at its build.
    tokio::time::sleep(Duration::from_secs(2)).await;
    other.end().await;
    let run = runner.wait(PATIENCE).await;
    assert_eq!(run.code, 0, "{run:#?}");
    let lines: Vec<serde_json::Value> = run.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told = lines.iter().find(|line| line.to_string().contains("waits for another session"));
    let told = told.unwrap_or_else(|| panic!("nobody is named: {run:#?}")).to_string();
    assert!(told.contains(&format!("pid {} ", other.pid)) && told.contains("FROM pg_class"), "{told}");
    let whole = format!("{}{}", run.stdout, run.stderr);
    assert!(!whole.contains("mallory") && !whole.contains("example.com"), "a value of the query is told: {told}");
}

#[tokio::test]
async fn a_table_that_stays_in_use_is_an_error_that_names_the_holder() {
    let database = stays_held("SELECT count(*) FROM tasks").await;
    let client = database.client().await;
    assert_eq!(text(&client, LAST_RUN).await, "failed");
    let next = run_migrate(Service::Task, &database.migrator_url(), UP).await;
    assert_eq!(next.code, 0, "{next:#?}");
}

#[tokio::test]
async fn a_table_that_stays_locked_is_an_error_that_names_the_holder() {
    let database = stays_held(LOCK_TASKS).await;
    let next = run_migrate(Service::Task, &database.migrator_url(), UP).await;
    assert_eq!(next.code, 0, "{next:#?}");
}

/// A run that may wait two seconds, while another session keeps a table for longer.
async fn stays_held(held: &str) -> TestDatabase {
    let database = TestDatabase::migrated_task().await;
    database.execute("ALTER TABLE tasks ALTER COLUMN status DROP DEFAULT").await;
    let other = Other::begin(&database, &format!("BEGIN; {held}")).await;
    let started = Instant::now();
    let short = [UP, &["--lock-wait", "2s"]].concat();
    let run = run_migrate(Service::Task, &database.migrator_url(), &short).await;
    assert_eq!(run.code, 1, "{run:#?}");
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}: {run:#?}", started.elapsed());
    let error = run.json()["error"].as_str().unwrap().to_owned();
    assert!(error.contains(&format!("pid {} ", other.pid)) && error.contains(held), "{error}");
    other.end().await;
    database
}

#[tokio::test]
async fn a_table_that_is_locked_for_a_while_is_waited_for() {
    for held in ["SELECT count(*) FROM tasks", LOCK_TASKS] {
        let database = TestDatabase::migrated_task().await;
        let client = database.client().await;
        let fresh = whole_schema(&client).await;
        database.execute("ALTER TABLE tasks ALTER COLUMN status DROP DEFAULT").await;
        let other = Other::begin(&database, &format!("BEGIN; {held}")).await;
        let runner = Runner::start(Service::Task, &database.migrator_url(), UP);
        until(&client, TABLE_WAITED_FOR).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        other.end().await;
        let run = runner.wait(PATIENCE).await;
        assert_eq!(run.code, 0, "{held}: {run:#?}");
        assert_eq!(whole_schema(&client).await, fresh, "{held}");
    }
}

/// While the run queues for a table, whoever only reads it queues behind the run: never longer than one rung of its ladder.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_wait_for_moments_while_the_run_waits_for_a_table() {
    const LONGEST_RUNG: Duration = Duration::from_millis(700);
    const SLACK: Duration = Duration::from_millis(800);
    let database = TestDatabase::migrated_task().await;
    database.execute("ALTER TABLE tasks ALTER COLUMN status DROP DEFAULT").await;
    let client = database.client().await;
    let other = Other::begin(&database, "BEGIN; SELECT count(*) FROM tasks").await;
    let runner = Runner::start(Service::Task, &database.migrator_url(), UP);
    until(&client, TABLE_WAITED_FOR).await;
    let reader = connect(&database.runtime_url()).await.unwrap();
    let (mut waited, started) = (Vec::new(), Instant::now());
    while started.elapsed() < Duration::from_secs(8) {
        let asked = Instant::now();
        reader.query_one("SELECT count(*) FROM tasks", &[]).await.unwrap();
        waited.push(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    other.end().await;
    let run = runner.wait(PATIENCE).await;
    assert_eq!(run.code, 0, "{run:#?}");
    let longest = waited.iter().max().unwrap();
    let queued = waited.iter().filter(|wait| **wait > Duration::from_millis(50)).count();
    println!("{} reads in 8 s, {queued} of them queued, the longest for {longest:?}", waited.len());
    assert!(run.stderr.matches("a lock is in the way").count() >= 3, "the run queued again and again: {run:#?}");
    assert!(queued > 0, "no reader met the run: the test shows nothing");
    assert!(*longest < LONGEST_RUNG + SLACK, "a reader waited {longest:?}");
}

#[tokio::test]
async fn a_killed_run_leaves_no_lock_and_the_next_one_names_its_statement() {
    let database = TestDatabase::migrated_task().await;
    let client = database.client().await;
    let fresh = whole_schema(&client).await;
    database.execute("DROP INDEX idx_tasks_id").await;
    let other = Other::begin(&database, OLD_SNAPSHOT).await;
    let runner = Runner::start(Service::Task, &database.migrator_url(), UP);
    until(&client, BUILD_WAITS).await;
    runner.kill();
    assert_eq!(runner.wait(PATIENCE).await.code, -1);
    let free = until(&client, &lock_is_free(Service::Task)).await;
    let quiet = "SELECT NOT EXISTS (SELECT FROM pg_stat_progress_create_index WHERE datname = current_database())";
    let gone = free + until(&client, quiet).await;
    println!("the lock was free after {free:?}, the statement gone after {gone:?}");
    assert!(gone < Duration::from_secs(5), "the server goes on for a client that is gone: {gone:?}");

    let open = "SELECT version || ': ' || statement FROM __migration_actions WHERE outcome = 'started'";
    let open = text(&client, open).await;
    assert!(open.contains("idx_tasks_id"), "{open}");
    assert_eq!(text(&client, LAST_RUN).await, "running");
    other.end().await;
    let next = run_migrate(Service::Task, &database.migrator_url(), UP).await;
    assert_eq!(next.code, 0, "{next:#?}");
    let report = next.json();
    let named: Vec<String> = report["interrupted"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| format!("{}: {}", one["version"].as_str().unwrap(), one["statement"].as_str().unwrap()))
        .collect();
    assert_eq!(named, [open]);
    assert_eq!(whole_schema(&client).await, fresh);
    assert_eq!((count(&client, INVALID).await, count(&client, STARTED).await), (0, 0));
    let closed = "SELECT count(*) FROM __migration_runs WHERE outcome = 'interrupted'";
    assert_eq!((count(&client, closed).await, text(&client, LAST_RUN).await), (1, "done".to_owned()));
    let again = run_migrate(Service::Task, &database.migrator_url(), UP).await;
    assert_eq!((again.code, &again.json()["interrupted"]), (0, &serde_json::json!([])), "{again:#?}");
}

#[tokio::test]
async fn the_journal_tells_what_the_report_tells() {
    for (name, database) in [
        ("an empty one", TestDatabase::empty().await),
        ("complete", TestDatabase::from_sql(&fixture("legacy/complete")).await),
        ("incident", TestDatabase::from_sql(&fixture("legacy/incident")).await),
    ] {
        let client = database.client().await;
        for service in [Service::Auth, Service::Task] {
            let about = format!("{name}, {}", service.name());
            let run = run_migrate(service, &database.migrator_url(), UP).await;
            assert_eq!(run.code, 0, "{about}: {run:#?}");
            let reported: Vec<[Option<String>; 3]> = run.json()["actions"]
                .as_array()
                .unwrap()
                .iter()
                .map(|action| {
                    ["version", "statement", "outcome"].map(|field| action[field].as_str().map(str::to_owned))
                })
                .collect();
            assert!(reported.len() > 10, "{about}: {reported:#?}");
            let runs = client
                .query("SELECT id, command, outcome FROM __migration_runs WHERE service = $1", &[&service.name()])
                .await
                .unwrap();
            assert_eq!(runs.len(), 1, "{about}");
            let (command, outcome): (String, String) = (runs[0].get(1), runs[0].get(2));
            assert_eq!((command.as_str(), outcome.as_str()), ("up", "done"), "{about}");
            let id: uuid::Uuid = runs[0].get(0);
            let journal = client
                .query(
                    "SELECT version, statement, outcome FROM __migration_actions WHERE run_id = $1 AND service = $2 ORDER BY step",
                    &[&id, &service.name()],
                )
                .await
                .unwrap();
            let journal: Vec<[Option<String>; 3]> =
                journal.iter().map(|row| [row.get(0), Some(row.get(1)), Some(row.get(2))]).collect();
            assert_eq!(journal, reported, "{about}");
        }
        let open = "SELECT count(*) FROM __migration_actions WHERE finished_at IS NULL OR outcome = 'started'";
        assert_eq!(count(&client, open).await, 0, "{name}");
    }
}
