//! `migrate repair`: shows what would mend each difference, does it when told, and leaves and lists what it must not do.

use serde_json::Value;
use tests::legacy::{all_rows, assert_rows_kept, fixture, whole_schema};
use tests::{MigrateRun, Service, TestDatabase, run_migrate};

async fn migrate(service: Service, database: &TestDatabase, arguments: &[&str]) -> MigrateRun {
    run_migrate(service, &database.migrator_url(), &[arguments, &["--output", "json"]].concat()).await
}

const DRIFT: &str =
    "DROP TABLE task_requests; DROP INDEX idx_tasks_id; ALTER TABLE tasks DROP CONSTRAINT tasks_status_check;
    ALTER TABLE tasks ALTER COLUMN title DROP NOT NULL; ALTER TABLE tasks ALTER COLUMN version TYPE integer;
    ALTER TABLE tasks RENAME CONSTRAINT tasks_pkey TO pk; CREATE UNIQUE INDEX one_title ON tasks (title)";

#[tokio::test]
async fn repair_shows_and_writes_nothing_until_it_is_told() {
    let database = TestDatabase::migrated_task().await;
    let fresh = whole_schema(&database.client().await).await;
    database.execute(DRIFT).await;
    let client = database.client().await;
    let (schema, rows) = (whole_schema(&client).await, all_rows(&client).await);
    let shown = migrate(Service::Task, &database, &["repair"]).await;
    assert_eq!(shown.code, 3, "{shown:#?}");
    let repairs = shown.json()["repairs"].as_array().unwrap().clone();
    assert_eq!(repairs.len(), 7, "{repairs:#?}");
    for repair in &repairs {
        let statements = repair["statements"].as_array().unwrap();
        assert!(!statements.is_empty() && statements.iter().all(|one| one["statement"].is_string()), "{repair:#?}");
    }
    assert_eq!((whole_schema(&client).await, all_rows(&client).await), (schema, rows), "nothing was written");
    let text = run_migrate(Service::Task, &database.migrator_url(), &["repair"]).await;
    assert!(
        text.stdout.contains("`migrate repair --apply` would run") && text.stdout.contains("ACCESS EXCLUSIVE"),
        "{text:#?}"
    );

    let applied = migrate(Service::Task, &database, &["repair", "--apply"]).await;
    assert_eq!((applied.code, &applied.json()["state"]), (0, &Value::from("match")), "{applied:#?}");
    assert_eq!(whole_schema(&client).await, fresh);
    let again = migrate(Service::Task, &database, &["repair"]).await;
    assert_eq!((again.code, &again.json()["repairs"]), (0, &serde_json::json!([])), "{again:#?}");
    let status = migrate(Service::Task, &database, &["status"]).await.json();
    assert_eq!((&status["last_run"]["command"], &status["last_run"]["outcome"]), (&"repair".into(), &"done".into()));
}

/// A seeded row that somebody deleted comes back as a fresh install has it.
#[tokio::test]
async fn a_missing_seed_is_made_whole() {
    let database = TestDatabase::migrated_auth().await;
    let client = database.client().await;
    let seeds = "SELECT string_agg(concat_ws(' ', name, display_name, description, is_active, is_system), '; ' ORDER BY name) FROM roles";
    let fresh: String = client.query_one(seeds, &[]).await.unwrap().get(0);
    database.execute("DELETE FROM roles").await;
    let run = migrate(Service::Auth, &database, &["repair", "--apply"]).await;
    assert_eq!(run.code, 0, "{run:#?}");
    assert_eq!(client.query_one(seeds, &[]).await.unwrap().get::<_, String>(0), fresh);
}

