//! Adoption of legacy databases in many states: each ends in the schema of a fresh install, with every row kept.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use migration_engine::{Drift, Expected};
use tests::legacy::{all_rows, assert_rows_kept, expected_where, fixture, whole_schema};
use tests::{MigrateRun, Service, TestDatabase, run_migrate};

/// Columns that adoption changes, each said in `data_changes`.
const CHANGED: &[&str] = &[
    "tasks.status",
    "tasks.user_id",
    "password_reset_tokens.token_hash",
    "password_reset_tokens.is_used",
    "users.role_id",
    "roles.display_name",
    "roles.description",
    "roles.is_active",
];

const LEGACY: &[&str] = &["incident", "complete", "half_by_hand", "hand_repaired"];

async fn up(service: Service, database: &TestDatabase) -> MigrateRun {
    run_migrate(service, &database.migrator_url(), &["up", "--output", "json"]).await
}

fn expected() -> Expected {
    let mut both: Expected = serde_json::from_str(include_str!("../../migrations/auth/expected.json")).unwrap();
    let task: Expected = serde_json::from_str(include_str!("../../migrations/task/expected.json")).unwrap();
    both.tables.extend(task.tables);
    both
}

/// Differences that remain, warnings too.
async fn left(database: &TestDatabase) -> Vec<Drift> {
    let client = database.client().await;
    let (live, expected) = (whole_schema(&client).await, expected_where(&client, expected()).await);
    migration_engine::diff::compare(&expected, &live).into_iter().map(|difference| difference.drift).collect()
}

#[tokio::test]
async fn every_legacy_database_converges_in_either_order_with_every_row() {
    for name in LEGACY {
        for order in [[Service::Auth, Service::Task], [Service::Task, Service::Auth]] {
            let database = TestDatabase::from_sql(&fixture(&format!("legacy/{name}"))).await;
            let before = all_rows(&database.client().await).await;
            for service in order {
                let run = up(service, &database).await;
                assert_eq!(run.code, 0, "{name} {order:?}: {run:#?}");
                assert_eq!(run.json()["state"], "match");
            }
            let after = all_rows(&database.client().await).await;
            assert_rows_kept(&before, &after, CHANGED);
            let left = left(&database).await;
            // What somebody added by hand and disturbs nobody stays, and is told.
            let by_hand: &[&str] = &["one_email", "note", "idx_tasks_user_status", "my_tasks_by_owner"];
            let tolerated = if *name == "half_by_hand" { by_hand } else { &[] };
            let objects: Vec<&str> = left.iter().map(|drift| drift.object.as_str()).collect();
            assert!(objects.iter().all(|object| tolerated.contains(object)), "{name}: {left:#?}");
            for service in order {
                let again = up(service, &database).await;
                assert_eq!((again.code, &again.json()["actions"]), (0, &serde_json::json!([])), "{name}: {again:#?}");
            }
        }
    }
}

#[tokio::test]
async fn two_runners_of_each_service_at_once_converge_too() {
    for name in LEGACY {
        let database = TestDatabase::from_sql(&fixture(&format!("legacy/{name}"))).await;
        let before = all_rows(&database.client().await).await;
        let runs = futures_util::future::join_all(
            [Service::Auth, Service::Task, Service::Auth, Service::Task].map(|service| up(service, &database)),
        )
        .await;
        for run in &runs {
            assert_eq!(run.code, 0, "{name}: {runs:#?}");
        }
        assert_rows_kept(&before, &all_rows(&database.client().await).await, CHANGED);
    }
}

#[tokio::test]
async fn the_report_says_what_was_changed_in_the_data_and_what_a_person_must_know() {
    let database = TestDatabase::from_sql(&fixture("legacy/complete")).await;
    let auth = up(Service::Auth, &database).await.json();
    let task = up(Service::Task, &database).await.json();
    let changes: BTreeMap<String, u64> = [&auth, &task]
        .iter()
        .flat_map(|report| report["data_changes"].as_array().unwrap())
        .map(|change| (change["description"].as_str().unwrap().to_owned(), change["rows"].as_u64().unwrap()))
        .collect();
    let rows = |part: &str| changes.iter().find(|(text, _)| text.contains(part)).map(|(_, rows)| *rows);
    assert_eq!(rows("'pending'"), Some(1), "{changes:#?}");
    assert_eq!(rows("without an owner"), Some(1));
    assert_eq!(rows("longer than today's limits"), Some(1));
    assert_eq!(rows("stored in clear"), Some(1));
    assert_eq!(rows("beyond ASCII"), Some(2), "{changes:#?}");

    let found = |report: &serde_json::Value, code: &str| {
        report["findings"].as_array().unwrap().iter().find(|finding| finding["code"] == code).cloned()
    };
    let published = found(&auth, "PUBLISHED_PASSWORD_HASH").expect("the published hash is reported");
    assert_eq!(published["sample"], serde_json::json!(["f6459929-eac1-44b3-9227-c76970c4664f"]));
    assert!(published["advice"].as_str().unwrap().contains("admin bootstrap"));
    let unreadable = found(&auth, "UNREADABLE_PASSWORD_HASH").expect("a hash that is no PHC string is reported");
    assert_eq!(unreadable["sample"], serde_json::json!(["0b5d0c1e-3f57-4f0a-9a55-0a4f3d8f6c06"]));
    let duplicate = found(&auth, "DUPLICATE_EMAIL").expect("addresses that differ by case are reported");
    assert_eq!(duplicate["sample"], serde_json::json!(["0b5d0c1e-3f57-4f0a-9a55-0a4f3d8f6c04"]), "the younger account");
    assert!(found(&task, "UNOWNED_TASKS").is_some());
    let text = serde_json::to_string(&auth).unwrap();
    assert!(!text.contains("eve@example.com") && !text.contains("carol@"), "no address in a report: {text}");

    // Nobody was an administrator in the incident database, and nobody becomes one by a name.
    let incident = TestDatabase::from_sql(&fixture("legacy/incident")).await;
    assert!(found(&up(Service::Auth, &incident).await.json(), "NO_ADMINISTRATOR").is_some());
}

