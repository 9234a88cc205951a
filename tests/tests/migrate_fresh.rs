//! A fresh install, an up-to-date database, both services in one database, and the same files under Diesel's own runner.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use diesel_migrations::{EmbeddedMigrations, embed_migrations};
use migration_engine::{Expected, Schema};
use tests::legacy::{all_rows, expected_where, whole_schema};
use tests::{MigrateRun, Service, TestDatabase, run_migrate};
use tokio_postgres::Client;

const AUTH: EmbeddedMigrations = embed_migrations!("../migrations/auth");
const TASK: EmbeddedMigrations = embed_migrations!("../migrations/task");
const SERVICES: [Service; 2] = [Service::Auth, Service::Task];

fn expected(service: Service) -> Expected {
    let text = match service {
        Service::Auth => include_str!("../../migrations/auth/expected.json"),
        Service::Task => include_str!("../../migrations/task/expected.json"),
    };
    serde_json::from_str(text).unwrap()
}

/// The expected tables, with the indexes that can be made on this server.
async fn expected_tables(service: Service, client: &Client) -> Schema {
    expected_where(client, expected(service)).await.tables
}

fn embedded(service: Service) -> EmbeddedMigrations {
    match service {
        Service::Auth => AUTH,
        Service::Task => TASK,
    }
}

/// The text of every `up.sql`, in order.
fn up_files(service: Service) -> Vec<(String, String)> {
    let name = if service == Service::Auth { "auth" } else { "task" };
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations").join(name);
    let mut directories: Vec<_> =
        std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    directories.sort();
    let text = |path: &std::path::Path| std::fs::read_to_string(path.join("up.sql")).unwrap();
    directories.iter().map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), text(path))).collect()
}

fn owned(schema: Schema, service: Service) -> Schema {
    let names = expected(service).table_names();
    schema.into_iter().filter(|(name, _)| names.contains(name)).collect()
}

async fn up(service: Service, database: &TestDatabase) -> MigrateRun {
    run_migrate(service, &database.migrator_url(), &["up", "--output", "json"]).await
}

#[tokio::test]
async fn the_committed_schema_is_what_the_plain_sql_files_make() {
    for service in SERVICES {
        let database = TestDatabase::empty().await;
        for (name, sql) in up_files(service) {
            for statement in migration_engine::split(&sql).unwrap() {
                let client = database.client().await;
                client.simple_query(&statement.sql).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
            }
        }
        let client = database.client().await;
        assert_eq!(
            whole_schema(&client).await,
            expected_tables(service, &client).await,
            "{0}: `{0} migrate snapshot` prints what expected.json must hold",
            service.name()
        );
    }
}

/// The text of a check must survive being printed and made again, or `up` would replace the constraint for ever.
#[tokio::test]
async fn the_committed_definitions_make_themselves() {
    for service in SERVICES {
        let database = TestDatabase::empty().await;
        for (_, sql) in up_files(service) {
            for statement in migration_engine::split(&sql).unwrap() {
                database.client().await.simple_query(&statement.sql).await.unwrap();
            }
        }
        let client = database.client().await;
        for (table, shape) in &expected(service).tables {
            for (name, constraint) in &shape.constraints {
                if constraint.definition.starts_with("CHECK") {
                    let sql = format!(
                        "ALTER TABLE {table} DROP CONSTRAINT {name}; ALTER TABLE {table} ADD CONSTRAINT {name} {}",
                        constraint.definition
                    );
                    client.batch_execute(&sql).await.unwrap();
                }
            }
        }
        assert_eq!(whole_schema(&client).await, expected_tables(service, &client).await);
    }
}

