//! `migrate rehearse`: the run of `up` on a copy of the schema; production is neither locked nor changed.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Instant;

use tests::legacy::{all_rows, fixture, whole_schema};
use tests::{MigrateRun, Postgres, Service, TestDatabase, run_migrate};

const SERVICES: [Service; 2] = [Service::Auth, Service::Task];
const LEGACY: [&str; 4] = ["incident", "complete", "half_by_hand", "hand_repaired"];

async fn rehearse(service: Service, database: &TestDatabase) -> MigrateRun {
    run_migrate(service, &database.migrator_url(), &["rehearse", "--output", "json"]).await
}

/// Schemas beside `public`, and every lock that anybody else would notice.
async fn schemas(client: &tokio_postgres::Client) -> Vec<String> {
    let sql = "SELECT nspname::text FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema)' ORDER BY 1";
    client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a_rehearsal_converges_where_up_does_and_leaves_nothing() {
    let mut databases = vec![(TestDatabase::empty().await, "empty")];
    for name in LEGACY {
        databases.push((TestDatabase::from_sql(&fixture(&format!("legacy/{name}"))).await, name));
    }
    for (database, about) in &databases {
        let client = database.client().await;
        let before = (whole_schema(&client).await, all_rows(&client).await, schemas(&client).await);
        // Readers and writers of rows may go on; a rehearsal that wanted more than to read would wait here and fail.
        let holder = database.client().await;
        let tables: Vec<String> = before.0.keys().map(|table| format!("\"{table}\"")).collect();
        if !tables.is_empty() {
            holder.batch_execute(&format!("BEGIN; LOCK TABLE {} IN EXCLUSIVE MODE", tables.join(", "))).await.unwrap();
        }
        for service in SERVICES {
            let run = rehearse(service, database).await;
            assert_eq!(run.code, 0, "{about}: {run:#?}");
            assert!(!run.json()["actions"].as_array().unwrap().is_empty(), "{about}");
        }
        drop(holder);
        assert_eq!((whole_schema(&client).await, all_rows(&client).await, schemas(&client).await), before, "{about}");
        for service in SERVICES {
            let run = run_migrate(service, &database.migrator_url(), &["up", "--output", "json"]).await;
            assert_eq!(run.code, 0, "{about}: what was rehearsed happens: {run:#?}");
            let done = rehearse(service, database).await;
            assert_eq!((done.code, &done.json()["actions"]), (0, &serde_json::json!([])), "{about}: {done:#?}");
        }
    }
}

#[tokio::test]
async fn a_rehearsal_says_what_up_would_refuse() {
    let database = TestDatabase::from_sql(&fixture("refused/rows_in_the_way")).await;
    for service in SERVICES {
        let up = run_migrate(service, &database.migrator_url(), &["up", "--output", "json"]).await;
        let rehearsed = rehearse(service, &database).await;
        assert_eq!(rehearsed.code, up.code, "{rehearsed:#?}");
        assert_eq!(rehearsed.json()["blockers"], up.json()["blockers"]);
        if up.code != 0 {
            return;
        }
    }
    panic!("this database is in nobody's way");
}

/// What only shows when a statement runs: found on the copy, before production has been touched.
#[tokio::test]
async fn a_statement_that_would_fail_fails_in_the_rehearsal() {
    let database = TestDatabase::from_sql(&fixture("legacy/incident")).await;
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE FUNCTION forbid() RETURNS event_trigger LANGUAGE plpgsql AS 'begin raise exception ''no new indexes this week''; end';
             CREATE EVENT TRIGGER forbid ON ddl_command_start WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION forbid()",
        )
        .await
        .unwrap();
    let before = (whole_schema(&client).await, all_rows(&client).await, schemas(&client).await);
    let run = rehearse(Service::Task, &database).await;
    assert_eq!(run.code, 1, "{run:#?}");
    assert!(run.json()["error"].as_str().unwrap().contains("no new indexes this week"), "{run:#?}");
    assert_eq!((whole_schema(&client).await, all_rows(&client).await, schemas(&client).await), before);
}

/// No right to make databases is needed; the right to make a schema is, and its lack is told with the grant.
#[tokio::test]
async fn a_missing_right_is_told_with_the_grant() {
    let database = TestDatabase::from_sql(&fixture("legacy/incident")).await;
    let migrator = &Postgres::shared().await.roles().migrator.name;
    let client = database.client().await;
    let may_make: bool = client
        .query_one("SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = $1", &[migrator])
        .await
        .unwrap()
        .get(0);
    assert!(!may_make, "the harness's migrator may make no database");
    let sql = format!(
        "ALTER DATABASE \"{0}\" OWNER TO postgres; REVOKE CREATE ON DATABASE \"{0}\" FROM PUBLIC; GRANT CONNECT ON DATABASE \"{0}\" TO \"{migrator}\"",
        database.name()
    );
    client.batch_execute(&sql.replace("postgres;", "CURRENT_USER;")).await.unwrap();
    client.batch_execute(&format!("GRANT CREATE ON SCHEMA public TO \"{migrator}\"")).await.unwrap();
    let started = Instant::now();
    let run = rehearse(Service::Task, &database).await;
    assert_eq!(run.code, 2, "{run:#?}");
    assert!(run.json()["error"].as_str().unwrap().contains("GRANT CREATE ON DATABASE"), "{run:#?}");
    assert!(started.elapsed().as_secs() < 60);
}