#[tokio::test]
async fn clear_text_reset_tokens_are_hashed_and_void() {
    let database = TestDatabase::from_sql(&fixture("legacy/incident")).await;
    assert_eq!(up(Service::Auth, &database).await.code, 0);
    let row = database
        .client()
        .await
        .query_one(
            "SELECT token_hash = encode(sha256('plain-reset-token-1'), 'hex'), is_used FROM password_reset_tokens",
            &[],
        )
        .await
        .unwrap();
    assert_eq!((row.get::<_, bool>(0), row.get::<_, bool>(1)), (true, true));
}

#[tokio::test]
async fn a_killed_run_is_finished_by_the_next_one() {
    for attempt in 0..12_u64 {
        let database = TestDatabase::from_sql(&fixture("legacy/complete")).await;
        let before = all_rows(&database.client().await).await;
        for service in [Service::Auth, Service::Task] {
            let mut child = tokio::process::Command::new(service.program())
                .args(["migrate", "up", "--output", "json"])
                .env("DATABASE_URL", database.migrator_url())
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(15 * (attempt + 1))).await;
            child.start_kill().unwrap();
            child.wait().await.unwrap();
        }
        for service in [Service::Auth, Service::Task] {
            let run = up(service, &database).await;
            assert_eq!(run.code, 0, "killed after {} ms: {run:#?}", 15 * (attempt + 1));
        }
        assert_rows_kept(&before, &all_rows(&database.client().await).await, CHANGED);
        assert!(left(&database).await.is_empty());
    }
}

#[tokio::test]
async fn times_that_no_client_can_read_are_moved_to_a_bound() {
    let sql = format!(
        "{}\nUPDATE tasks SET due_date = 'infinity', created_at = '-infinity' WHERE title = 'Set by the bulk route';
         UPDATE tasks SET due_date = '12000-01-01' WHERE title = 'Write the post-mortem';
         UPDATE users SET last_login_at = 'infinity', created_at = 'infinity' WHERE username = 'carol';",
        fixture("legacy/incident")
    );
    let database = TestDatabase::from_sql(&sql).await;
    for (service, rows) in [(Service::Auth, 1), (Service::Task, 2)] {
        let run = up(service, &database).await;
        assert_eq!(run.code, 0, "{run:#?}");
        let report = run.json();
        let changes = report["data_changes"].as_array().unwrap();
        let change = changes.iter().find(|change| change["description"].as_str().unwrap().contains("years 1 to 9999"));
        assert_eq!(change.map(|change| change["rows"].as_u64().unwrap()), Some(rows), "{changes:#?}");
    }
    let unreadable = "SELECT (SELECT count(*) FROM users WHERE NOT isfinite(created_at) OR NOT isfinite(last_login_at))
        + (SELECT count(*) FROM tasks WHERE NOT isfinite(created_at) OR due_date NOT BETWEEN '0001-01-01' AND '9999-12-31 23:59:59+00')";
    let left: i64 = database.client().await.query_one(unreadable, &[]).await.unwrap().get(0);
    assert_eq!(left, 0);
}

/// Building an index takes minutes on a large table: none is built that a later migration drops, neither when a database is adopted
/// nor when anything else has to be done later.
#[tokio::test]
async fn no_index_is_built_that_is_dropped_again() {
    let database = TestDatabase::from_sql(&fixture("legacy/incident")).await;
    let names: Vec<String> = expected().tables.values().flat_map(|table| table.indexes.keys().cloned()).collect();
    for service in [Service::Auth, Service::Task, Service::Task] {
        let run = up(service, &database).await;
        assert_eq!(run.code, 0, "{run:#?}");
        for action in run.json()["actions"].as_array().unwrap() {
            let statement = action["statement"].as_str().unwrap();
            let builds = statement.starts_with("CREATE INDEX CONCURRENTLY") && action["outcome"] != "already_there";
            let is_expected = names.iter().any(|name| statement.contains(&format!(" {name} ON ")));
            assert!(!builds || is_expected, "{action:#}");
        }
        database.execute("ALTER TABLE tasks ALTER COLUMN title DROP NOT NULL").await;
    }
}
