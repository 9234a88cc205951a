//! What a person at a terminal sees: a bar while work is long, tables and colour; and what a log or a pipe gets instead.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a suite ends the test with a panic")]

use std::time::{Duration, Instant};

use local_pair::postgres::connect;
use tests::{Service, TerminalRun, TestDatabase, run_migrate, run_on_terminal};
use tokio_postgres::Client;

/// Nothing here takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);
/// An index build waits until this has ended.
const OLD_SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class";
const BUILD_WAITS: &str = "SELECT EXISTS (SELECT FROM pg_stat_progress_create_index \
    WHERE datname = current_database() AND phase LIKE 'waiting for %')";
/// Tasks of the legacy bulk route on more blocks than one part of a backfill takes, though they are few rows; each part takes
/// its time.
const SLOW_BACKFILL: &str = "
    ALTER TABLE tasks DROP CONSTRAINT tasks_status_check, SET (fillfactor = 10);
    INSERT INTO tasks (id, title, user_id, status)
    SELECT gen_random_uuid(), 'Task ' || n, gen_random_uuid(), 'pending' FROM generate_series(1, 15000) n;
    CREATE FUNCTION takes_its_time() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.3); RETURN NULL; END $$;
    CREATE TRIGGER takes_its_time BEFORE UPDATE ON tasks FOR EACH STATEMENT EXECUTE FUNCTION takes_its_time()";

/// Another session that holds up index builds; its pid.
async fn holder(database: &TestDatabase) -> (Client, i32) {
    let client = connect(&database.migrator_url()).await.unwrap();
    let pid = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    client.batch_execute(OLD_SNAPSHOT).await.unwrap();
    (client, pid)
}

