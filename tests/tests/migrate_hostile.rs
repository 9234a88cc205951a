//! Databases made to trip a run: every one converges with its rows, or is refused before anything is changed.
#![expect(clippy::unwrap_used, reason = "a suite ends the test with a panic")]

use tests::legacy::{all_rows, assert_rows_kept, fixture, whole_schema};
use tests::{MigrateRun, Service, TestDatabase, run_migrate};

const SERVICES: [Service; 2] = [Service::Auth, Service::Task];

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

async fn up(service: Service, database: &TestDatabase) -> MigrateRun {
    run_migrate(service, &database.migrator_url(), &["up", "--output", "json"]).await
}

async fn legacy(sql: &str) -> TestDatabase {
    TestDatabase::from_sql(&format!("{}\n{sql}", fixture("legacy/incident"))).await
}

/// Done to the legacy database by hand; `up` of both services copes.
const CONVERGES: &[&str] = &[
    // Tables that refer to each other become logged in the order of their keys.
    "ALTER TABLE tasks SET UNLOGGED; ALTER TABLE refresh_tokens SET UNLOGGED;
     ALTER TABLE password_reset_tokens SET UNLOGGED; ALTER TABLE users SET UNLOGGED",
    // An old rule that forbids what the migrations write.
    "UPDATE tasks SET status = 'pending' WHERE status = 'todo'; ALTER TABLE tasks ALTER status SET DEFAULT 'pending';
     ALTER TABLE tasks ADD CONSTRAINT tasks_status_check CHECK (status IN ('pending', 'in_progress', 'completed', 'cancelled'))",
    "CREATE TABLE user_roles (id uuid PRIMARY KEY); ALTER TABLE users ADD role_id uuid;
     ALTER TABLE users ADD CONSTRAINT fk_users_role_id FOREIGN KEY (role_id) REFERENCES user_roles (id)",
    // A column that may be null is in the primary key, and one that nobody fills.
    "UPDATE tasks SET due_date = now() WHERE due_date IS NULL; ALTER TABLE tasks DROP CONSTRAINT tasks_pkey;
     ALTER TABLE tasks ADD CONSTRAINT tasks_pkey PRIMARY KEY (id, due_date)",
    "ALTER TABLE tasks ADD n int NOT NULL DEFAULT 1; ALTER TABLE tasks ALTER n DROP DEFAULT;
     ALTER TABLE tasks DROP CONSTRAINT tasks_pkey; ALTER TABLE tasks ADD CONSTRAINT tasks_pkey PRIMARY KEY (id, n)",
    // Roles made by hand, without keys and with keys that ON CONFLICT does not take.
    "CREATE TABLE roles (id uuid, name text, description text);
     INSERT INTO roles VALUES (gen_random_uuid(), 'admin', 'x'), (gen_random_uuid(), 'boss', 'y')",
    "CREATE TABLE roles (id uuid PRIMARY KEY DEFERRABLE, name varchar(50) UNIQUE DEFERRABLE);
     INSERT INTO roles VALUES (gen_random_uuid(), 'admin')",
    // A history that demands more than Diesel writes, and one with other types and rows twice.
    "CREATE TABLE __diesel_schema_migrations (version varchar(50) PRIMARY KEY, run_on timestamp NOT NULL DEFAULT now(), sum text NOT NULL)",
    "CREATE TABLE __diesel_schema_migrations (version text, run_on timestamptz);
     INSERT INTO __diesel_schema_migrations VALUES ('20261123080000', now()), ('20261123080000', now())",
];

#[tokio::test]
async fn hostile_databases_converge_with_every_row() {
    for sql in CONVERGES {
        let database = legacy(sql).await;
        let before = all_rows(&database.client().await).await;
        for service in SERVICES {
            let run = up(service, &database).await;
            assert_eq!(run.code, 0, "{sql}: {run:#?}");
            let verify = run_migrate(service, &database.migrator_url(), &["verify", "--output", "json"]).await;
            assert_eq!(verify.code, 0, "{sql}: {verify:#?}");
        }
        assert_rows_kept(&before, &all_rows(&database.client().await).await, CHANGED);
    }
}

