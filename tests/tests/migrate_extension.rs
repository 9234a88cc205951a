//! An index that needs an extension: a part of the schema where the extension is, and only there. Who may not make the extension
//! gets everything else.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use serde_json::Value;
use tests::legacy::{all_rows, whole_schema};
use tests::{MigrateRun, Pair, Postgres, Service, TestDatabase, http_get, run_migrate};
use tokio_postgres::Client;

const INDEX: &str = "idx_tasks_live_text";
const FILL: &str = "INSERT INTO tasks (id, user_id, title) SELECT gen_random_uuid(), gen_random_uuid(), 'title ' || n FROM generate_series(1, 50) n";

async fn migrate(database: &TestDatabase, arguments: &[&str]) -> MigrateRun {
    run_migrate(Service::Task, &database.migrator_url(), &[arguments, &["--output", "json"]].concat()).await
}

async fn definition(client: &Client) -> Option<String> {
    let sql = format!(
        "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indexrelid = to_regclass('public.{INDEX}') AND indisvalid"
    );
    client.query_opt(&sql, &[]).await.unwrap().map(|row| row.get(0))
}

/// Whether the server has pg_trgm. It must, unless `WITHOUT_PG_TRGM` says that it is one without.
async fn extension_is_available() -> bool {
    let database = TestDatabase::empty().await;
    let sql = "SELECT FROM pg_available_extensions WHERE name = 'pg_trgm'";
    let is_there = database.client().await.query_opt(sql, &[]).await.unwrap().is_some();
    let without = std::env::var_os("WITHOUT_PG_TRGM").is_some();
    assert!(
        is_there || without,
        "the server has no pg_trgm: install PostgreSQL's contrib modules, or set WITHOUT_PG_TRGM"
    );
    is_there
}

/// A database whose migrator may make tables, and no extension.
async fn without_the_right() -> TestDatabase {
    let database = TestDatabase::empty().await;
    let role = &Postgres::shared().await.roles().migrator.name;
    database.execute(&format!("REVOKE CREATE ON DATABASE \"{}\" FROM \"{role}\"", database.name())).await;
    database
}

fn findings(run: &MigrateRun) -> Vec<String> {
    let found = run.json()["findings"].as_array().unwrap().clone();
    found.iter().map(|finding| finding["code"].as_str().unwrap().to_owned()).collect()
}

fn drift(run: &MigrateRun) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = run.json()["drift"].as_array().unwrap().clone();
    all.iter().map(|drift| (text(&drift["object"]), text(&drift["problem"]))).collect()
}

#[tokio::test]
async fn whoever_may_not_make_the_extension_gets_everything_else() {
    let database = without_the_right().await;
    let plan = migrate(&database, &["plan"]).await;
    assert!(
        !plan.json()["statements"]
            .as_array()
            .unwrap()
            .iter()
            .any(|each| { each["origin"] == "repair" && each["statement"].as_str().unwrap().contains(INDEX) })
    );
    let up = migrate(&database, &["up"]).await;
    assert_eq!(up.code, 0, "{up:#?}");
    assert_eq!(findings(&up), ["SEARCH_WITHOUT_INDEX"]);
    let client = database.client().await;
    assert_eq!(definition(&client).await, None);
    let verify = migrate(&database, &["verify"]).await;
    assert_eq!((verify.code, drift(&verify)), (0, vec![]));
    // Again there is nothing to do, and it is still said.
    let again = migrate(&database, &["up"]).await;
    assert_eq!((again.code, again.json()["actions"].as_array().unwrap().len()), (0, 0), "{again:#?}");
    assert_eq!(findings(&again), ["SEARCH_WITHOUT_INDEX"]);

    // Later somebody makes the extension: then the index is missing, and the next run builds it beside the writers.
    if !extension_is_available().await {
        return;
    }
    client.batch_execute(FILL).await.unwrap();
    client.batch_execute("CREATE EXTENSION pg_trgm").await.unwrap();
    let verify = migrate(&database, &["verify"]).await;
    assert_eq!((verify.code, drift(&verify)), (3, vec![(INDEX.to_owned(), "missing".to_owned())]));
    let plan = migrate(&database, &["plan"]).await.json();
    let planned = plan["statements"].as_array().unwrap().iter().filter(|each| each["origin"] == "repair").count();
    assert_eq!(planned, 1, "{plan:#}");
    let build = plan["statements"].as_array().unwrap().iter().find(|each| each["origin"] == "repair").unwrap();
    assert_eq!(build["outcome"], "changes", "{build:#}");
    let rows = all_rows(&client).await["tasks"].clone();
    let up = migrate(&database, &["up"]).await;
    assert_eq!((up.code, findings(&up)), (0, vec![]), "{up:#?}");
    let built = up.json()["actions"].to_string();
    assert!(built.contains("CREATE INDEX CONCURRENTLY idx_tasks_live_text"), "{built}");
    assert!(definition(&client).await.is_some());
    assert_eq!(all_rows(&client).await["tasks"], rows);
    assert_eq!(migrate(&database, &["verify"]).await.code, 0);

    // With the extension the index goes, and belongs to the schema no more.
    client.batch_execute("DROP EXTENSION pg_trgm CASCADE").await.unwrap();
    assert_eq!(migrate(&database, &["verify"]).await.code, 0);
}

