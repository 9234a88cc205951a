//! Both services side by side, as `cargo up` starts them.

use proto::auth::v1::auth_service_client::AuthServiceClient;
use proto::task::v1::task_service_client::TaskServiceClient;
use tonic::transport::Channel;

use crate::programs::Service;
use crate::server::{Addresses, AuthServer, Environment, TaskServer, run_program};
use crate::{Account, Authorized, PASSWORD, TestDatabase, run_migrate, sign_in, sign_up};

/// A running auth-service and task-service with their databases.
#[derive(Debug)]
pub struct Pair {
    // The fields are dropped in this order: services before their databases.
    /// The auth service.
    pub auth: AuthServer,
    /// The task service.
    pub task: TaskServer,
    /// The auth service's database.
    pub auth_database: TestDatabase,
    /// The task service's own database; `None` when both share one.
    pub task_database: Option<TestDatabase>,
}

impl Pair {
    /// Both services from nothing, each with a database of its own.
    pub async fn start() -> Self {
        Self::start_with(&[], &[]).await
    }

    /// As [`Self::start`] with extra environment variables for either service.
    pub async fn start_with(auth: Environment<'_>, task: Environment<'_>) -> Self {
        let task_database = TestDatabase::migrated_task().await;
        Self::start_on(TestDatabase::migrated_auth().await, Some(task_database), auth, task).await
    }

    /// Both services on one database made from a plain SQL dump and adopted.
    pub async fn from_sql(sql: &str) -> Self {
        let database = TestDatabase::from_sql(sql).await;
        for service in [Service::Auth, Service::Task] {
            let run = run_migrate(service, &database.migrator_url(), &["up"]).await;
            assert_eq!(run.code, 0, "{} migrate up: {run:#?}", service.name());
        }
        database.grant().await;
        Self::start_on(database, None, &[], &[]).await
    }

    /// Both services on migrated databases; without a second one they share the first.
    pub async fn start_on(
        auth_database: TestDatabase,
        task_database: Option<TestDatabase>,
        auth: Environment<'_>,
        task: Environment<'_>,
    ) -> Self {
        let (auth_at, task_at) = (Addresses::free(), Addresses::free());
        let tasks_in = task_database.as_ref().unwrap_or(&auth_database);
        let (auth, task) = tokio::join!(
            AuthServer::start_at(auth_at, &auth_database, task_at.grpc, auth),
            TaskServer::start_at(task_at, tasks_in, auth_at.grpc, task)
        );
        let auth = auth.unwrap_or_else(|failure| panic!("auth-service did not start: {failure:#?}"));
        let task = task.unwrap_or_else(|failure| panic!("task-service did not start: {failure:#?}"));
        Self { auth, task, auth_database, task_database }
    }

    /// Kills the auth service, if it still runs, and starts it where it was.
    pub async fn restart_auth(&mut self, extra: Environment<'_>) {
        self.auth.kill();
        let at = Addresses { grpc: self.auth.address(), metrics: self.auth.metrics_address() };
        let started = AuthServer::start_at(at, &self.auth_database, self.task.address(), extra).await;
        self.auth = started.unwrap_or_else(|failure| panic!("auth-service did not start again: {failure:#?}"));
    }

    /// Kills the task service, if it still runs, and starts it where it was.
    pub async fn restart_task(&mut self, extra: Environment<'_>) {
        self.task.kill();
        let at = Addresses { grpc: self.task.address(), metrics: self.task.metrics_address() };
        let database = self.task_database.as_ref().unwrap_or(&self.auth_database);
        let started = TaskServer::start_at(at, database, self.auth.address(), extra).await;
        self.task = started.unwrap_or_else(|failure| panic!("task-service did not start again: {failure:#?}"));
    }

    /// A client of AuthService without a token.
    pub fn auth(&self) -> AuthServiceClient<Channel> {
        AuthServiceClient::new(self.auth.channel())
    }

    /// A client of AuthService for an account.
    pub fn auth_as(&self, account: &Account) -> AuthServiceClient<Authorized> {
        AuthServiceClient::new(self.auth.channel_with(account.access_token()))
    }

    /// A client of TaskService for an account.
    pub fn tasks(&self, account: &Account) -> TaskServiceClient<Authorized> {
        TaskServiceClient::new(self.task.channel_with(account.access_token()))
    }

    /// Signs up `name` with the e-mail `<name>@example.com` and [`PASSWORD`].
    pub async fn sign_up(&self, name: &str) -> Account {
        sign_up(&self.auth, name).await
    }

    /// Signs in with an e-mail or user name.
    pub async fn sign_in(&self, login: &str, password: &str) -> Account {
        sign_in(&self.auth, login, password).await
    }

    /// Signs up `name` with a role that may read everybody's tasks and change nobody else's.
    pub async fn reader(&self, name: &str) -> Account {
        let account = self.sign_up(name).await;
        let role = format!(
            "INSERT INTO roles (name, display_name) VALUES ('reader', 'Reader');
             INSERT INTO role_permissions (role_id, permission) SELECT id, 'tasks.read' FROM roles WHERE name = 'reader';
             UPDATE users SET role_id = (SELECT id FROM roles WHERE name = 'reader') WHERE id = '{}'",
            account.id()
        );
        self.auth_database.execute(&role).await;
        self.sign_in(name, PASSWORD).await
    }

    /// Creates the administrator `root@example.com` by `admin bootstrap` and signs in.
    pub async fn administrator(&self) -> Account {
        let url = self.auth_database.runtime_url();
        let arguments = ["admin", "bootstrap", "--email", "root@example.com", "--username", "root", "--password-stdin"];
        let run = run_program(Service::Auth, &arguments, &[("DATABASE_URL", &url)], PASSWORD).await;
        assert_eq!(run.code, 0, "admin bootstrap: {run:#?}");
        self.sign_in("root@example.com", PASSWORD).await
    }
}
