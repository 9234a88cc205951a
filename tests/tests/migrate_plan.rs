//! `migrate plan`: foretells what `up` does, writes nothing, and its locks, scans and rewrites are those of PostgreSQL.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tests::legacy::{all_rows, fixture, whole_schema};
use tests::{Postgres, Service, TestDatabase, run_migrate};
use tokio_postgres::Client;

/// Hand-made states of a complete database: every kind of statement that a repair is made of.
const DRIFTS: &[(Service, &str)] = &[
    (Service::Task, "DROP TABLE task_requests"),
    (Service::Task, "ALTER TABLE tasks SET UNLOGGED"),
    (Service::Task, "ALTER TABLE tasks DROP COLUMN version"),
    (
        Service::Auth,
        "DELETE FROM tasks; DELETE FROM users; ALTER TABLE roles DROP CONSTRAINT roles_pkey CASCADE; ALTER TABLE roles DROP COLUMN id",
    ),
    (Service::Auth, "ALTER TABLE users ALTER COLUMN email TYPE text"),
    (Service::Auth, "ALTER TABLE users ALTER COLUMN username TYPE varchar(40)"),
    (Service::Auth, "ALTER TABLE roles ALTER COLUMN name TYPE varchar(200)"),
    (Service::Task, "ALTER TABLE tasks ALTER COLUMN version TYPE integer"),
    (Service::Task, "ALTER TABLE tasks ALTER COLUMN created_at SET DEFAULT '2000-01-01'"),
    (Service::Task, "ALTER TABLE tasks ALTER COLUMN title DROP NOT NULL"),
    (Service::Task, "ALTER TABLE tasks ALTER COLUMN due_date SET DEFAULT now()"),
    (Service::Task, "ALTER TABLE tasks DROP CONSTRAINT tasks_pkey"),
    (
        Service::Task,
        "ALTER TABLE tasks DROP CONSTRAINT tasks_pkey; CREATE UNIQUE INDEX tasks_pk ON tasks (user_id, id)",
    ),
    (Service::Task, "ALTER TABLE tasks RENAME CONSTRAINT tasks_pkey TO pk"),
    (Service::Task, "ALTER TABLE tasks DROP CONSTRAINT tasks_status_check"),
    (
        Service::Task,
        "ALTER TABLE tasks DROP CONSTRAINT tasks_status_check; ALTER TABLE tasks ADD CONSTRAINT tasks_status_check CHECK (status <> '')",
    ),
    (Service::Task, "ALTER TABLE tasks ADD CONSTRAINT short CHECK (title <> '')"),
    (Service::Auth, "ALTER TABLE users DROP CONSTRAINT fk_users_role_id"),
    (
        Service::Auth,
        "ALTER TABLE users DROP CONSTRAINT fk_users_role_id; ALTER TABLE users ADD CONSTRAINT fk_users_role_id FOREIGN KEY (role_id) REFERENCES roles (id) ON DELETE SET NULL",
    ),
    (
        Service::Auth,
        "ALTER TABLE users DROP CONSTRAINT fk_users_role_id; ALTER TABLE users ADD CONSTRAINT fk_users_role_id FOREIGN KEY (role_id) REFERENCES roles (id) ON UPDATE CASCADE ON DELETE RESTRICT NOT VALID",
    ),
    (Service::Task, "DROP INDEX idx_tasks_live_status"),
    (Service::Task, "DROP INDEX idx_tasks_id; CREATE INDEX idx_tasks_id ON tasks (title)"),
    (Service::Task, "ALTER INDEX idx_tasks_id RENAME TO another"),
    (Service::Task, "CREATE UNIQUE INDEX one_title ON tasks (title)"),
    (Service::Auth, "DELETE FROM roles WHERE name = 'admin'"),
    (Service::Auth, "DROP TABLE __diesel_schema_migrations"),
];

async fn plan(service: Service, url: &str) -> Value {
    let run = run_migrate(service, url, &["plan", "--output", "json"]).await;
    assert_eq!(run.code, 0, "{run:#?}");
    run.json()
}

