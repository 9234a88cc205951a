//! One kill: where it happens, and what must be true afterwards.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use migration_engine::Expected;
use tests::catalog::{Catalog, Snapshot, catalog_differences, snapshot};
use tests::legacy::fixture;
use tests::proxy::{Moment, Plan, Proxy, Strike, writes};
use tests::{Postgres, Runner, Service, TestDatabase, kept, run_migrate};

const UP: &[&str] = &["up", "--output", "json"];
/// A run waits at most a minute for another one.
const PATIENCE: Duration = Duration::from_secs(100);
/// The server looks at the socket of a busy session every second.
const LOCK_PATIENCE: Duration = Duration::from_secs(6);

/// A database with rows in which much is wrong at once: each repair has its own statements to be killed at.
const DRIFTED: &str = "
    INSERT INTO users (id, email, username, password_hash, role_id)
    SELECT gen_random_uuid(), 'ü' || n || '@example.com', 'ü' || n, 'x', (SELECT id FROM roles WHERE name = 'member') FROM generate_series(1, 30) n;
    INSERT INTO sessions (id, user_id, expires_at) SELECT gen_random_uuid(), id, now() + '1 day' FROM users;
    INSERT INTO refresh_tokens (id, user_id, token_hash, expires_at, session_id)
    SELECT gen_random_uuid(), user_id, id::text, expires_at, id FROM sessions;
    INSERT INTO tasks (id, user_id, title) SELECT gen_random_uuid(), id, 'title of ' || username FROM users;
    ALTER TABLE tasks DROP CONSTRAINT tasks_pkey; ALTER TABLE tasks ADD CONSTRAINT tasks_pkey PRIMARY KEY (id);
    ALTER TABLE tasks ALTER COLUMN user_id DROP NOT NULL; UPDATE tasks SET user_id = NULL WHERE title LIKE '%3';
    ALTER TABLE tasks DROP CONSTRAINT tasks_status_check; UPDATE tasks SET status = 'pending' WHERE title LIKE '%4';
    ALTER TABLE tasks ALTER COLUMN title TYPE varchar(400); ALTER TABLE tasks ALTER COLUMN version TYPE int;
    DROP INDEX idx_tasks_live_status; CREATE INDEX idx_tasks_live_status ON tasks (status);
    DROP INDEX idx_tasks_live_user_due_date; DROP TABLE task_requests;
    ALTER TABLE users DROP CONSTRAINT fk_users_role_id;
    ALTER TABLE users ADD CONSTRAINT fk_users_role_id FOREIGN KEY (role_id) REFERENCES roles (id) ON DELETE SET NULL NOT VALID;
    ALTER TABLE users ALTER COLUMN role_id DROP NOT NULL; UPDATE users SET role_id = NULL WHERE username LIKE '%5';
    ALTER TABLE users DROP CONSTRAINT users_email_key; CREATE INDEX users_email_key ON users (email);
    ALTER TABLE users ALTER COLUMN username TYPE text; DROP INDEX idx_users_created_at;
    ALTER TABLE sessions RENAME CONSTRAINT fk_sessions_user_id TO sessions_user; DROP INDEX idx_sessions_user_id;
    ALTER TABLE refresh_tokens DROP COLUMN session_id; ALTER TABLE role_permissions SET UNLOGGED;
    UPDATE roles SET is_system = false WHERE name = 'member'; DELETE FROM __diesel_schema_migrations WHERE version LIKE '%3_0'";

/// A start state.
pub(crate) struct Start {
    pub(crate) name: &'static str,
    template: TestDatabase,
    rows: tests::catalog::Rows,
}

/// What a run does that nobody disturbs.
pub(crate) struct DryRun {
    pub(crate) statements: Vec<String>,
    pub(crate) took: Duration,
}

/// Where a runner is killed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kill {
    /// At a boundary.
    At { at: usize, moment: Moment },
    /// After some time.
    After(Duration),
}

/// One kill.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    pub(crate) start: usize,
    pub(crate) service: Service,
    pub(crate) kill: Kill,
    /// The boundary at which the undisturbed run has its lock.
    pub(crate) lock: usize,
}

/// What all kills share.
pub(crate) struct Matrix {
    pub(crate) starts: Vec<Start>,
    fresh: Catalog,
}

impl Kill {
    /// For the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::At { moment: Moment::Before, .. } => "before the statement",
            Self::At { moment: Moment::Sent, .. } => "while it runs",
            Self::At { moment: Moment::Answered, .. } => "once it is done",
            Self::After(_) => "at a random time",
        }
    }
}

impl DryRun {
    /// Boundaries at which something may change.
    pub(crate) fn writes(&self) -> Vec<usize> {
        writes(&self.statements)
    }

    /// The boundary that takes the lock.
    pub(crate) fn lock(&self) -> usize {
        1 + self.statements.iter().position(|text| text.contains("pg_try_advisory_lock")).unwrap()
    }
}

fn owned(service: Service) -> Vec<String> {
    let text = match service {
        Service::Auth => include_str!("../../../migrations/auth/expected.json"),
        Service::Task => include_str!("../../../migrations/task/expected.json"),
    };
    let expected: Expected = serde_json::from_str(text).unwrap();
    expected.table_names().iter().map(|table| format!("public.{table}")).collect()
}

fn of(catalog: &Catalog, tables: &[String]) -> Catalog {
    catalog.clone().into_iter().filter(|(object, _)| tables.contains(&object.table)).collect()
}