/// Done to the legacy database by hand; what is refused, and what the reason must name.
const REFUSED: &[(&str, Service, &str)] = &[
    // Names that are taken.
    ("CREATE TABLE x (a int); CREATE INDEX idx_tasks_id ON x (a)", Service::Task, "index idx_tasks_id"),
    ("CREATE INDEX idx_tasks_id ON users (email)", Service::Task, "index idx_tasks_id"),
    ("CREATE VIEW users_email_key_key AS SELECT 1 AS a", Service::Auth, "view users_email_key_key"),
    ("CREATE TABLE x (a int); CREATE INDEX sessions_pkey ON x (a)", Service::Auth, "index sessions_pkey"),
    ("CREATE TABLE x (a int); CREATE INDEX sessions ON x (a)", Service::Auth, "index sessions"),
    ("CREATE TYPE sessions AS ENUM ('a')", Service::Auth, "taken by a type"),
    ("CREATE TABLE x (a int); CREATE INDEX tasks_pkey__new ON x (a)", Service::Task, "tasks_pkey__new"),
    // What hangs on an object that must change.
    ("CREATE VIEW v AS SELECT id, title FROM tasks GROUP BY id", Service::Task, "view public.v"),
    (
        "ALTER TABLE tasks ALTER title TYPE varchar(300);
         CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'begin return new; end';
         CREATE TRIGGER tr BEFORE UPDATE OF title ON tasks FOR EACH ROW EXECUTE FUNCTION f()",
        Service::Task,
        "trigger tr on public.tasks",
    ),
    (
        "ALTER TABLE tasks ALTER title TYPE varchar(300); CREATE POLICY p ON tasks USING (title <> 'x')",
        Service::Task,
        "policy p on public.tasks",
    ),
    (
        "ALTER TABLE tasks ALTER title TYPE varchar(300); ALTER TABLE tasks ADD g text GENERATED ALWAYS AS (upper(title)) STORED",
        Service::Task,
        "public.tasks.g",
    ),
    (
        "CREATE TYPE st AS ENUM ('todo', 'in_progress', 'completed', 'pending'); ALTER TABLE tasks ALTER status DROP DEFAULT;
         ALTER TABLE tasks ALTER status TYPE st USING status::st; CREATE INDEX pi ON tasks (created_at) WHERE status = 'todo'::st",
        Service::Task,
        "index public.pi",
    ),
    (
        "ALTER TABLE tasks DROP CONSTRAINT tasks_pkey; CREATE UNIQUE INDEX tid ON tasks (id);
         CREATE TABLE comments (task_id uuid REFERENCES tasks (id))",
        Service::Task,
        "comments.comments_task_id_fkey",
    ),
    // Tables of others that a change would reach.
    ("CREATE TABLE tasks_archive () INHERITS (tasks)", Service::Task, "tasks_archive inherits"),
    (
        "CREATE TABLE all_tasks (LIKE tasks) PARTITION BY LIST (status); ALTER TABLE all_tasks ATTACH PARTITION tasks DEFAULT",
        Service::Task,
        "inherits from all_tasks",
    ),
    ("CREATE RULE r AS ON UPDATE TO tasks DO INSTEAD NOTHING", Service::Task, "rule r on tasks"),
    ("CREATE TABLE roles (id uuid PRIMARY KEY); CREATE RULE r AS ON UPDATE TO roles DO ALSO NOTHING", Service::Auth, "rule r on roles"),
    // The ledger's names.
    ("CREATE TABLE __migration_runs (id int)", Service::Auth, "__migration_runs is not the table"),
    ("CREATE VIEW __migration_versions AS SELECT 1 AS a", Service::Task, "__migration_versions is not the table"),
    // Rows that become equal when the migrations fill what is null.
    (
        "ALTER TABLE tasks DROP CONSTRAINT tasks_pkey; INSERT INTO tasks (id, title) SELECT id, 'again' FROM tasks WHERE user_id IS NULL",
        Service::Task,
        "rows repeat or are null in (user_id, id)",
    ),
];

#[tokio::test]
async fn hostile_databases_are_refused_before_anything_is_changed() {
    for (sql, service, reason) in REFUSED {
        assert_refused(&legacy(sql).await, *service, reason, sql).await;
    }
}