/// Lets go of what a build waits for, `after` it began to wait.
async fn let_go(database: &TestDatabase, holder: &Client, after: Duration) {
    let client = database.client().await;
    let started = Instant::now();
    while !client.query_one(BUILD_WAITS, &[]).await.unwrap().get::<_, bool>(0) {
        assert!(started.elapsed() < PATIENCE, "no index build waits");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(after).await;
    holder.batch_execute("COMMIT").await.unwrap();
}

/// The frames of a bar among what was written.
fn frames(run: &TerminalRun) -> Vec<String> {
    run.lines().into_iter().filter(|line| line.trim_start().starts_with('[') && line.contains("% ")).collect()
}

fn percent(frame: &str) -> u64 {
    let (before, _) = frame.split_once('%').unwrap();
    before.rsplit(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("no percentage: {frame}"))
}

#[tokio::test]
async fn an_index_build_on_a_terminal_shows_a_bar_with_phase_percent_and_who_holds_it_up() {
    let database = TestDatabase::migrated_task().await;
    database.execute("DROP INDEX idx_tasks_id").await;
    let (other, pid) = holder(&database).await;
    let url = database.migrator_url();
    let (run, ()) = tokio::join!(
        run_on_terminal(Service::Task, &url, &["up"], &[]),
        let_go(&database, &other, Duration::from_secs(3))
    );
    assert_eq!(run.code, 0, "{run:#?}");
    let frames = frames(&run);
    let named = frames.iter().find(|frame| frame.contains(&format!("pid {pid} ")));
    let named = named.unwrap_or_else(|| panic!("no bar names the holder: {run:#?}"));
    assert!(named.contains("waiting for ") && named.contains("FROM pg_class") && percent(named) <= 100, "{named}");
    assert!(named.contains("CREATE"), "it tells which statement: {named}");
    is_cleared(&run);
}

#[tokio::test]
async fn a_backfill_on_a_terminal_shows_a_bar_that_grows() {
    let database = TestDatabase::migrated_task().await;
    database.execute(SLOW_BACKFILL).await;
    let run = run_on_terminal(Service::Task, &database.migrator_url(), &["up"], &[]).await;
    assert_eq!(run.code, 0, "{run:#?}");
    let frames: Vec<_> = frames(&run).into_iter().filter(|frame| frame.contains("Status 'pending'")).collect();
    let mut percents: Vec<u64> = frames.iter().map(|frame| percent(frame)).collect();
    assert!(percents.is_sorted(), "{frames:#?}");
    percents.dedup();
    assert!(percents.len() >= 2 && percents[0] < 100, "{frames:#?}");
    assert!(frames.iter().any(|frame| frame.contains(" rows changed")), "{frames:#?}");
    is_cleared(&run);
}

/// Nothing of a bar is left on the screen: what it wrote last is erased.
fn is_cleared(run: &TerminalRun) {
    let (_, last) = run.written.rsplit_once("\x1b[2K").unwrap_or_else(|| panic!("nothing was erased: {run:#?}"));
    assert!(!last.contains("% "), "a bar is left behind: {last}");
    assert!(last.contains("ready"), "what follows is the answer: {last}");
}

#[tokio::test]
async fn without_a_terminal_a_log_line_every_few_seconds_tells_how_far_it_is() {
    let database = TestDatabase::migrated_task().await;
    database.execute("DROP INDEX idx_tasks_id").await;
    let (other, pid) = holder(&database).await;
    let url = database.migrator_url();
    let (run, ()) = tokio::join!(
        run_migrate(Service::Task, &url, &["up", "--output", "json"]),
        let_go(&database, &other, Duration::from_secs(7))
    );
    assert_eq!(run.code, 0, "{run:#?}");
    assert!(!run.stderr.contains('\x1b') && !run.stderr.contains('\r'), "{run:#?}");
    let lines: Vec<serde_json::Value> = run.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = lines.iter().map(ToString::to_string).filter(|line| line.contains("under way")).collect();
    assert!(!told.is_empty(), "nothing told in seven seconds: {run:#?}");
    // At most one in five seconds, however long a busy machine took.
    assert!(told.len() <= 12, "{told:#?}");
    for part in ["CREATE", "percent", "waiting for ", &format!("pid {pid} ")] {
        assert!(told[0].contains(part), "{part}: {}", told[0]);
    }
}

/// Work that is over in moments shows no bar, and JSON is for machines wherever it goes.
#[tokio::test]
async fn short_work_and_json_show_no_bar() {
    let database = TestDatabase::migrated_task().await;
    let run = run_on_terminal(Service::Task, &database.migrator_url(), &["up"], &[]).await;
    assert_eq!((run.code, frames(&run)), (0, Vec::new()), "{run:#?}");

    database.execute("DROP INDEX idx_tasks_id").await;
    let (other, _) = holder(&database).await;
    let url = database.migrator_url();
    let (run, ()) = tokio::join!(
        run_on_terminal(Service::Task, &url, &["up", "--output", "json"], &[]),
        let_go(&database, &other, Duration::from_secs(2))
    );
    assert_eq!((run.code, frames(&run)), (0, Vec::new()), "{run:#?}");
}

#[tokio::test]
async fn drift_is_a_table_in_colour_on_a_terminal_and_plain_lines_elsewhere() {
    let database = TestDatabase::migrated_task().await;
    database.execute("DROP INDEX idx_tasks_id").await;
    let url = database.migrator_url();
    let seen = run_on_terminal(Service::Task, &url, &["verify"], &[]).await;
    assert_eq!(seen.code, 3, "{seen:#?}");
    let header = seen.lines().into_iter().find(|line| line.contains("object") && line.contains("expected"));
    assert!(header.is_some() && seen.written.contains("idx_tasks_id"), "{seen:#?}");
    assert!(seen.written.contains("\x1b["), "no colour: {seen:#?}");

    let plain = run_on_terminal(Service::Task, &url, &["verify"], &[("NO_COLOR", "1")]).await;
    assert!(!plain.written.contains("\x1b[3"), "NO_COLOR is not kept: {plain:#?}");

    let piped = run_migrate(Service::Task, &url, &["verify"]).await;
    assert!(piped.stdout.contains("idx_tasks_id") && !piped.stdout.contains('\x1b'), "{piped:#?}");
}