#[tokio::test]
async fn every_migration_runs_twice_in_a_row_on_an_empty_and_on_a_filled_database() {
    for service in SERVICES {
        let database = TestDatabase::empty().await;
        let client = database.client().await;
        for (name, sql) in up_files(service) {
            for round in 1..=2 {
                for statement in migration_engine::split(&sql).unwrap() {
                    client
                        .simple_query(&statement.sql)
                        .await
                        .unwrap_or_else(|error| panic!("{name}, round {round}: {error:?}\n{}", statement.sql));
                }
            }
        }
        assert_eq!(whole_schema(&client).await, expected_tables(service, &client).await);
    }
    let filled = TestDatabase::migrated_both().await;
    let client = filled.client().await;
    fill(&client).await;
    let (schema, rows) = (whole_schema(&client).await, all_rows(&client).await);
    for service in SERVICES {
        for (name, sql) in up_files(service) {
            for statement in migration_engine::split(&sql).unwrap() {
                client.simple_query(&statement.sql).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
            }
        }
    }
    assert_eq!(whole_schema(&client).await, schema);
    assert_eq!(all_rows(&client).await, rows);
}

async fn fill(client: &tokio_postgres::Client) {
    client
        .batch_execute(
            "INSERT INTO users (id, email, username, password_hash, role_id, email_key, username_key)
             SELECT gen_random_uuid(), 'u' || n || '@example.com', 'u' || n, 'x', (SELECT id FROM roles WHERE name = 'member'),
                'u' || n || '@example.com', 'u' || n FROM generate_series(1, 50) n;
             INSERT INTO sessions (id, user_id, expires_at) SELECT gen_random_uuid(), id, now() + '1 day' FROM users;
             INSERT INTO refresh_tokens (id, user_id, token_hash, expires_at, session_id)
             SELECT gen_random_uuid(), user_id, id::text, expires_at, id FROM sessions;
             INSERT INTO tasks (id, user_id, title) SELECT gen_random_uuid(), id, 'title of ' || username FROM users",
        )
        .await
        .unwrap();
}

#[tokio::test]
async fn a_fresh_install_an_adopted_one_and_a_second_run_agree() {
    for service in SERVICES {
        let database = TestDatabase::empty().await;
        let first = up(service, &database).await;
        assert_eq!(first.code, 0, "{first:#?}");
        let report = first.json();
        assert_eq!(report["state"], "match");
        assert_eq!(report["pending"], serde_json::json!([]));
        assert_eq!(report["drift"], serde_json::json!([]));
        assert!(report["actions"].as_array().unwrap().iter().any(|action| action["outcome"] == "applied"));
        let client = database.client().await;
        assert_eq!(owned(whole_schema(&client).await, service), expected_tables(service, &client).await);

        let second = up(service, &database).await;
        assert_eq!(second.code, 0, "{second:#?}");
        assert_eq!(second.json()["actions"], serde_json::json!([]), "nothing is left to do");
        assert_eq!(second.json()["data_changes"], serde_json::json!([]));
    }
}

#[tokio::test]
async fn both_services_share_one_database_in_either_order_and_at_once() {
    for order in [[Service::Auth, Service::Task], [Service::Task, Service::Auth]] {
        let database = TestDatabase::empty().await;
        for service in order.into_iter().chain(order) {
            let run = up(service, &database).await;
            assert_eq!(run.code, 0, "{run:#?}");
        }
        for service in SERVICES {
            let verify = run_migrate(service, &database.runtime_url(), &["verify", "--output", "json"]).await;
            assert_eq!(verify.code, 0, "{verify:#?}");
            assert_eq!(verify.json()["unknown"], serde_json::json!([]), "the other service's versions are known");
        }
    }
    let database = TestDatabase::empty().await;
    let runs = futures_util::future::join_all(
        [Service::Auth, Service::Task, Service::Auth, Service::Task].map(|service| up(service, &database)),
    )
    .await;
    assert!(runs.iter().all(|run| run.code == 0), "{runs:#?}");
    for service in SERVICES {
        let client = database.client().await;
        assert_eq!(owned(whole_schema(&client).await, service), expected_tables(service, &client).await);
    }
}

