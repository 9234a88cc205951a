//! Drift of every kind on a filled database: `verify` sees it, `up` repairs it, and every row is still there. Combinations that
//! nobody has thought of are in `migrate_property`.

use tests::legacy::{all_rows, assert_rows_kept, whole_schema};
use tests::{MigrateRun, Service, TestDatabase, run_migrate};

/// Something that happens to a database by hand.
struct Hand {
    service: Service,
    sql: &'static str,
    /// Columns whose values it takes away, so that they cannot be compared afterwards.
    lost: &'static [&'static str],
}

const fn auth(sql: &'static str) -> Hand {
    Hand { service: Service::Auth, sql, lost: &[] }
}

const fn task(sql: &'static str) -> Hand {
    Hand { service: Service::Task, sql, lost: &[] }
}

const fn losing(service: Service, sql: &'static str, lost: &'static [&'static str]) -> Hand {
    Hand { service, sql, lost }
}

const HANDS: &[Hand] = &[
    // Tables
    task("DROP TABLE task_requests"),
    auth("DROP TABLE signing_keys"),
    auth("DROP TABLE role_permissions"),
    auth("DROP TABLE password_reset_tokens"),
    task("ALTER TABLE tasks SET UNLOGGED"),
    // Columns
    losing(Service::Task, "ALTER TABLE tasks DROP COLUMN version", &["tasks.version"]),
    losing(Service::Task, "ALTER TABLE tasks DROP COLUMN IF EXISTS due_date", &["tasks.due_date"]),
    losing(Service::Task, "ALTER TABLE tasks DROP COLUMN limits_waived CASCADE", &["tasks.limits_waived"]),
    losing(Service::Auth, "ALTER TABLE users DROP COLUMN email_key", &["users.email_key"]),
    losing(Service::Auth, "ALTER TABLE users DROP COLUMN role_id", &["users.role_id"]),
    losing(Service::Auth, "ALTER TABLE refresh_tokens DROP COLUMN session_id", &["refresh_tokens.session_id"]),
    auth("ALTER TABLE users ALTER COLUMN email TYPE text"),
    auth("ALTER TABLE users ALTER COLUMN username TYPE varchar(40)"),
    auth("ALTER TABLE roles ALTER COLUMN name TYPE varchar(200)"),
    task("ALTER TABLE tasks ALTER COLUMN title TYPE varchar(500)"),
    task("ALTER TABLE tasks ALTER COLUMN version TYPE integer"),
    task("ALTER TABLE tasks ALTER COLUMN status DROP DEFAULT"),
    task("ALTER TABLE tasks ALTER COLUMN created_at SET DEFAULT now() + '1 day'"),
    task("ALTER TABLE tasks ALTER COLUMN title DROP NOT NULL"),
    auth("ALTER TABLE users ALTER COLUMN role_id DROP NOT NULL; UPDATE users SET role_id = NULL WHERE username = 'u1'"),
    auth("ALTER TABLE users ALTER COLUMN is_active DROP NOT NULL"),
    auth(
        "ALTER TABLE users ADD COLUMN shoe_size int NOT NULL DEFAULT 1; ALTER TABLE users ALTER COLUMN shoe_size DROP DEFAULT",
    ),
    // Names that constraints and indexes share
    auth(
        "ALTER TABLE users DROP CONSTRAINT users_email_key; CREATE INDEX users_email_key ON users (email);
         CREATE UNIQUE INDEX users_email_key__new ON users (email)",
    ),
    auth(
        "ALTER TABLE users RENAME CONSTRAINT users_username_key TO \"between\"; ALTER TABLE users RENAME CONSTRAINT users_email_key TO users_username_key;
         ALTER TABLE users RENAME CONSTRAINT \"between\" TO users_email_key; ALTER TABLE users DROP CONSTRAINT users_username_key;
         CREATE UNIQUE INDEX users_username_key ON users (email)",
    ),
    auth(
        "ALTER TABLE users DROP CONSTRAINT users_email_key; ALTER TABLE users DROP CONSTRAINT users_username_key;
         CREATE UNIQUE INDEX users_email_key ON users (username); CREATE UNIQUE INDEX users_username_key ON users (email)",
    ),
    auth("DROP INDEX idx_users_created_at; ALTER TABLE users ADD CONSTRAINT idx_users_created_at UNIQUE (created_at, id)"),
    auth(
        "ALTER INDEX idx_users_created_at RENAME TO by_time; ALTER TABLE users ADD CONSTRAINT idx_users_created_at UNIQUE (created_at, id)",
    ),
    auth("DROP INDEX idx_users_created_at; ALTER TABLE users ADD CONSTRAINT idx_users_created_at UNIQUE (id, is_active) DEFERRABLE"),
    // Constraints
    task("ALTER TABLE tasks DROP CONSTRAINT tasks_pkey"),
    task("ALTER TABLE tasks DROP CONSTRAINT tasks_pkey; ALTER TABLE tasks ADD CONSTRAINT tasks_pkey PRIMARY KEY (id)"),
    task("ALTER TABLE tasks RENAME CONSTRAINT tasks_pkey TO pk"),
    task("ALTER TABLE tasks DROP CONSTRAINT tasks_status_check"),
    task(
        "ALTER TABLE tasks DROP CONSTRAINT tasks_status_check; ALTER TABLE tasks ADD CONSTRAINT tasks_status_check CHECK (status <> '') NOT VALID",
    ),
    task("ALTER TABLE tasks ADD CONSTRAINT no_monday CHECK (extract(dow FROM created_at) < 8)"),
    task(
        "ALTER TABLE tasks ADD CONSTRAINT fk_tasks_user_id FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE",
    ),
    auth("ALTER TABLE users DROP CONSTRAINT users_email_key"),
    auth("ALTER TABLE users DROP CONSTRAINT users_email_key; CREATE UNIQUE INDEX users_email_key ON users (email)"),
    auth("ALTER TABLE users DROP CONSTRAINT users_username_key; CREATE INDEX users_username_key ON users (username)"),
    auth("ALTER TABLE users DROP CONSTRAINT fk_users_role_id"),
    auth(
        "ALTER TABLE users DROP CONSTRAINT fk_users_role_id; ALTER TABLE users ADD CONSTRAINT fk_users_role_id FOREIGN KEY (role_id) REFERENCES roles (id) ON DELETE SET NULL",
    ),
    auth(
        "ALTER TABLE sessions DROP CONSTRAINT fk_sessions_user_id; ALTER TABLE sessions ADD CONSTRAINT fk_sessions_user_id FOREIGN KEY (user_id) REFERENCES users (id) ON UPDATE CASCADE ON DELETE CASCADE NOT VALID",
    ),
    auth("ALTER TABLE sessions RENAME CONSTRAINT fk_sessions_user_id TO sessions_user_id_fkey"),
    // Indexes
    task("DROP INDEX idx_tasks_live_user_due_date"),
    task("DROP INDEX idx_tasks_live_status; CREATE INDEX idx_tasks_live_status ON tasks (status)"),
    // As a key of indexes that have a condition on something else a type converts with its column.
    task(
        "CREATE TYPE task_status AS ENUM ('todo', 'in_progress', 'completed', 'cancelled');
         ALTER TABLE tasks DROP CONSTRAINT tasks_status_check; ALTER TABLE tasks ALTER COLUMN status DROP DEFAULT;
         ALTER TABLE tasks ALTER COLUMN status TYPE task_status USING status::text::task_status",
    ),
    task("ALTER INDEX idx_tasks_id RENAME TO tasks_by_id"),
    task("CREATE UNIQUE INDEX one_title ON tasks (title)"),
    auth("DROP INDEX users_email_key_key; CREATE INDEX users_email_key_key ON users (email_key)"),
    auth("DROP INDEX idx_sessions_user_id"),
    // Seeds
    auth("UPDATE roles SET is_system = false, is_active = false WHERE name = 'member'"),
    // History
    auth("DELETE FROM __diesel_schema_migrations WHERE version LIKE '202611230803%'"),
    task("DELETE FROM __diesel_schema_migrations"),
    auth("DROP TABLE __diesel_schema_migrations"),
    auth(
        "ALTER TABLE __diesel_schema_migrations DROP CONSTRAINT __diesel_schema_migrations_pkey; INSERT INTO __diesel_schema_migrations SELECT * FROM __diesel_schema_migrations",
    ),
    auth("DROP TABLE __migration_versions, __migration_runs"),
];

async fn filled() -> TestDatabase {
    let database = TestDatabase::migrated_both().await;
    database
        .execute(
            "INSERT INTO users (id, email, username, password_hash, role_id, email_key, username_key)
             SELECT gen_random_uuid(), 'u' || n || '@example.com', 'u' || n, 'x', (SELECT id FROM roles WHERE name = 'member'),
                'u' || n || '@example.com', 'u' || n FROM generate_series(1, 20) n;
             INSERT INTO sessions (id, user_id, expires_at) SELECT gen_random_uuid(), id, now() + '1 day' FROM users;
             INSERT INTO refresh_tokens (id, user_id, token_hash, expires_at, session_id)
             SELECT gen_random_uuid(), user_id, id::text, expires_at, id FROM sessions;
             INSERT INTO tasks (id, user_id, title) SELECT gen_random_uuid(), id, 'title of ' || username FROM users",
        )
        .await;
    database
}

async fn run(service: Service, database: &TestDatabase, command: &str) -> MigrateRun {
    run_migrate(service, &database.migrator_url(), &[command, "--output", "json"]).await
}

/// Converges both services, and panics unless the schema is the one of `fresh` and the rows are those before.
async fn assert_converges(database: &TestDatabase, fresh: &migration_engine::Schema, lost: &[&str], about: &str) {
    let before = all_rows(&database.client().await).await;
    for service in [Service::Auth, Service::Task] {
        let run = run(service, database, "up").await;
        assert_eq!(run.code, 0, "{about}: {run:#?}");
    }
    let client = database.client().await;
    let mut live = whole_schema(&client).await;
    for table in live.values_mut() {
        // Extra things that disturb nobody stay.
        table.columns.remove("shoe_size");
    }
    let comparable = |schema: &migration_engine::Schema| {
        let mut schema = schema.clone();
        schema.retain(|name, _| !name.starts_with("__migration"));
        schema
    };
    assert_eq!(comparable(&live), comparable(fresh), "{about}");
    let changed: Vec<&str> =
        lost.iter().copied().chain(["roles.is_system", "roles.is_active", "users.role_id", "sessions.id"]).collect();
    assert_rows_kept(&before, &all_rows(&client).await, &changed);
}

/// Columns of somebody else's that would keep every INSERT out, each named like a key word of the server: they stay, and take NULL.
#[tokio::test]
async fn columns_named_like_key_words_are_quoted() {
    let database = filled().await;
    let added = "DO $$ DECLARE w text; BEGIN
        FOR w IN SELECT word FROM pg_get_keywords() WHERE catcode <> 'U' LOOP
            EXECUTE format('ALTER TABLE users ADD COLUMN %I int NOT NULL DEFAULT 1', w);
            EXECUTE format('ALTER TABLE users ALTER COLUMN %I DROP DEFAULT', w);
        END LOOP; END $$";
    database.execute(added).await;
    let run = run(Service::Auth, &database, "up").await;
    assert_eq!(run.code, 0, "{run:#?}");
    let left = "SELECT count(*), count(*) FILTER (WHERE attnotnull) FROM pg_attribute JOIN pg_get_keywords() ON word = attname::text
        WHERE attrelid = 'users'::regclass AND catcode <> 'U'";
    let left = database.client().await.query_one(left, &[]).await.unwrap();
    let (there, not_null): (i64, i64) = (left.get(0), left.get(1));
    assert!(there > 100 && not_null == 0, "{not_null} of {there} still refuse NULL");
}

#[tokio::test]
async fn every_drift_is_seen_and_repaired_with_every_row() {
    let template = filled().await;
    let fresh = whole_schema(&template.client().await).await;
    for hand in HANDS {
        let database = template.copy().await;
        database.execute(hand.sql).await;
        let verify = run(hand.service, &database, "verify").await;
        // The ledger is the engine's own memory, not part of the schema.
        let seen = matches!(verify.code, 3 | 4) || hand.sql.contains("__migration_versions");
        assert!(seen, "{}: verify does not see it: {verify:#?}", hand.sql);
        assert_converges(&database, &fresh, hand.lost, hand.sql).await;
    }
}
