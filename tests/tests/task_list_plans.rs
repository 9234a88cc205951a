//! How PostgreSQL answers lists on a table of a million tasks, as it says itself (auto_explain) for what the service really sent: no
//! list reads the whole table, and a page reads as many rows as it has, wherever it lies: so none sorts more. `ROWS` chooses another size.
#![expect(clippy::unwrap_used, reason = "a suite ends the test with a panic")]

use std::io::{Read as _, Seek as _, SeekFrom};

use proto::task::v1::{GetTaskStatsRequest, ListTasksRequest, TaskStatus};
use serde_json::Value;
use tests::{Account, Pair, fill_tasks, number_from_environment};

const ORDERS: [&str; 5] = ["created_at", "updated_at", "due_date", "title", "status"];
const PAGE: i32 = 100;

/// The server's log, from where it was last read.
struct Plans {
    log: std::fs::File,
}

impl Plans {
    /// What the database logs from now on; connections made from now on explain every statement.
    async fn begin(pair: &Pair) -> Self {
        let database = pair.task_database.as_ref().unwrap();
        let client = database.client().await;
        let name = database.name();
        for setting in [
            "session_preload_libraries = 'auto_explain'",
            "auto_explain.log_min_duration = 0",
            "auto_explain.log_analyze = on",
            "auto_explain.log_timing = off",
            "auto_explain.log_format = 'json'",
        ] {
            client
                .batch_execute(&format!("LOAD 'auto_explain'; ALTER DATABASE \"{name}\" SET {setting}"))
                .await
                .unwrap();
        }
        let directory: String = client.query_one("SHOW data_directory", &[]).await.unwrap().get(0);
        let path = std::path::Path::new(&directory).parent().unwrap().join("server.log");
        let mut log = std::fs::File::open(&path).unwrap();
        log.seek(SeekFrom::End(0)).unwrap();
        Self { log }
    }

    /// The plans of the statements on tasks since the last time.
    fn since(&mut self) -> Vec<Value> {
        let mut text = String::new();
        self.log.read_to_string(&mut text).unwrap();
        let mut plans = Vec::new();
        for part in text.split("plan:\n").skip(1) {
            // The lines of one entry begin with a tab; the next entry does not.
            let lines = part.lines().take_while(|line| line.starts_with('\t') || line.starts_with(['{', '}']));
            let plan: Value = serde_json::from_str(&lines.collect::<Vec<_>>().join("\n")).unwrap();
            if plan["Query Text"].as_str().is_some_and(|query| query.contains("tasks") && query.starts_with("SELECT")) {
                plans.push(plan);
            }
        }
        plans
    }
}

/// Every node below and with this one.
fn nodes<'p>(plan: &'p Value, found: &mut Vec<&'p Value>) {
    found.push(plan);
    for child in plan["Plans"].as_array().into_iter().flatten() {
        nodes(child, found);
    }
}

/// What the statements of one call did that they should not do: `most` rows may be touched.
fn faults(plans: &[Value], most: f64, about: &str) -> Vec<String> {
    let mut faults = Vec::new();
    assert!(!plans.is_empty(), "{about}: no statement was explained");
    for plan in plans {
        let mut all = Vec::new();
        nodes(&plan["Plan"], &mut all);
        let mut touched = 0.0;
        for node in all {
            let kind = node["Node Type"].as_str().unwrap();
            if kind == "Seq Scan" {
                faults.push(format!("{about}: {kind} in {plan:#}"));
            }
            // A bitmap's rows are counted where they are read.
            if kind.contains("Scan") && kind != "Bitmap Index Scan" {
                let number = |name: &str| node[name].as_f64().unwrap_or_default();
                let removed = number("Rows Removed by Filter") + number("Rows Removed by Index Recheck");
                touched += (number("Actual Rows") + removed) * number("Actual Loops");
            }
        }
        if touched > most {
            faults.push(format!("{about}: {touched} rows are read, expected at most {most}: {plan:#}"));
        }
    }
    faults
}

