//! `migrate down`: newest first, again after a kill, and never over rows unless told.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use tests::legacy::{all_rows, whole_schema};
use tests::{MigrateRun, Service, TestDatabase, run_migrate};

async fn migrate(service: Service, database: &TestDatabase, arguments: &[&str]) -> MigrateRun {
    run_migrate(service, &database.migrator_url(), &[arguments, &["--output", "json"]].concat()).await
}

async fn applied(service: Service, database: &TestDatabase) -> Vec<String> {
    let status = migrate(service, database, &["status"]).await.json();
    serde_json::from_value(status["applied"].clone()).unwrap()
}

/// Every migration of both services: down one step, up again, the same schema; then one deeper.
#[tokio::test]
async fn down_then_up_gives_the_same_schema_from_every_depth() {
    for (service, database) in
        [(Service::Auth, TestDatabase::migrated_auth().await), (Service::Task, TestDatabase::migrated_task().await)]
    {
        let fresh = whole_schema(&database.client().await).await;
        let all = applied(service, &database).await;
        for depth in 1..=all.len() {
            let steps = depth.to_string();
            let run = migrate(service, &database, &["down", "--steps", &steps, "--allow-data-loss"]).await;
            assert_eq!(run.code, 0, "{depth}: {run:#?}");
            let newest_first: Vec<&String> = all.iter().rev().take(depth).collect();
            assert_eq!(run.json()["reverted"], serde_json::json!(newest_first));
            assert_eq!(applied(service, &database).await, all[..all.len() - depth]);
            assert_eq!(migrate(service, &database, &["verify"]).await.code, 4);
            let up = migrate(service, &database, &["up"]).await;
            assert_eq!(up.code, 0, "{depth}: {up:#?}");
            assert_eq!(whole_schema(&database.client().await).await, fresh, "{} from depth {depth}", service.name());
        }
        let everything = migrate(service, &database, &["down", "--to", "0", "--allow-data-loss"]).await;
        assert_eq!(everything.code, 0, "{everything:#?}");
        let left = whole_schema(&database.client().await).await;
        assert!(left.keys().all(|table| table.starts_with("__")), "{:?}", left.keys());
        let nothing = migrate(service, &database, &["down", "--steps", "1"]).await;
        assert_eq!((nothing.code, &nothing.json()["reverted"]), (0, &serde_json::json!([])), "{nothing:#?}");
    }
}

#[tokio::test]
async fn rows_are_not_lost_unless_told() {
    let database = TestDatabase::migrated_task().await;
    database.execute("INSERT INTO tasks (id, user_id, title) SELECT gen_random_uuid(), gen_random_uuid(), 'a' FROM generate_series(1, 3)").await;
    let client = database.client().await;
    let (schema, rows, versions) =
        (whole_schema(&client).await, all_rows(&client).await, applied(Service::Task, &database).await);
    let refused = migrate(Service::Task, &database, &["down", "--to", "0"]).await;
    assert_eq!(refused.code, 1, "{refused:#?}");
    let report = refused.json();
    assert_eq!(report["losses"], serde_json::json!([{ "table": "tasks", "column": null, "rows": 3 }]));
    assert!(report["error"].as_str().unwrap().contains("--allow-data-loss"), "{report:#}");
    assert_eq!((whole_schema(&client).await, all_rows(&client).await), (schema, rows), "nothing was changed");
    assert_eq!(applied(Service::Task, &database).await, versions);
    // What carries no rows may go.
    let indexes = migrate(Service::Task, &database, &["down", "--to", "2026-11-23-090110"]).await;
    assert_eq!(indexes.code, 0, "{indexes:#?}");
    assert_eq!(applied(Service::Task, &database).await.last().unwrap(), "20261123090110");
    assert_eq!(all_rows(&client).await["tasks"].len(), 3);
    let told = migrate(Service::Task, &database, &["down", "--to", "0", "--allow-data-loss"]).await;
    assert_eq!(told.code, 0, "{told:#?}");
    assert_eq!(told.json()["losses"][0]["rows"], 3);
}

/// A kill between a statement outside a transaction and its history row: the next run does it again and goes on.
#[tokio::test]
async fn down_can_be_run_again_from_the_middle() {
    let database = TestDatabase::migrated_task().await;
    database.execute("DROP INDEX idx_tasks_id; DROP TABLE task_requests").await;
    let run = migrate(Service::Task, &database, &["down", "--to", "20261123090110"]).await;
    assert_eq!(run.code, 0, "{run:#?}");
    let fresh = TestDatabase::migrated_task().await;
    assert_eq!(migrate(Service::Task, &database, &["up"]).await.code, 0);
    assert_eq!(whole_schema(&database.client().await).await, whole_schema(&fresh.client().await).await);
}

#[tokio::test]
async fn a_wrong_target_is_usage() {
    let database = TestDatabase::migrated_task().await;
    for arguments in [
        &["down"][..],
        &["down", "--steps", "1", "--to", "0"],
        &["down", "--steps", "0"],
        &["down", "--steps", "many"],
        &["down", "--to", "19990101000000"],
        &["down", "--to", "nonsense"],
    ] {
        let run = migrate(Service::Task, &database, arguments).await;
        assert_eq!(run.code, 2, "{arguments:?}: {run:#?}");
    }
    assert_eq!(migrate(Service::Task, &database, &["verify"]).await.code, 0);
    database.execute("INSERT INTO __diesel_schema_migrations (version) VALUES ('20990101000000')").await;
    let ahead = migrate(Service::Task, &database, &["down", "--steps", "1"]).await;
    assert_eq!(ahead.code, 7, "{ahead:#?}");
}