/// Rows in the way of one difference: it is left and told with count, keys and SQL; everything else is mended, no row is lost.
#[tokio::test]
async fn what_rows_are_in_the_way_of_is_left_and_told() {
    let database = TestDatabase::migrated_both().await;
    database
        .execute(
            "INSERT INTO users (id, email, username, password_hash, role_id) SELECT gen_random_uuid(), 'a@example.com', 'a', 'x', id FROM roles WHERE name = 'member';
             ALTER TABLE users DROP CONSTRAINT fk_users_role_id; UPDATE users SET role_id = gen_random_uuid();
             ALTER TABLE users DROP CONSTRAINT users_email_key; DROP INDEX users_email_key_key;
             INSERT INTO users (id, email, username, password_hash, role_id) SELECT gen_random_uuid(), email, 'b', 'x', role_id FROM users;
             DROP INDEX idx_users_created_at",
        )
        .await;
    let before = all_rows(&database.client().await).await;
    let run = migrate(Service::Auth, &database, &["repair", "--apply"]).await;
    assert_eq!(run.code, 3, "{run:#?}");
    let report = run.json();
    let blockers = report["blockers"].as_array().unwrap();
    for (object, rows) in [("fk_users_role_id", 2), ("users_email_key", 2)] {
        let found = blockers
            .iter()
            .find(|blocker| blocker["object"] == object)
            .unwrap_or_else(|| panic!("{object}: {blockers:#?}"));
        assert_eq!(found["rows"], rows, "{found:#?}");
        assert!(
            !found["sample"].as_array().unwrap().is_empty() && found["resolve"].as_str().unwrap().len() > 20,
            "{found:#?}"
        );
    }
    let left: Vec<&str> =
        report["drift"].as_array().unwrap().iter().map(|drift| drift["object"].as_str().unwrap()).collect();
    assert_eq!(left.len(), 2, "the rest is mended: {left:?}");
    assert_rows_kept(&before, &all_rows(&database.client().await).await, &[]);
}

#[tokio::test]
async fn a_repair_runs_no_migration() {
    let database = TestDatabase::from_sql(&fixture("legacy/incident")).await;
    let shown = migrate(Service::Task, &database, &["repair"]).await;
    assert_eq!(shown.code, 4, "{shown:#?}");
    let run = migrate(Service::Task, &database, &["repair", "--apply"]).await;
    assert_eq!(run.code, 4, "{run:#?}");
    let report = run.json();
    assert_eq!(report["applied"], serde_json::json!([]));
    assert!(report["actions"].as_array().unwrap().iter().all(|action| action["version"].is_null()), "{report:#}");
    assert!(!whole_schema(&database.client().await).await.contains_key("task_requests"), "its migration makes it");
    let up = migrate(Service::Task, &database, &["up"]).await;
    assert_eq!(up.code, 0, "{up:#?}");
}

/// `up` makes nobody wait for minutes: a large table is written anew only by `repair --apply`.
#[tokio::test]
async fn a_large_table_is_written_anew_only_when_told() {
    let database = TestDatabase::migrated_task().await;
    database
        .execute(
            "INSERT INTO tasks (id, user_id, title, description)
             SELECT gen_random_uuid(), gen_random_uuid(), 'title ' || n, repeat('x', 900) FROM generate_series(1, 80000) n;
             ALTER TABLE tasks ALTER COLUMN version TYPE integer",
        )
        .await;
    let refused = migrate(Service::Task, &database, &["up"]).await;
    assert_eq!(refused.code, 3, "{refused:#?}");
    let blocker = refused.json()["blockers"][0].clone();
    assert!(blocker["resolve"].as_str().unwrap().contains("repair --apply"), "{blocker:#}");
    assert_eq!(whole_schema(&database.client().await).await["tasks"].columns["version"].type_name, "integer");
    let done = migrate(Service::Task, &database, &["repair", "--apply"]).await;
    assert_eq!(done.code, 0, "{done:#?}");
    assert_eq!(migrate(Service::Task, &database, &["up"]).await.code, 0);
}

