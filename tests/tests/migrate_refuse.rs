//! What `migrate` refuses: each with its exit code and a message that says what to do, and nothing changed.

use tests::legacy::{all_rows, fixture, whole_schema};
use tests::{MigrateRun, Postgres, Service, TestDatabase, run_migrate};

async fn up(service: Service, url: &str, more: &[&str]) -> MigrateRun {
    run_migrate(service, url, &[&["up", "--output", "json"], more].concat()).await
}

#[tokio::test]
async fn a_database_that_is_not_ours_or_has_rows_in_the_way_is_reported_and_not_changed() {
    let cases: &[(&str, Service, &[&str])] = &[
        ("another_application", Service::Auth, &["users.id", "users.email"]),
        ("another_application", Service::Task, &["tasks.id", "tasks.title"]),
        ("views", Service::Auth, &["users.users"]),
        ("views", Service::Task, &["tasks.tasks"]),
        ("rows_in_the_way", Service::Auth, &["users.users_email_key", "refresh_tokens.fk_refresh_tokens_user_id"]),
        ("rows_in_the_way", Service::Task, &["tasks.tasks_status_check"]),
    ];
    for (name, service, objects) in cases {
        let database = TestDatabase::from_sql(&fixture(&format!("refused/{name}"))).await;
        let client = database.client().await;
        let (schema, rows) = (whole_schema(&client).await, all_rows(&client).await);
        let run = up(*service, &database.migrator_url(), &[]).await;
        assert_eq!(run.code, 3, "{name}: {run:#?}");
        let report = run.json();
        let blockers = report["blockers"].as_array().unwrap();
        for object in *objects {
            let blocker = blockers.iter().find(|blocker| {
                format!("{}.{}", blocker["table"].as_str().unwrap(), blocker["object"].as_str().unwrap()) == *object
            });
            let blocker = blocker.unwrap_or_else(|| panic!("{name}: {object} is not among {blockers:#?}"));
            assert!(!blocker["resolve"].as_str().unwrap().is_empty());
            if *name == "rows_in_the_way" {
                assert!(blocker["rows"].as_i64().unwrap() > 0, "{blocker:#?}");
                assert!(!blocker["sample"].as_array().unwrap().is_empty());
            }
        }
        assert_eq!(whole_schema(&client).await, schema, "{name}: the schema was changed");
        assert_eq!(all_rows(&client).await, rows, "{name}: rows were changed");
        let text = run_migrate(*service, &database.migrator_url(), &["up"]).await;
        assert!(text.stderr.contains("nothing was changed"), "{text:#?}");
    }
}

/// The SQL of a report is written to be run: after it, the same command succeeds.
#[tokio::test]
async fn following_the_advice_for_orphans_lets_the_run_succeed() {
    let sql = format!(
        "{}\nALTER TABLE refresh_tokens DROP CONSTRAINT fk_refresh_tokens_user_id;
         INSERT INTO refresh_tokens (id, user_id, token_hash, expires_at) VALUES
            ('0b5d0c1e-3f57-4f0a-9a55-0a4f3d8f6ca1', '0b5d0c1e-3f57-4f0a-9a55-0a4f3d8f6cff', 'orphan', now());",
        fixture("legacy/incident")
    );
    let database = TestDatabase::from_sql(&sql).await;
    let refused = up(Service::Auth, &database.migrator_url(), &[]).await;
    assert_eq!(refused.code, 3);
    database.execute(refused.json()["blockers"][0]["resolve"].as_str().unwrap()).await;
    assert_eq!(up(Service::Auth, &database.migrator_url(), &[]).await.code, 0);
}

