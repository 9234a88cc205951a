//! Live traffic: the statements of the previous release go on while both services migrate a filled legacy database. None may
//! fail; the longest stall of each kind is printed.
//!
//! `ROWS=3000000 cargo test -p tests --test migrate_live -- --nocapture` raises the number of tasks; the tenth part of that
//! is the number of users. The rows are made by SQL, in about ten seconds for a million.
#![expect(clippy::unwrap_used, reason = "a suite ends the test with a panic")]

mod fill;
mod traffic;

use std::time::{Duration, Instant};

use comfy_table::Table;
use tests::{MigrateRun, Runner, Service, number_from_environment, run_migrate};
use traffic::{KINDS, Traffic};

/// Connections of the previous release.
const CLIENTS: usize = 8;
/// Traffic alone, before and after.
const AROUND: Duration = Duration::from_secs(1);
/// Millions of rows on a busy machine.
const PATIENCE: Duration = Duration::from_secs(1800);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_statement_of_the_previous_release_fails_while_both_services_migrate() {
    let rows = number_from_environment("ROWS", 100_000);
    let users = (rows / 10).max(10);
    let started = Instant::now();
    let database = fill::legacy(rows, users).await;
    println!("{rows} tasks of {users} users in {:.1} s", started.elapsed().as_secs_f64());

    let traffic = Traffic::start(&database, CLIENTS, rows, users).await;
    tokio::time::sleep(AROUND).await;
    let began = Instant::now();
    let mut runs = Vec::new();
    for service in [Service::Auth, Service::Task] {
        let (from, runner) =
            (Instant::now(), Runner::start(service, &database.migrator_url(), &["up", "--output", "json"]));
        let run = runner.wait(PATIENCE).await;
        runs.push((service, run, from.elapsed()));
    }
    let migrating = began.elapsed();
    tokio::time::sleep(AROUND).await;
    let log = traffic.stop().await;

    let mut table = Table::new();
    table.set_header([
        "statement",
        "done",
        "of them meanwhile",
        "FAILED",
        "p50 ms",
        "p99 ms",
        "longest ms",
        "began at s",
    ]);
    for kind in KINDS {
        let of_kind: Vec<_> = log.iter().filter(|done| done.kind == *kind).collect();
        let mut times: Vec<f64> = of_kind.iter().map(|done| done.took.as_secs_f64() * 1000.0).collect();
        times.sort_by(f64::total_cmp);
        let at = |part: f64| times.get(((times.len() as f64 - 1.0) * part) as usize).copied().unwrap_or_default();
        let meanwhile =
            of_kind.iter().filter(|done| done.started + done.took >= began && done.started <= began + migrating);
        let longest = of_kind.iter().max_by_key(|done| done.took);
        let since = longest.map_or(0.0, |done| done.started.saturating_duration_since(began).as_secs_f64());
        table.add_row([
            format!("{kind:?}"),
            of_kind.len().to_string(),
            meanwhile.count().to_string(),
            of_kind.iter().filter(|done| done.error.is_some()).count().to_string(),
            format!("{:.1}", at(0.5)),
            format!("{:.1}", at(0.99)),
            format!("{:.0}", at(1.0)),
            format!("{since:.2}"),
        ]);
    }
    println!("{table}");
    for (service, run, took) in &runs {
        println!("{} migrate up: {:.2} s; its longest statements:", service.name(), took.as_secs_f64());
        for (millis, statement) in longest_actions(run) {
            println!("  {millis:>6} ms  {statement}");
        }
    }

    for (service, run, _) in &runs {
        assert_eq!(run.code, 0, "{}: {run:#?}", service.name());
        let verify = run_migrate(*service, &database.migrator_url(), &["verify", "--output", "json"]).await;
        assert_eq!(verify.code, 0, "{verify:#?}");
    }
    let failed: Vec<_> =
        log.iter().filter_map(|done| done.error.as_ref().map(|error| format!("{:?}: {error}", done.kind))).collect();
    assert!(
        failed.is_empty(),
        "{} statements failed, such as:\n{}",
        failed.len(),
        failed[..failed.len().min(5)].join("\n")
    );
    for kind in KINDS {
        assert!(log.iter().any(|done| done.kind == *kind), "no {kind:?} was done: the traffic proves nothing");
    }
    let count = |kind| i64::try_from(log.iter().filter(|done| done.kind == kind).count()).unwrap();
    let expected = i64::try_from(rows).unwrap() + count(traffic::Kind::InsertTask) - count(traffic::Kind::DeleteTask);
    let there: i64 = database.client().await.query_one("SELECT count(*) FROM tasks", &[]).await.unwrap().get(0);
    assert_eq!(there, expected, "rows were lost or made up");
}

fn longest_actions(run: &MigrateRun) -> Vec<(u64, String)> {
    let report = run.json();
    let actions = report["actions"].as_array().unwrap().iter();
    let mut actions: Vec<(u64, String)> = actions
        .map(|action| {
            let text: String = action["statement"].as_str().unwrap().chars().take(110).collect();
            (action["duration_ms"].as_u64().unwrap(), text)
        })
        .collect();
    actions.sort_by_key(|(millis, _)| std::cmp::Reverse(*millis));
    actions.truncate(6);
    actions
}