/// The first pages of a list and one far behind: their faults, the greatest of them first told.
async fn walk(
    pair: &Pair,
    plans: &mut Plans,
    account: &Account,
    request: &ListTasksRequest,
    about: &str,
) -> Vec<String> {
    let mut tasks = pair.tasks(account);
    let (mut token, mut found) = (String::new(), Vec::new());
    for step in 0..12 {
        // Far behind after a few large pages.
        let page_size = if (2..11).contains(&step) { 1000 } else { PAGE };
        plans.since();
        let request = ListTasksRequest { page_token: token, page_size, ..request.clone() };
        let answer = tasks.list_tasks(request).await.unwrap().into_inner();
        // A page may lie in several stretches, and what breaks ties may be met once more.
        found.extend(faults(&plans.since(), f64::from(page_size) * 1.2 + 20.0, &format!("{about}, page {step}")));
        token = answer.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    found
}

/// Searches of members, each with so many tasks of their own, and of an administrator over everybody's.
async fn searches(
    pair: &Pair,
    plans: &mut Plans,
    members: [(&Account, f64); 2],
    root: &Account,
    rows: f64,
) -> Vec<String> {
    let mut found = Vec::new();
    let in_title = |text: &str| ListTasksRequest { title_contains: text.to_owned(), ..Default::default() };
    let in_description = |text: &str| ListTasksRequest { description_contains: text.to_owned(), ..Default::default() };
    // What hardly any task fits costs the owner's own rows at most, whoever else has how many.
    for (account, own) in members {
        for request in [in_title("no such title"), in_description("no such text")] {
            plans.since();
            pair.tasks(account).list_tasks(request).await.unwrap();
            found.extend(faults(&plans.since(), own + 20.0, "search"));
        }
    }
    // Two letters have no index: a list that few tasks fit is read to its end. A plan kept from such searches would do so for every text.
    for _ in 0..8 {
        pair.tasks(root).list_tasks(in_title("zq")).await.unwrap();
    }
    let some = [in_title("task 777"), in_title("no such title"), in_description("no such text"), in_title("TASK 4242")];
    for request in some {
        for order in ORDERS {
            plans.since();
            let request = ListTasksRequest { order_by: format!("{order} desc"), ..request.clone() };
            pair.tasks(root).list_tasks(request).await.unwrap();
            let plans = plans.since();
            found.extend(faults(&plans, rows / 500.0, "search over everybody's"));
            let is_used = plans.iter().all(|plan| plan.to_string().contains("idx_tasks_live_text"));
            assert!(is_used, "the index over texts is not used by {order}: {plans:#?}");
        }
    }
    // What every task has is found on the way through the list.
    for request in [in_title("task"), in_title("TASK")] {
        plans.since();
        pair.tasks(root).list_tasks(request).await.unwrap();
        found.extend(faults(&plans.since(), f64::from(PAGE) * 2.0, "search for what is everywhere"));
    }
    found
}

#[tokio::test]
async fn a_page_reads_what_it_shows_in_every_order_wherever_it_lies() {
    let rows = number_from_environment("ROWS", 1_000_000);
    let pair = Pair::start().await;
    let (alice, bob) = tokio::join!(pair.sign_up("alice"), pair.sign_up("bob"));
    let root = pair.administrator().await;
    let client = pair.task_database.as_ref().unwrap().client().await;
    fill_tasks(&client, alice.id(), rows / 20, rows).await;
    // As after a large change at once: all of one owner's tasks have one time.
    let tie = format!("UPDATE tasks SET updated_at = '2026-01-01T00:00:00Z' WHERE user_id = '{}'", alice.id());
    client.batch_execute(&tie).await.unwrap();
    client.batch_execute("VACUUM ANALYZE tasks").await.unwrap();
    let mut plans = Plans::begin(&pair).await;
    // Connections from before explain nothing.
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    client.query(cut, &[]).await.unwrap();
    while pair.tasks(&bob).list_tasks(ListTasksRequest::default()).await.is_err() {}

    let mut found = Vec::new();
    for order in ORDERS {
        for direction in ["asc", "desc"] {
            let order_by = format!("{order} {direction}");
            for (whose, account) in [("her own", &alice), ("everybody's", &root)] {
                let request = ListTasksRequest { order_by: order_by.clone(), ..Default::default() };
                found.extend(walk(&pair, &mut plans, account, &request, &format!("{whose} by {order_by}")).await);
            }
        }
    }
    let after = prost_types::Timestamp { seconds: 1, nanos: 0 };
    let filters = [
        ("statuses", ListTasksRequest { statuses: vec![TaskStatus::Completed.into()], ..Default::default() }),
        ("created_after", ListTasksRequest { created_after: Some(after), ..Default::default() }),
        ("due_after", ListTasksRequest { due_after: Some(after), order_by: "due_date".into(), ..Default::default() }),
        ("user_id", ListTasksRequest { user_id: alice.id().into(), order_by: "title".into(), ..Default::default() }),
    ];
    for (name, request) in filters {
        plans.since();
        pair.tasks(&root).list_tasks(ListTasksRequest { page_size: PAGE, ..request.clone() }).await.unwrap();
        // Filters that most tasks fit: what is passed over is bounded.
        found.extend(faults(&plans.since(), f64::from(PAGE) * 4.0, &format!("filter {name}")));
    }
    found.extend(searches(&pair, &mut plans, [(&alice, rows as f64 / 20.0), (&bob, 0.0)], &root, rows as f64).await);
    // Counting reads the index of the owner's own rows.
    for (account, own) in [(&alice, rows as f64 / 20.0), (&bob, 0.0)] {
        plans.since();
        pair.tasks(account).get_task_stats(GetTaskStatsRequest::default()).await.unwrap();
        let counted = plans.since();
        assert!(counted.iter().all(|plan| plan.to_string().contains("idx_tasks_live_user_status")), "{counted:#?}");
        found.extend(faults(&counted, own + 20.0, "statistics"));
    }
    assert!(found.is_empty(), "{} faults, the first:\n{}", found.len(), found[0]);
}