fn statements(plan: &Value) -> Vec<&Value> {
    plan["statements"].as_array().unwrap().iter().filter(|statement| statement["outcome"] != "already_there").collect()
}

async fn drifted(sql: &str) -> TestDatabase {
    let database = TestDatabase::migrated_both().await;
    database
        .execute(
            "INSERT INTO users (id, email, username, password_hash, role_id)
             SELECT gen_random_uuid(), 'u' || n || '@example.com', 'u' || n, 'x', (SELECT id FROM roles WHERE name = 'member') FROM generate_series(1, 20) n;
             INSERT INTO tasks (id, user_id, title) SELECT gen_random_uuid(), id, 'title of ' || username FROM users",
        )
        .await;
    database.execute(sql).await;
    database
}

#[tokio::test]
async fn a_plan_writes_nothing_and_needs_only_to_read() {
    for name in ["incident", "complete", "half_by_hand", "hand_repaired"] {
        let database = TestDatabase::from_sql(&fixture(&format!("legacy/{name}"))).await;
        database.grant().await;
        let client = database.client().await;
        let (schema, rows) = (whole_schema(&client).await, all_rows(&client).await);
        for service in [Service::Auth, Service::Task] {
            // The runtime role may make nothing.
            let plan = plan(service, &database.runtime_url()).await;
            assert!(plan["state"] == "pending" || plan["state"] == "drift", "{name}: {}", plan["state"]);
            assert!(!statements(&plan).is_empty(), "{name}");
            assert_eq!(plan["blockers"], serde_json::json!([]), "{name}");
        }
        assert_eq!((whole_schema(&client).await, all_rows(&client).await), (schema, rows), "{name}");
    }
    let done = TestDatabase::migrated_both().await;
    let plan_of_done = plan(Service::Auth, &done.runtime_url()).await;
    assert_eq!((&plan_of_done["state"], statements(&plan_of_done).len()), (&Value::from("match"), 0));
    let text = run_migrate(Service::Task, &done.migrator_url(), &["plan"]).await;
    assert!(text.stdout.contains("`migrate up` would do nothing"), "{text:#?}");
    done.execute("INSERT INTO __diesel_schema_migrations (version) VALUES ('20990101000000')").await;
    assert_eq!(plan(Service::Auth, &done.runtime_url()).await["state"], "ahead");
    let refused = TestDatabase::from_sql(&fixture("refused/rows_in_the_way")).await;
    let blockers = plan(Service::Task, &refused.migrator_url()).await["blockers"].clone();
    let auth = plan(Service::Auth, &refused.migrator_url()).await["blockers"].clone();
    assert!(!blockers.as_array().unwrap().is_empty() || !auth.as_array().unwrap().is_empty());
}

/// What `up` then does was in the plan, and what the plan was sure of happens.
#[tokio::test]
async fn what_up_does_stands_in_the_plan() {
    let mut cases = vec![(Service::Auth, TestDatabase::empty().await), (Service::Task, TestDatabase::empty().await)];
    for name in ["incident", "complete", "half_by_hand", "hand_repaired"] {
        for service in [Service::Auth, Service::Task] {
            cases.push((service, TestDatabase::from_sql(&fixture(&format!("legacy/{name}"))).await));
        }
    }
    for (service, sql) in DRIFTS {
        cases.push((*service, drifted(sql).await));
    }
    for (at, (service, database)) in cases.iter().enumerate() {
        let plan = plan(*service, &database.migrator_url()).await;
        let run = run_migrate(*service, &database.migrator_url(), &["up", "--output", "json"]).await;
        assert_eq!(run.code, 0, "case {at}: {run:#?}");
        let report = run.json();
        let planned = statements(&plan);
        let begins = |action: &str, statement: &Value| {
            let line = statement["statement"].as_str().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
            let shown = action.trim_end_matches("...").trim_end_matches(';');
            line.starts_with(shown) || shown.starts_with(line.trim_end_matches(';'))
        };
        for action in report["actions"].as_array().unwrap() {
            let text = action["statement"].as_str().unwrap();
            let foretold =
                planned.iter().any(|statement| statement["version"] == action["version"] && begins(text, statement));
            assert!(action["outcome"] == "already_there" || foretold, "case {at}: not in the plan: {action}\n{plan:#}");
        }
        for statement in
            planned.iter().filter(|statement| statement["outcome"] == "changes" && statement["origin"] == "migration")
        {
            let done = report["actions"].as_array().unwrap().iter().any(|action| {
                action["version"] == statement["version"]
                    && action["outcome"] == "applied"
                    && begins(action["statement"].as_str().unwrap(), statement)
            });
            assert!(done, "case {at}: the plan was sure of this: {statement}\n{report:#}");
        }
    }
}