#[tokio::test]
async fn the_extension_may_be_in_another_schema() {
    if !extension_is_available().await {
        return;
    }
    let role = Postgres::shared().await.roles().migrator.name.clone();
    // In a fresh database, and in one where somebody has moved it away.
    for (schema, moved) in [("\"Extensions, ours\"", false), ("\"Extensions, ours\"", true), ("pg_catalog", false)] {
        let database = TestDatabase::empty().await;
        let client = database.client().await;
        let is_hidden = schema != "pg_catalog";
        if is_hidden {
            client.batch_execute(&format!("CREATE SCHEMA {schema}")).await.unwrap();
        }
        if moved {
            assert_eq!(migrate(&database, &["up"]).await.code, 0);
            client.batch_execute(&format!("{FILL}; ALTER EXTENSION pg_trgm SET SCHEMA {schema}")).await.unwrap();
        } else {
            client.batch_execute(&format!("CREATE EXTENSION pg_trgm SCHEMA {schema}")).await.unwrap();
        }
        if is_hidden {
            // Nobody else may look into it: as if it were not there.
            let up = migrate(&database, &["up"]).await;
            assert_eq!(up.code, 0, "{up:#?}");
            client.batch_execute("ALTER TABLE tasks ALTER COLUMN title DROP NOT NULL").await.unwrap();
            for arguments in [&["rehearse"][..], &["down", "--steps", "1"], &["up"]] {
                let run = migrate(&database, arguments).await;
                assert_eq!(run.code, 0, "{run:#?}");
            }
            client.batch_execute(&format!("GRANT USAGE ON SCHEMA {schema} TO \"{role}\"")).await.unwrap();
            // The runtime role may not look into it still: it comes to the same answer, which is that of the owner.
            let verify = run_migrate(Service::Task, &database.runtime_url(), &["verify", "--output", "json"]).await;
            assert_eq!(verify.code, 3, "{verify:#?}");
        }
        let up = migrate(&database, &["up"]).await;
        assert_eq!(up.code, 0, "{up:#?}");
        let made = definition(&client).await.unwrap();
        let class = if is_hidden { format!("{schema}.gin_trgm_ops") } else { "gin_trgm_ops".to_owned() };
        assert!(made.contains(&format!("(title {class}, description {class})")), "{made}");
        let verify = run_migrate(Service::Task, &database.runtime_url(), &["verify", "--output", "json"]).await;
        assert_eq!(verify.code, 0, "{verify:#?}");
        let before = whole_schema(&client).await;
        client.batch_execute(&format!("DROP INDEX {INDEX}; ALTER TABLE tasks DROP COLUMN version")).await.unwrap();
        let rehearsal = migrate(&database, &["rehearse"]).await;
        assert_eq!(rehearsal.code, 0, "{rehearsal:#?}");
        assert_eq!(migrate(&database, &["repair", "--apply"]).await.code, 0);
        assert_eq!(whole_schema(&client).await, before);
        assert_eq!(migrate(&database, &["verify"]).await.code, 0);
        assert_eq!(migrate(&database, &["down", "--steps", "1"]).await.code, 0);
        assert_eq!(migrate(&database, &["up"]).await.code, 0);
        assert_eq!(whole_schema(&client).await, before);
    }
}

/// Whatever keeps the extension from being made keeps nothing else.
#[tokio::test]
async fn an_extension_that_cannot_be_made_is_done_without() {
    if !extension_is_available().await {
        return;
    }
    for in_the_way in [
        "CREATE FUNCTION similarity(text, text) RETURNS real LANGUAGE sql AS 'SELECT 1.0::real'",
        "CREATE TYPE gtrgm AS (a int)",
        "CREATE FUNCTION forbid() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no extensions here'; END $$;
         CREATE EVENT TRIGGER forbid ON ddl_command_start WHEN TAG IN ('CREATE EXTENSION') EXECUTE FUNCTION forbid()",
    ] {
        let database = TestDatabase::empty().await;
        database.client().await.batch_execute(in_the_way).await.unwrap();
        let up = migrate(&database, &["up"]).await;
        assert_eq!((up.code, findings(&up)), (0, vec!["SEARCH_WITHOUT_INDEX".to_owned()]), "{in_the_way}: {up:#?}");
        assert_eq!(migrate(&database, &["verify"]).await.code, 0, "{in_the_way}");
    }
}

