//! Clients of the previous release: prepared statements that name legacy columns only, at a steady pace.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use local_pair::postgres::connect;
use tests::{Random, TestDatabase};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

/// The pause of a client after a statement.
const PACE: Duration = Duration::from_millis(5);

/// A kind of statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    ReadTask,
    ListTasks,
    InsertTask,
    UpdateTask,
    DeleteTask,
    ReadUser,
    InsertUser,
    UpdateUser,
}

/// All kinds.
pub(crate) const KINDS: &[Kind] = &[
    Kind::ReadTask,
    Kind::ListTasks,
    Kind::InsertTask,
    Kind::UpdateTask,
    Kind::DeleteTask,
    Kind::ReadUser,
    Kind::InsertUser,
    Kind::UpdateUser,
];

impl Kind {
    fn sql(self) -> &'static str {
        match self {
            Self::ReadTask => {
                "SELECT id, title, description, status, due_date, created_at, updated_at, user_id FROM tasks WHERE id = $1"
            }
            Self::ListTasks => {
                "SELECT id, title, description, status, due_date, created_at, updated_at, user_id FROM tasks \
                 WHERE user_id = $1 ORDER BY created_at DESC LIMIT 20"
            }
            Self::InsertTask => {
                "INSERT INTO tasks (id, title, description, status, due_date, created_at, updated_at, user_id) \
                 VALUES ($1, 'made meanwhile', NULL, 'todo', now() + interval '1 day', now(), now(), $2)"
            }
            Self::UpdateTask => "UPDATE tasks SET status = 'completed', updated_at = now() WHERE id = $1",
            Self::DeleteTask => "DELETE FROM tasks WHERE id = $1",
            Self::ReadUser => {
                "SELECT id, email, username, password_hash, is_active, email_verified, last_login_at, created_at, updated_at, role_id \
                 FROM users WHERE email = $1"
            }
            Self::InsertUser => {
                "INSERT INTO users (id, email, username, password_hash, is_active, email_verified, created_at, updated_at, role_id) \
                 VALUES ($1, $2, $3, 'x', true, false, now(), now(), '22222222-2222-4222-8222-222222222222')"
            }
            Self::UpdateUser => "UPDATE users SET last_login_at = now(), updated_at = now() WHERE id = $1",
        }
    }
}

/// One statement that was done.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) kind: Kind,
    pub(crate) started: Instant,
    pub(crate) took: Duration,
    pub(crate) error: Option<String>,
}

/// The running clients.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<Done>>>,
}

impl Traffic {
    /// Connects the clients as the role of the services and lets them run.
    pub(crate) async fn start(database: &TestDatabase, clients: usize, rows: u64, users: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut running = Vec::new();
        for number in 0..clients {
            let client = connect(&database.runtime_url()).await.unwrap();
            let mut statements = Vec::new();
            for kind in KINDS {
                statements.push((*kind, client.prepare(kind.sql()).await.unwrap()));
            }
            let random = Random::new(number as u64);
            let caller = Caller { client, statements, random, number, rows, users, made: Vec::new() };
            running.push(tokio::spawn(caller.run(Arc::clone(&stop))));
        }
        Self { stop, clients: running }
    }

    /// Stops them; what they did.
    pub(crate) async fn stop(self) -> Vec<Done> {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Vec::new();
        for client in self.clients {
            all.extend(client.await.unwrap());
        }
        all
    }
}

struct Caller {
    client: Client,
    statements: Vec<(Kind, Statement)>,
    random: Random,
    number: usize,
    rows: u64,
    users: u64,
    /// Tasks of its own, to be deleted again.
    made: Vec<Uuid>,
}

impl Caller {
    async fn run(mut self, stop: Arc<AtomicBool>) -> Vec<Done> {
        let mut done = Vec::new();
        while !stop.load(Ordering::SeqCst) {
            done.push(self.one(done.len()).await);
            tokio::time::sleep(PACE).await;
        }
        done
    }

    async fn one(&mut self, count: usize) -> Done {
        let chosen = self.random.below(self.statements.len());
        let (mut kind, mut statement) = self.statements[chosen].clone();
        if kind == Kind::DeleteTask && self.made.is_empty() {
            (kind, statement) = self.statements[2].clone();
        }
        let any = |random: &mut Random, of: u64| 1 + random.below(usize::try_from(of).unwrap());
        let (task, user) = (any(&mut self.random, self.rows), any(&mut self.random, self.users));
        let id =
            |what: &str, number: usize| Uuid::parse_str(&format!("{what}0000-0000-4000-8000-{number:012}")).unwrap();
        let (email, name) = (format!("user{user}@example.com"), format!("new-{}-{count}", self.number));
        let started = Instant::now();
        let outcome = match kind {
            Kind::ReadTask | Kind::UpdateTask => self.client.execute(&statement, &[&id("7a5c", task)]).await,
            Kind::ListTasks | Kind::UpdateUser => self.client.execute(&statement, &[&id("05e2", user)]).await,
            Kind::ReadUser => self.client.execute(&statement, &[&email]).await,
            Kind::InsertTask => {
                let new = Uuid::new_v4();
                self.made.push(new);
                self.client.execute(&statement, &[&new, &id("05e2", user)]).await
            }
            Kind::DeleteTask => {
                let old = self.made.swap_remove(self.random.below(self.made.len()));
                self.client.execute(&statement, &[&old]).await
            }
            Kind::InsertUser => {
                let email = format!("{name}@example.com");
                self.client.execute(&statement, &[&Uuid::new_v4(), &email, &name]).await
            }
        };
        let took = started.elapsed();
        let error = match outcome {
            Ok(0) if kind != Kind::ListTasks => Some("touched no row, and one is there".to_owned()),
            Ok(_) => None,
            Err(error) => Some(format!("{error:?}")),
        };
        Done { kind, started, took, error }
    }
}