/// Runs every statement of a plan by hand, looks at `pg_locks`, and ends in the schema that `up` makes.
#[tokio::test]
async fn the_locks_of_a_plan_are_those_that_postgresql_takes() {
    let mut cases = Vec::new();
    for name in ["incident", "complete", "half_by_hand"] {
        for service in [Service::Auth, Service::Task] {
            cases.push((service, TestDatabase::from_sql(&fixture(&format!("legacy/{name}"))).await, name));
        }
    }
    for (service, sql) in DRIFTS {
        cases.push((*service, drifted(sql).await, *sql));
    }
    let mut seen = BTreeMap::new();
    for (service, database, about) in &cases {
        let plan = plan(*service, &database.migrator_url()).await;
        let client = database.client().await;
        let migrator = &Postgres::shared().await.roles().migrator.name;
        client.batch_execute(&format!("SET ROLE {migrator}; SET search_path = public")).await.unwrap();
        for statement in statements(&plan).into_iter().filter(|statement| statement["origin"] != "code") {
            let sql = statement["statement"].as_str().unwrap();
            let real = if statement["in_transaction"] == true {
                watched(&client, sql).await
            } else {
                watched_alone(database, &client, sql).await
            };
            compare(statement, &real, about);
            let key = sql.split_whitespace().take(4).collect::<Vec<_>>().join(" ");
            *seen.entry(format!("{:<24} {key}", statement["lock"].as_str().unwrap_or("none"))).or_insert(0) += 1;
        }
        let verify = run_migrate(*service, &database.migrator_url(), &["verify", "--output", "json"]).await;
        assert_eq!(verify.code, 0, "{about}: the plan run by hand leaves {verify:#?}");
    }
    println!("{:>4} statements by lock, as planned and as taken", seen.values().sum::<usize>());
    seen.iter().for_each(|(key, count)| println!("{count:>4} {key}"));
}

/// What PostgreSQL did: the strongest lock by table, the tables that were read whole, those that were written anew.
#[derive(Debug, Default)]
struct Real {
    locks: BTreeMap<String, String>,
    scanned: bool,
    rewritten: bool,
}

const STRENGTH: [&str; 8] = [
    "AccessShareLock",
    "RowShareLock",
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
];

fn strength(mode: &str) -> usize {
    STRENGTH.iter().position(|known| *known == mode).unwrap_or_default()
}