async fn assert_refused(database: &TestDatabase, service: Service, reason: &str, about: &str) {
    let client = database.client().await;
    let (schema, rows) = (whole_schema(&client).await, all_rows(&client).await);
    let run = up(service, database).await;
    assert_eq!(run.code, 3, "{about}: {run:#?}");
    let report = run.json();
    let blockers = report["blockers"].as_array().unwrap();
    let named = blockers.iter().any(|blocker| {
        blocker["reason"].as_str().unwrap().contains(reason) && !blocker["resolve"].as_str().unwrap().is_empty()
    });
    assert!(named, "{about}: {reason:?} is not among {blockers:#?}");
    assert_eq!(whole_schema(&client).await, schema, "{about}: the schema was changed");
    assert_eq!(all_rows(&client).await, rows, "{about}: rows were changed");
    let status = run_migrate(service, &database.migrator_url(), &["status", "--output", "json"]).await;
    assert_eq!(status.code, 0, "{about}: {status:#?}");
}

/// The SQL of a report is written to be run: after it, the same command succeeds.
#[tokio::test]
async fn following_the_advice_about_dependents_lets_the_run_succeed() {
    let sql = "CREATE VIEW v AS SELECT id, title FROM tasks GROUP BY id; CREATE TABLE x (a int); CREATE INDEX idx_tasks_id ON x (a);
        CREATE TYPE task_requests AS ENUM ('a'); CREATE TABLE tasks_archive () INHERITS (tasks)";
    let database = legacy(sql).await;
    let refused = up(Service::Task, &database).await;
    assert_eq!(refused.code, 3, "{refused:#?}");
    for blocker in refused.json()["blockers"].as_array().unwrap() {
        database.execute(blocker["resolve"].as_str().unwrap()).await;
    }
    let run = up(Service::Task, &database).await;
    assert_eq!(run.code, 0, "{run:#?}");
}

#[tokio::test]
async fn missing_rights_are_refused_with_the_grant() {
    let database = legacy("").await;
    database.client().await.batch_execute("ALTER TABLE tasks OWNER TO CURRENT_USER").await.unwrap();
    assert_refused(&database, Service::Task, "tasks belongs to role", "owner").await;

    let database = legacy("").await;
    let sql = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO CURRENT_USER', current_database());
            EXECUTE format('GRANT CONNECT ON DATABASE %I TO tests_migrator', current_database()); END $$;
        REVOKE CREATE ON SCHEMA public FROM PUBLIC, tests_migrator; ALTER SCHEMA public OWNER TO CURRENT_USER;
        GRANT USAGE ON SCHEMA public TO tests_migrator";
    database.client().await.batch_execute(sql).await.unwrap();
    assert_refused(&database, Service::Task, "may not make tables in schema public", "create").await;
}

/// Settings of a role or database change neither the comparison nor the run.
#[tokio::test]
async fn settings_of_the_database_do_not_reach_into_a_run() {
    for setting in [
        "quote_all_identifiers = on",
        "standard_conforming_strings = off",
        "default_transaction_isolation = 'serializable'",
        "idle_session_timeout = '50ms'",
        "statement_timeout = '1ms'",
        "search_path = 'nowhere'",
    ] {
        let database = legacy("").await;
        let sql = format!(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET {}', current_database()); END $$",
            setting.replace('\'', "''")
        );
        database.execute(&sql).await;
        for service in SERVICES {
            let run = up(service, &database).await;
            assert_eq!(run.code, 0, "{setting}: {run:#?}");
            assert_eq!(run.json()["drift"], serde_json::json!([]), "{setting}");
        }
    }
    let database = legacy("").await;
    database
        .execute("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END $$")
        .await;
    assert_refused(&database, Service::Auth, "the session is read-only", "read-only").await;
}

/// A broken constraint's detail shows the row, with the address and the hash.
#[tokio::test]
async fn an_error_shows_no_row() {
    let sql = "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'begin new.username := null; return new; end';
        CREATE TRIGGER tr BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION f()";
    let run = up(Service::Auth, &legacy(sql).await).await;
    assert_eq!(run.code, 1, "{run:#?}");
    assert!(!run.stdout.contains("@example.com") && !run.stdout.contains("$argon2"), "{run:#?}");
    assert!(run.json()["error"].as_str().unwrap().contains("username"), "{run:#?}");
}

/// Somebody has locked a whole table and gone to lunch.
#[tokio::test]
async fn verify_does_not_wait_for_ever() {
    let database = TestDatabase::migrated_auth().await;
    let client = database.client().await;
    client.batch_execute("BEGIN; LOCK TABLE roles").await.unwrap();
    let run = run_migrate(Service::Auth, &database.migrator_url(), &["verify", "--output", "json"]).await;
    assert_eq!(run.code, 1, "{run:#?}");
    assert!(run.json()["error"].as_str().unwrap().contains("another session holds a lock"), "{run:#?}");
}
