//! The shared cluster and databases of one test each, copied from templates so that they cost milliseconds.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::OnceLock;

use local_pair::postgres::{
    DatabaseRoles, Dump, SUPERUSER, ServerAddress, SharedCluster, connect, database_create, database_drop,
    database_exists, database_grant, quote_identifier, roles_ensure,
};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::OnceCell;
use tokio_postgres::Client;

use crate::programs::Service;
use crate::run_migrate;

/// The private cluster of this test run.
#[derive(Debug)]
pub struct Postgres {
    cluster: SharedCluster,
    roles: DatabaseRoles,
}

impl Postgres {
    /// The cluster, started by the first test process that asks. It goes away a few seconds after the last one has ended.
    pub async fn shared() -> &'static Self {
        static POSTGRES: OnceLock<Postgres> = OnceLock::new();
        static ROLES: OnceCell<()> = OnceCell::const_new();
        let postgres = POSTGRES.get_or_init(|| {
            let cluster = SharedCluster::join().unwrap_or_else(|error| panic!("{error}"));
            Self { cluster, roles: DatabaseRoles::named("tests", "migrator-of-tests", "runtime-of-tests") }
        });
        ROLES
            .get_or_init(|| async {
                roles_ensure(postgres.address(), &postgres.roles).await.unwrap_or_else(|error| panic!("{error}"))
            })
            .await;
        postgres
    }

    /// Where it listens and how the superuser signs in.
    pub fn address(&self) -> &ServerAddress {
        self.cluster.address()
    }

    /// The roles that own and use every test database.
    pub fn roles(&self) -> &DatabaseRoles {
        &self.roles
    }
}

/// A database of one test; dropped with the value.
#[derive(Debug)]
pub struct TestDatabase {
    postgres: &'static Postgres,
    name: String,
}

impl TestDatabase {
    /// An empty database that the migrator owns.
    pub async fn empty() -> Self {
        let database = Self::unmade().await;
        database_create(database.postgres.address(), &database.name, database.postgres.roles())
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        database
    }

    /// A database with the statements of a plain SQL dump, all owned by the migrator: what `cargo up --restore` makes of it.
    pub async fn from_sql(sql: &str) -> Self {
        let database = Self::unmade().await;
        let dump = Dump::from_text("test.sql", sql).unwrap_or_else(|error| panic!("{error}"));
        dump.restore(database.postgres.address(), &database.name, database.postgres.roles())
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        database
    }

    /// A database that `auth-service migrate up` has made.
    pub async fn migrated_auth() -> Self {
        Self::migrated(&[Service::Auth]).await
    }

    /// A database that `task-service migrate up` has made.
    pub async fn migrated_task() -> Self {
        Self::migrated(&[Service::Task]).await
    }

    /// One database that both services have migrated, as after adopting a legacy one.
    pub async fn migrated_both() -> Self {
        Self::migrated(&[Service::Auth, Service::Task]).await
    }

    /// A copy of this database as it is now; nobody may be connected to it.
    pub async fn copy(&self) -> Self {
        let copy = Self::unmade().await;
        copy.create_from(&self.name).await;
        copy
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// URL for the superuser.
    pub fn superuser_url(&self) -> String {
        self.postgres.address().superuser_url(&self.name)
    }

    /// URL for the role that owns the schema and runs the migrations.
    pub fn migrator_url(&self) -> String {
        self.postgres.address().role_url(&self.postgres.roles().migrator, &self.name)
    }

    /// URL for the role that only reads and writes rows, as the services do.
    pub fn runtime_url(&self) -> String {
        self.postgres.address().role_url(&self.postgres.roles().runtime, &self.name)
    }

    /// A connection of the superuser.
    pub async fn client(&self) -> Client {
        connect(&self.superuser_url()).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// A connection of the role that the services have.
    pub async fn runtime_client(&self) -> Client {
        connect(&self.runtime_url()).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs statements as the migrator, so that it owns what they make.
    pub async fn execute(&self, sql: &str) {
        let client = connect(&self.migrator_url()).await.unwrap_or_else(|error| panic!("{error}"));
        client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{error:?}: {sql}"));
    }

    /// Renews the rights of the two roles, for tables that the superuser made.
    pub async fn grant(&self) {
        database_grant(self.postgres.address(), &self.name, self.postgres.roles())
            .await
            .unwrap_or_else(|error| panic!("{error}"));
    }

    async fn unmade() -> Self {
        Self { postgres: Postgres::shared().await, name: format!("t_{}", uuid::Uuid::new_v4().simple()) }
    }

    async fn migrated(services: &[Service]) -> Self {
        let template = template(services).await;
        let database = Self::unmade().await;
        database.create_from(&template).await;
        database
    }

    async fn create_from(&self, template: &str) {
        let address = self.postgres.address();
        let client = connect(&address.superuser_url(SUPERUSER)).await.unwrap_or_else(|error| panic!("{error}"));
        let owner = quote_identifier(&self.postgres.roles().migrator.name);
        let sql = format!(
            "CREATE DATABASE {} OWNER {owner} TEMPLATE {}",
            quote_identifier(&self.name),
            quote_identifier(template)
        );
        client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{error:?}: {sql}"));
        self.grant().await;
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (address, name) = (self.postgres.address().clone(), std::mem::take(&mut self.name));
        // A runtime of its own: the test's may be the current thread's, which is busy with this drop.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map(|runtime| runtime.block_on(database_drop(&address, &name)))
        });
        // What cannot be dropped goes away with the cluster. A worker hands its other tasks on before it waits.
        let wait = || drop(dropping.join());
        match Handle::try_current().map(|handle| handle.runtime_flavor()) {
            Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(wait),
            _ => wait(),
        }
    }
}

/// The name of the migrated template of exactly these programs, made if it is not there.
async fn template(services: &[Service]) -> String {
    let postgres = Postgres::shared().await;
    let address = postgres.address();
    let name = template_name(services);
    let client = connect(&address.superuser_url(SUPERUSER)).await.unwrap_or_else(|error| panic!("{error}"));
    // Held until this connection ends: other processes wait for the finished template.
    client.execute("SELECT pg_advisory_lock(hashtext($1))", &[&name]).await.unwrap();
    if database_exists(address, &name).await.unwrap() {
        return name;
    }
    let unfinished = format!("{name}_unfinished");
    database_drop(address, &unfinished).await.unwrap();
    database_create(address, &unfinished, postgres.roles()).await.unwrap_or_else(|error| panic!("{error}"));
    for service in services {
        let url = address.role_url(&postgres.roles().migrator, &unfinished);
        let run = run_migrate(*service, &url, &["up", "--output", "json"]).await;
        assert_eq!(run.code, 0, "{} migrate up on an empty database: {run:#?}", service.name());
    }
    // The last session's end takes a moment; a database in use cannot be renamed.
    let sql = format!(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{unfinished}'; ALTER DATABASE {} RENAME TO {}",
        quote_identifier(&unfinished),
        quote_identifier(&name)
    );
    for statement in sql.split("; ") {
        client.batch_execute(statement).await.unwrap_or_else(|error| panic!("{error:?}: {statement}"));
    }
    name
}

fn template_name(services: &[Service]) -> String {
    let mut hasher = DefaultHasher::new();
    let mut name = String::from("template");
    for service in services {
        let metadata = service.program().metadata().expect("the program is there");
        (service.program(), metadata.len(), metadata.modified().ok()).hash(&mut hasher);
        name.push('_');
        name.push_str(service.name().split('-').next().unwrap_or_default());
    }
    format!("{name}_{:016x}", hasher.finish())
}