/// What passes is waited for: another session makes the extension, and gives it up.
#[tokio::test]
async fn an_extension_that_another_session_makes_is_waited_for() {
    if !extension_is_available().await {
        return;
    }
    let database = TestDatabase::empty().await;
    let other = database.client().await;
    other.batch_execute("BEGIN; CREATE EXTENSION pg_trgm").await.unwrap();
    let up = migrate(&database, &["up", "--lock-wait", "2s"]).await;
    assert_ne!(up.code, 0, "{up:#?}");
    other.batch_execute("ROLLBACK").await.unwrap();
    let up = migrate(&database, &["up"]).await;
    assert_eq!((up.code, findings(&up)), (0, vec![]), "{up:#?}");
    assert!(definition(&other).await.is_some());
}

/// A rehearsal makes the extension and the index as the run will, and leaves neither.
#[tokio::test]
async fn a_rehearsal_leaves_no_extension() {
    if !extension_is_available().await {
        return;
    }
    let database = TestDatabase::empty().await;
    let client = database.client().await;
    assert_eq!(migrate(&database, &["up"]).await.code, 0);
    client.batch_execute(FILL).await.unwrap();
    client.batch_execute("DROP EXTENSION pg_trgm CASCADE; DELETE FROM __diesel_schema_migrations").await.unwrap();
    let rehearsal = migrate(&database, &["rehearse"]).await;
    assert_eq!(rehearsal.code, 0, "{rehearsal:#?}");
    let actions = rehearsal.json()["actions"].as_array().unwrap().clone();
    let made = actions.iter().filter(|action| action["version"] == "20261128233000" && action["outcome"] == "applied");
    assert_eq!(made.count(), 2, "{actions:#?}");
    let made = "SELECT count(*) FROM pg_extension WHERE extname = 'pg_trgm'";
    assert_eq!(client.query_one(made, &[]).await.unwrap().get::<_, i64>(0), 0);
    // Somebody's relation has the name that the run will need: it stops before it makes anything.
    client.batch_execute(&format!("CREATE TABLE others (id int); CREATE INDEX {INDEX} ON others (id)")).await.unwrap();
    let refused = migrate(&database, &["up"]).await;
    assert_eq!(refused.code, 3, "{refused:#?}");
    assert!(refused.json()["blockers"].to_string().contains(INDEX), "{refused:#?}");
    assert_eq!(client.query_one(made, &[]).await.unwrap().get::<_, i64>(0), 0);
    client.batch_execute("DROP TABLE others").await.unwrap();
    let up = migrate(&database, &["up"]).await;
    assert_eq!(up.code, 0, "{up:#?}");
    assert!(definition(&client).await.is_some());
}

#[tokio::test]
async fn an_index_of_another_shape_or_invalid_is_made_anew() {
    if !extension_is_available().await {
        return;
    }
    for (what, sql) in [
        ("different", format!("DROP INDEX {INDEX}; CREATE INDEX {INDEX} ON tasks (title)")),
        ("different", format!("DROP INDEX {INDEX}; CREATE INDEX {INDEX} ON tasks USING gin (title gin_trgm_ops)")),
        ("missing", format!("ALTER INDEX {INDEX} RENAME TO by_hand")),
        ("invalid", format!("UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{INDEX}'::regclass")),
    ] {
        let database = TestDatabase::migrated_task().await;
        let client = database.client().await;
        client.batch_execute(FILL).await.unwrap();
        let before = whole_schema(&client).await;
        client.batch_execute(&sql).await.unwrap();
        let verify = migrate(&database, &["verify"]).await;
        assert_eq!((verify.code, drift(&verify)), (3, vec![(INDEX.to_owned(), what.to_owned())]), "{sql}");
        assert_eq!(migrate(&database, &["up"]).await.code, 0, "{sql}");
        assert_eq!(whole_schema(&client).await, before, "{sql}");
    }
}

/// Where the extension comes later the schema differs, which is told; but a service that worked until then goes on.
#[tokio::test]
async fn a_service_goes_on_without_the_index() {
    let pair = Pair::start().await;
    let metrics = pair.task.metrics_address();
    let database = pair.task_database.as_ref().unwrap();
    let client = database.client().await;
    if !extension_is_available().await {
        return;
    }
    client.batch_execute(&format!("DROP INDEX {INDEX}")).await.unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while !http_get(metrics, "/metrics").await.1.contains("schema_drift_objects 1") {
        assert!(Instant::now() < until, "the missing index is not told");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(http_get(metrics, "/readyz").await.0, 200);
    // One in its place that forbids rows is another matter.
    client.batch_execute(&format!("CREATE UNIQUE INDEX {INDEX} ON tasks (id, title)")).await.unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while http_get(metrics, "/readyz").await.0 == 200 {
        assert!(Instant::now() < until, "a unique index in its place is not missed");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