/// Ordinary tables of `public` with the number of their file.
async fn files(client: &Client) -> BTreeMap<String, u32> {
    let sql =
        "SELECT relname::text, relfilenode FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'";
    client.query(sql, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

async fn locks(client: &Client, pid: i32, before: &BTreeMap<String, u32>) -> BTreeMap<String, String> {
    let sql = "SELECT c.relname::text, l.mode FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
        WHERE l.pid = $1 AND l.granted AND c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'";
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for row in client.query(sql, &[&pid]).await.unwrap() {
        let (table, mode): (String, String) = (row.get(0), row.get(1));
        // A table that the statement itself made is locked for nobody.
        if before.contains_key(&table) && found.get(&table).is_none_or(|held| strength(held) < strength(&mode)) {
            found.insert(table, mode);
        }
    }
    found
}

async fn pid(client: &Client) -> i32 {
    client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0)
}

async fn watched(client: &Client, sql: &str) -> Real {
    let before = files(client).await;
    client.batch_execute("BEGIN").await.unwrap();
    // Of the tables that were there: the key of a new one is built by reading it, which costs nothing.
    let scans = "SELECT coalesce(sum(seq_scan), 0)::int8 FROM pg_stat_xact_user_tables WHERE schemaname = 'public' AND relname = ANY ($1)";
    let tables: Vec<&String> = before.keys().collect();
    let scanned: i64 = client.query_one(scans, &[&tables]).await.unwrap().get(0);
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{error:?}: {sql}"));
    let real = Real {
        locks: locks(client, pid(client).await, &before).await,
        scanned: client.query_one(scans, &[&tables]).await.unwrap().get::<_, i64>(0) > scanned,
        rewritten: files(client).await.iter().any(|(table, file)| before.get(table).is_some_and(|old| old != file)),
    };
    client.batch_execute("COMMIT").await.unwrap();
    real
}

/// A statement that PostgreSQL refuses inside a transaction: seen from beside it, while an open transaction holds it up.
async fn watched_alone(database: &TestDatabase, client: &Client, sql: &str) -> Real {
    let (holder, observer) = (database.client().await, database.client().await);
    let before = files(&observer).await;
    let tables: Vec<&str> = before.keys().filter(|table| !table.starts_with("__")).map(String::as_str).collect();
    holder.batch_execute(&format!("BEGIN; LOCK TABLE {} IN ROW EXCLUSIVE MODE", tables.join(", "))).await.unwrap();
    let worker = pid(client).await;
    let seen = async {
        for _ in 0..40 {
            let found = locks(&observer, worker, &before).await;
            if !found.is_empty() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        BTreeMap::new()
    };
    let look = async {
        let found = seen.await;
        holder.batch_execute("COMMIT").await.unwrap();
        found
    };
    let (ran, locks) = tokio::join!(client.batch_execute(sql), look);
    ran.unwrap_or_else(|error| panic!("{error:?}: {sql}"));
    // A build reads the table by its nature; the statistics of others cannot be read from here.
    Real { locks, scanned: sql.starts_with("CREATE") || sql.starts_with("REINDEX"), rewritten: false }
}

fn compare(statement: &Value, real: &Real, about: &str) {
    let planned: BTreeMap<String, String> = statement["locks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|lock| {
            let words = lock["mode"].as_str().unwrap().split(' ').map(|word| {
                let (first, rest) = word.split_at(1);
                format!("{first}{}", rest.to_lowercase())
            });
            (lock["table"].as_str().unwrap().to_owned(), format!("{}Lock", words.collect::<String>()))
        })
        .collect();
    let context = format!("{about}\n{statement:#}\nreally: {real:#?}");
    for (table, mode) in &real.locks {
        let claimed = planned.get(table).map_or(0, |mode| strength(mode));
        // Reading is not worth a line of a plan, nor that a written row keeps the one it refers to.
        assert!(
            claimed >= strength(mode) || STRENGTH[..2].contains(&mode.as_str()),
            "a stronger lock than planned on {table}: {context}"
        );
    }
    if statement["certain"] != true {
        return;
    }
    for (table, mode) in planned.iter().filter(|(table, _)| !table.starts_with("__")) {
        assert_eq!(real.locks.get(table), Some(mode), "planned on {table}: {context}");
    }
    assert_eq!(statement["rewrites"] == true, real.rewritten, "rewrite: {context}");
    let is_data = statement["lock"] == "ROW EXCLUSIVE";
    assert!(statement["scans"] == true || !real.scanned || is_data, "an unplanned scan: {context}");
    assert!(statement["scans"] != true || real.scanned || is_data, "a planned scan did not happen: {context}");
}