/// Only a person knows in which zone a time without one was written.
#[tokio::test]
async fn times_without_a_zone_are_converted_only_when_told_the_zone() {
    let drift = "INSERT INTO tasks (id, user_id, title, due_date) VALUES (gen_random_uuid(), gen_random_uuid(), 'a', '2025-07-01 12:00:00+00');
        ALTER TABLE tasks ALTER COLUMN due_date TYPE timestamp USING due_date AT TIME ZONE 'Europe/Berlin'";
    for (zone, moment) in [("Europe/Berlin", "2025-07-01 12:00:00+00"), ("UTC", "2025-07-01 14:00:00+00")] {
        let database = TestDatabase::migrated_task().await;
        database.execute(drift).await;
        let refused = migrate(Service::Task, &database, &["up"]).await;
        assert_eq!(refused.code, 3, "{refused:#?}");
        assert!(refused.json()["blockers"][0]["resolve"].as_str().unwrap().contains("--time-zone"), "{refused:#?}");
        let unknown = migrate(Service::Task, &database, &["up", "--time-zone", "Mars/Olympus"]).await;
        assert_eq!(unknown.code, 2, "{unknown:#?}");
        assert!(unknown.json()["error"].as_str().unwrap().contains("--time-zone"), "{unknown:#?}");
        let done = migrate(Service::Task, &database, &["up", "--time-zone", zone]).await;
        assert_eq!(done.code, 0, "{zone}: {done:#?}");
        let right: bool = database
            .client()
            .await
            .query_one(&format!("SELECT due_date = '{moment}' FROM tasks"), &[])
            .await
            .unwrap()
            .get(0);
        assert!(right, "{zone}");
    }
}

/// A foreign key whose triggers are switched off looks validated and checks nothing.
#[tokio::test]
async fn a_foreign_key_that_checks_nothing_is_mended() {
    let database = TestDatabase::migrated_auth().await;
    let client = database.client().await;
    client.batch_execute("ALTER TABLE refresh_tokens DISABLE TRIGGER ALL").await.unwrap();
    let verify = migrate(Service::Auth, &database, &["verify"]).await;
    assert_eq!(verify.code, 3, "{verify:#?}");
    let first = verify.json()["drift"][0].clone();
    assert_eq!((&first["problem"], &first["kind"]), (&"invalid".into(), &"constraint".into()), "{first:#}");
    let up = migrate(Service::Auth, &database, &["up"]).await;
    assert_eq!(up.code, 0, "{up:#?}");
    let off: i64 = client
        .query_one(
            "SELECT count(*) FROM pg_trigger WHERE tgenabled = 'D' AND tgrelid = 'refresh_tokens'::regclass",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(off, 0);
}

/// Two constraints that stand under each other's names change places.
#[tokio::test]
async fn swapped_names_change_places() {
    let database = TestDatabase::migrated_auth().await;
    let fresh = whole_schema(&database.client().await).await;
    database
        .execute(
            "ALTER TABLE password_reset_tokens RENAME CONSTRAINT password_reset_tokens_pkey TO between;
             ALTER TABLE password_reset_tokens RENAME CONSTRAINT password_reset_tokens_token_hash_key TO password_reset_tokens_pkey;
             ALTER TABLE password_reset_tokens RENAME CONSTRAINT between TO password_reset_tokens_token_hash_key;
             ALTER TABLE roles DROP CONSTRAINT roles_name_key; ALTER TABLE users DROP CONSTRAINT fk_users_role_id;
             ALTER TABLE role_permissions DROP CONSTRAINT fk_role_permissions_role_id;
             ALTER TABLE roles RENAME CONSTRAINT roles_pkey TO roles_name_key; ALTER TABLE roles ADD CONSTRAINT roles_pkey UNIQUE (name)",
        )
        .await;
    let up = migrate(Service::Auth, &database, &["up"]).await;
    assert_eq!(up.code, 0, "{up:#?}");
    assert_eq!(whole_schema(&database.client().await).await, fresh);
}