#[tokio::test]
async fn every_exit_code_of_verify_and_up() {
    let database = TestDatabase::empty().await;
    let verify = async |url: &str| run_migrate(Service::Task, url, &["verify", "--output", "json"]).await;

    let pending = verify(&database.runtime_url()).await;
    assert_eq!((pending.code, pending.json()["state"].as_str()), (4, Some("pending")), "{pending:#?}");

    assert_eq!(up(Service::Task, &database.migrator_url(), &[]).await.code, 0);
    assert_eq!(verify(&database.migrator_url()).await.code, 0);

    database.execute("CREATE INDEX one_more ON tasks (title); ALTER TABLE tasks ADD COLUMN one_more text").await;
    let warned = verify(&database.migrator_url()).await;
    assert_eq!((warned.code, warned.json()["drift"].as_array().unwrap().len()), (0, 2), "{warned:#?}");
    assert!(warned.json()["drift"].as_array().unwrap().iter().all(|drift| drift["severity"] == "warning"));

    database.execute("DROP INDEX idx_tasks_id").await;
    let drift = verify(&database.migrator_url()).await;
    assert_eq!((drift.code, drift.json()["state"].as_str()), (3, Some("drift")), "{drift:#?}");
    let first = &drift.json()["drift"][0];
    assert_eq!(
        (first["kind"].as_str(), first["object"].as_str(), first["problem"].as_str(), first["severity"].as_str()),
        (Some("index"), Some("idx_tasks_id"), Some("missing"), Some("error"))
    );
    assert!(first["repair"].as_str().unwrap().contains("CREATE INDEX CONCURRENTLY"));
    assert_eq!(up(Service::Task, &database.migrator_url(), &[]).await.code, 0);
    assert_eq!(verify(&database.migrator_url()).await.code, 0);

    database.execute("INSERT INTO __diesel_schema_migrations (version) VALUES ('20990101000000')").await;
    for ahead in [verify(&database.migrator_url()).await, up(Service::Task, &database.migrator_url(), &[]).await] {
        assert_eq!(ahead.code, 7, "{ahead:#?}");
        assert_eq!(ahead.json()["unknown"], serde_json::json!(["20990101000000"]));
    }

    let unreachable = up(Service::Task, "postgres://nobody@127.0.0.1:1/none", &["--connect-wait", "300ms"]).await;
    assert_eq!(unreachable.code, 6, "{unreachable:#?}");
    assert!(unreachable.json()["error"].as_str().unwrap().contains("DATABASE_URL"));

    let usage = run_migrate(Service::Task, &database.migrator_url(), &["up", "--lock-wait", "soon"]).await;
    assert_eq!(usage.code, 2, "{usage:#?}");
    let missing = run_migrate(Service::Task, "", &["up"]).await;
    assert_eq!(missing.code, 2, "{missing:#?}");
    assert!(missing.stderr.contains("DATABASE_URL"), "{missing:#?}");
}

#[tokio::test]
async fn a_wrong_password_is_configuration_and_is_not_waited_for() {
    let database = TestDatabase::empty().await;
    let address = Postgres::shared().await.address();
    let roles = Postgres::shared().await.roles();
    let right = address.role_url(&roles.migrator, database.name());
    let password = right.split(['@']).next().unwrap().rsplit(':').next().unwrap().to_owned();
    let wrong = right.replace(&password, "not-the-password");
    let started = std::time::Instant::now();
    let run = up(Service::Auth, &wrong, &[]).await;
    assert_eq!(run.code, 2, "{run:#?}");
    assert!(started.elapsed().as_secs() < 10);
    assert!(!run.stdout.contains("not-the-password") && !run.stderr.contains("not-the-password"), "{run:#?}");
}

#[tokio::test]
async fn a_second_run_waits_for_the_lock_and_gives_up_with_5() {
    let database = TestDatabase::empty().await;
    let client = database.client().await;
    let key = migration_engine::lock_key("auth-service");
    client.execute("SELECT pg_advisory_lock($1)", &[&key]).await.unwrap();
    let run = up(Service::Auth, &database.migrator_url(), &["--lock-wait", "500ms"]).await;
    assert_eq!(run.code, 5, "{run:#?}");
    assert!(run.json()["error"].as_str().unwrap().contains("--lock-wait"));
    // The other service has a lock of its own.
    assert_eq!(up(Service::Task, &database.migrator_url(), &[]).await.code, 0);
    client.execute("SELECT pg_advisory_unlock($1)", &[&key]).await.unwrap();
    assert_eq!(up(Service::Auth, &database.migrator_url(), &[]).await.code, 0);
}