#[tokio::test]
async fn an_up_to_date_database_is_not_written_to() {
    let database = TestDatabase::migrated_both().await;
    let client = database.client().await;
    let written =
        "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint FROM pg_stat_all_tables WHERE schemaname = 'public'";
    let before: i64 = client.query_one(written, &[]).await.unwrap().get(0);
    for service in SERVICES {
        // A session that may not write must do: there is nothing to write.
        let url = database.migrator_url();
        let joint = if url.contains('?') { '&' } else { '?' };
        let url = format!("{url}{joint}options=-c%20default_transaction_read_only%3Don");
        let run = run_migrate(service, &url, &["up", "--output", "json"]).await;
        assert_eq!(run.code, 0, "{run:#?}");
    }
    let after: i64 = client.query_one(written, &[]).await.unwrap().get(0);
    assert_eq!(before, after);
}

#[tokio::test]
async fn diesels_own_runner_makes_the_same_schema_and_history() {
    for service in SERVICES {
        let database = TestDatabase::empty().await;
        let url = database.migrator_url();
        let migrations = embedded(service);
        // Diesel's harness is synchronous: on a thread of its own it brings its own runtime.
        let runner = std::thread::spawn(move || {
            use diesel::Connection as _;
            use diesel_migrations::MigrationHarness as _;
            type Wrapped =
                diesel_async::async_connection_wrapper::AsyncConnectionWrapper<diesel_async::AsyncPgConnection>;
            let mut connection = Wrapped::establish(&url).unwrap();
            connection.run_pending_migrations(migrations).unwrap();
        });
        tokio::task::spawn_blocking(move || runner.join().unwrap()).await.unwrap();
        let client = database.client().await;
        let expected = expected_tables(service, &client).await;
        assert_eq!(owned(whole_schema(&client).await, service), expected, "{}", service.name());
        // What Diesel recorded is what `migrate status` calls applied, and the other way round.
        let verify = run_migrate(service, &database.migrator_url(), &["verify", "--output", "json"]).await;
        assert_eq!(verify.code, 0, "{verify:#?}");
        let rows = client.query("SELECT version FROM __diesel_schema_migrations ORDER BY 1", &[]).await.unwrap();
        let recorded: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(verify.json()["applied"], serde_json::json!(recorded));
    }
}

#[tokio::test]
async fn status_tells_versions_and_the_last_run_and_always_exits_0() {
    let database = TestDatabase::empty().await;
    let before = run_migrate(Service::Task, &database.runtime_url(), &["status", "--output", "json"]).await;
    assert_eq!(before.code, 0, "{before:#?}");
    assert_eq!(before.json()["applied"], serde_json::json!([]));
    assert_eq!(before.json()["last_run"], serde_json::Value::Null);
    assert_eq!(up(Service::Task, &database).await.code, 0);
    let after = run_migrate(Service::Task, &database.migrator_url(), &["status", "--output", "json"]).await;
    assert_eq!(after.json()["pending"], serde_json::json!([]));
    assert_eq!(after.json()["last_run"]["outcome"], "done");
    let text = run_migrate(Service::Task, &database.migrator_url(), &["status"]).await;
    assert!(text.stdout.contains("create_tasks") && text.stdout.contains("applied"), "{text:#?}");
}

/// Every primary key and unique constraint of the task tables contains the owner, and nothing needs a trigger or a
/// foreign key, so that the rows can be distributed.
#[test]
fn the_task_schema_can_be_distributed_by_owner() {
    for (name, table) in expected(Service::Task).tables {
        let keys: BTreeMap<_, _> = table
            .constraints
            .iter()
            .filter(|(_, constraint)| {
                use migration_engine::ConstraintKind::{PrimaryKey, Unique};
                matches!(constraint.kind, PrimaryKey | Unique)
            })
            .collect();
        assert!(!keys.is_empty(), "{name} has no key");
        for (key, constraint) in keys {
            assert!(constraint.columns.contains(&"user_id".to_owned()), "{name}.{key} must contain user_id");
        }
        for (index, shape) in &table.indexes {
            assert!(
                !shape.unique || shape.columns.contains(&"user_id".to_owned()),
                "{name}.{index} must contain user_id"
            );
        }
        assert!(!table.columns["user_id"].nullable, "{name}.user_id must not be null");
        assert!(table.triggers.is_empty(), "{name} has a trigger");
        assert!(
            table.constraints.values().all(|constraint| constraint.references.is_none()),
            "{name} has a foreign key"
        );
    }
}