async fn server() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, Postgres::shared().await.address().port))
}

impl Matrix {
    /// Makes the start states and the schema that all must end in.
    pub(crate) async fn new() -> Self {
        let drifted = TestDatabase::migrated_both().await;
        drifted.execute(DRIFTED).await;
        let incident = TestDatabase::from_sql(&fixture("legacy/incident")).await;
        let mut starts = Vec::new();
        for (name, template) in [("empty", TestDatabase::empty().await), ("incident", incident), ("drifted", drifted)] {
            let rows = snapshot(&template.client().await).await.rows;
            starts.push(Start { name, template, rows });
        }
        let fresh = TestDatabase::migrated_both().await;
        let fresh = snapshot(&fresh.client().await).await.catalog;
        Self { starts, fresh }
    }

    /// Counts the boundaries of a run.
    pub(crate) async fn dry_run(&self, start: usize, service: Service) -> DryRun {
        let database = self.starts[start].template.copy().await;
        let proxy = Proxy::start(server().await, None).await;
        let started = Instant::now();
        let run = run_migrate(service, &proxy.url(&database.migrator_url()), UP).await;
        assert_eq!(run.code, 0, "{} of {}: {}", self.starts[start].name, service.name(), run.brief());
        DryRun { statements: proxy.statements(), took: started.elapsed() }
    }

    /// The kill in words that make it again.
    pub(crate) fn describe(&self, point: &Point) -> String {
        format!("{}, {} up, {:?}", self.starts[point.start].name, point.service.name(), point.kill)
    }

    /// Kills; answers whether the runner was still there to be killed.
    ///
    /// # Errors
    /// What is not as it must be.
    pub(crate) async fn kill(&self, point: &Point) -> Result<bool, String> {
        let start = &self.starts[point.start];
        let database = start.template.copy().await;
        let url = database.migrator_url();
        let plan = match point.kill {
            Kill::At { at, moment } => Some(Plan { at, moment, strike: Strike::Kill }),
            Kill::After(_) => None,
        };
        let proxy = Proxy::start(server().await, plan).await;
        let first = Runner::start(point.service, &proxy.url(&url), UP);
        proxy.victim(first.process());
        // The second comes when the first has the lock, or both race for it where the kill is before that.
        if let Kill::At { at, .. } = point.kill
            && at > point.lock
        {
            let _late = tokio::time::timeout(PATIENCE, proxy.passed(point.lock)).await;
        }
        let second = Runner::start(point.service, &url, UP);
        if let Kill::After(time) = point.kill {
            tokio::time::sleep(time).await;
            first.kill();
        }
        let (first, second) = tokio::join!(first.wait(PATIENCE), second.wait(PATIENCE));
        let killed = first.code == -1;
        if !killed && (proxy.has_struck() || first.code != 0) {
            return Err(format!("the first run ended otherwise: {}", first.brief()));
        }
        if second.code != 0 {
            let sessions = sessions(&database).await;
            return Err(format!("the second run: {}\n  the first: {}\n{sessions}", second.brief(), first.brief()));
        }
        let third = run_migrate(point.service, &url, UP).await;
        if third.code != 0 {
            return Err(format!("the third run: {}", third.brief()));
        }
        let verify = run_migrate(point.service, &url, &["verify", "--output", "json"]).await;
        if verify.code != 0 {
            return Err(format!("verify: {}", verify.brief()));
        }
        self.is_whole(point, &database, start).await?;
        Ok(killed)
    }

    async fn is_whole(&self, point: &Point, database: &TestDatabase, start: &Start) -> Result<(), String> {
        let client = database.client().await;
        let after: Snapshot = snapshot(&client).await;
        let tables = owned(point.service);
        let mut wrong = catalog_differences(&of(&self.fresh, &tables), &of(&after.catalog, &tables));
        let left =
            after.catalog.iter().filter(|(object, what)| object.name.contains("__new") || what.contains("INVALID"));
        wrong.extend(left.map(|(object, what)| format!("left over: {object}: {what}")));
        if let Err(lost) = kept::compare(&start.rows, &after.rows, &[point.service]) {
            wrong.extend(lost);
        }
        let versions: Vec<String> =
            after.rows["public.__diesel_schema_migrations"].iter().map(|row| row["version"].to_string()).collect();
        let once: std::collections::BTreeSet<&String> = versions.iter().collect();
        if once.len() != versions.len() {
            wrong.push(format!("a version is recorded twice: {versions:?}"));
        }
        let deadline = Instant::now() + LOCK_PATIENCE;
        let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        while client.query_one(locks, &[]).await.unwrap().get::<_, i64>(0) > 0 {
            if Instant::now() > deadline {
                wrong.push("a session still holds the migration lock".to_owned());
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n  ")) }
    }
}

/// Who is connected, and what for: the first thing to know when a run waited in vain.
async fn sessions(database: &TestDatabase) -> String {
    let sql = "SELECT concat_ws(' ', ' ', pid, client_port, state, wait_event, 'since', backend_start, 'statement since', query_start,
            (SELECT 'blocked by ' || string_agg(b::text, ',') FROM unnest(pg_blocking_pids(pid)) b),
            (SELECT 'holds the lock' FROM pg_locks l WHERE l.pid = a.pid AND locktype = 'advisory' AND granted LIMIT 1), left(query, 150))
        FROM pg_stat_activity a WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let rows = database.client().await.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join("\n")
}