/// Whatever stands in a column, questions about the rows must not end in an error of PostgreSQL: `up` refuses, `repair --apply`
/// leaves it and does the rest. Without constraints and history every guard is asked.
#[tokio::test]
async fn a_column_of_a_type_that_does_not_convert_is_told_whichever_it_is() {
    let bare = TestDatabase::migrated_both().await;
    bare.execute(FILLED_AND_BARE).await;
    let mut tried = 0;
    for (service, expected) in [
        (Service::Auth, include_str!("../../migrations/auth/expected.json")),
        (Service::Task, include_str!("../../migrations/task/expected.json")),
    ] {
        let expected: serde_json::Value = serde_json::from_str(expected).unwrap();
        for (table, shape) in expected["tables"].as_object().unwrap() {
            for column in shape["columns"].as_object().unwrap().keys() {
                let database = bare.copy().await;
                // Neither has an operator that takes text or a UUID; json has no equality at all.
                let other = match tried % 2 {
                    0 => format!("bytea USING convert_to({column}::text, 'UTF8')"),
                    _ => format!("json USING to_json({column})"),
                };
                if other.starts_with(shape["columns"][column]["type"].as_str().unwrap()) {
                    continue;
                }
                let other = format!("ALTER TABLE {table} ALTER COLUMN {column} TYPE {other}");
                database.execute(&other).await;
                let client = database.client().await;
                let (schema, rows) = (whole_schema(&client).await, all_rows(&client).await);
                let run = up(service, &database.migrator_url(), &[]).await;
                assert_eq!(run.code, 3, "{other}: {}", run.brief());
                let blockers = run.json()["blockers"].as_array().unwrap().clone();
                let told = blockers.iter().any(|blocker| blocker["table"] == *table && blocker["object"] == *column);
                assert!(told, "{other}: {blockers:#?}");
                assert_eq!(whole_schema(&client).await, schema, "{other}: the schema was changed");
                assert_eq!(all_rows(&client).await, rows, "{other}: rows were changed");
                let repair = run_migrate(service, &database.migrator_url(), &["repair", "--apply"]).await;
                assert!([3, 4].contains(&repair.code), "{other}: repair ends with {}", repair.brief());
                tried += 1;
            }
        }
    }
    println!("{tried} columns of another type");
}

/// Some rows, then every table made anew without constraints, defaults and indexes, and an empty history.
const FILLED_AND_BARE: &str = "
    INSERT INTO users (id, email, username, password_hash, role_id)
    SELECT gen_random_uuid(), n || '@example.com', 'u' || n, 'x', (SELECT id FROM roles WHERE name = 'member') FROM generate_series(1, 3) n;
    INSERT INTO sessions (id, user_id, expires_at) SELECT gen_random_uuid(), id, now() + '1 day' FROM users;
    INSERT INTO refresh_tokens (id, user_id, token_hash, expires_at, session_id)
    SELECT gen_random_uuid(), user_id, id::text, expires_at, id FROM sessions;
    INSERT INTO tasks (id, user_id, title) SELECT gen_random_uuid(), id, 'title' FROM users;
    DELETE FROM __diesel_schema_migrations;
    DO $$ DECLARE t text; BEGIN
        FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE '\\_\\_%' LOOP
            EXECUTE format('CREATE TABLE %I AS TABLE %I', t || '_bare', t);
            EXECUTE format('DROP TABLE %I CASCADE', t);
            EXECUTE format('ALTER TABLE %I RENAME TO %I', t || '_bare', t);
        END LOOP;
    END $$";
