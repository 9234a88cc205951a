//! Databases and their two roles: the migrator owns the schema, the runtime role can only read and write rows.

use tokio_postgres::{Client, NoTls};

use super::{PostgresError, SUPERUSER};

/// Where a private server listens and how its superuser signs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// Port on 127.0.0.1.
    pub port: u16,
    /// The superuser's password.
    pub password: String,
}

impl ServerAddress {
    /// The URL of `database` for `user`; names and passwords of ours need no escaping.
    pub fn url(&self, user: &str, password: &str, database: &str) -> String {
        format!("postgres://{user}:{password}@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// The URL of `database` for the superuser.
    pub fn superuser_url(&self, database: &str) -> String {
        self.url(SUPERUSER, &self.password, database)
    }

    /// The URL of `database` for `role`.
    pub fn role_url(&self, role: &Role, database: &str) -> String {
        self.url(&role.name, &role.password, database)
    }
}

/// A role that signs in with a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Name; lower-case letters and underscores only.
    pub name: String,
    /// Password; hex only.
    pub password: String,
}

/// The two roles of one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseRoles {
    /// Owns the database, its schema `public` and all that is in it; used by the migration jobs.
    pub migrator: Role,
    /// Reads and writes rows, nothing else; used by the running services.
    pub runtime: Role,
}

impl DatabaseRoles {
    /// The roles `<prefix>_migrator` and `<prefix>_runtime`.
    pub fn named(prefix: &str, migrator_password: &str, runtime_password: &str) -> Self {
        let role =
            |kind: &str, password: &str| Role { name: format!("{prefix}_{kind}"), password: password.to_owned() };
        Self { migrator: role("migrator", migrator_password), runtime: role("runtime", runtime_password) }
    }
}

/// Connects without TLS (the private server listens on loopback only) and drives the connection in the background.
///
/// # Errors
/// The server cannot be reached or refuses.
pub async fn connect(url: &str) -> Result<Client, PostgresError> {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .map_err(|e| PostgresError::sql("connecting to the private PostgreSQL", &e))?;
    tokio::spawn(async move {
        // Its error reaches whoever uses the client; here nobody waits for it.
        let _ended = connection.await;
    });
    Ok(client)
}

/// `name` as an SQL identifier.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `text` as an SQL string literal, whatever `standard_conforming_strings` says.
pub fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!(" E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// Creates the two roles or sets their passwords; neither has any attribute beyond signing in. Messages come in English
/// whatever the server's language: Diesel hides the SQLSTATE, so the services tell some errors apart by their text.
///
/// # Errors
/// A statement failed.
pub async fn roles_ensure(server: &ServerAddress, roles: &DatabaseRoles) -> Result<(), PostgresError> {
    let client = connect(&server.superuser_url(SUPERUSER)).await?;
    for role in [&roles.migrator, &roles.runtime] {
        let (name, literal) = (quote_identifier(&role.name), quote_literal(&role.name));
        let sql = format!(
            "SELECT pg_advisory_xact_lock(hashtext('roles of the private cluster'));
             DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {literal}) THEN CREATE ROLE {name}; END IF; END $$;
             ALTER ROLE {name} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD {};
             ALTER ROLE {name} SET lc_messages = 'C'",
            quote_literal(&role.password)
        );
        execute(&client, &format!("creating the role {}", role.name), &sql).await?;
    }
    Ok(())
}

/// Whether `name` exists.
///
/// # Errors
/// The query failed.
pub async fn database_exists(server: &ServerAddress, name: &str) -> Result<bool, PostgresError> {
    let client = connect(&server.superuser_url(SUPERUSER)).await?;
    let row = client
        .query_opt("SELECT FROM pg_database WHERE datname = $1", &[&name])
        .await
        .map_err(|e| PostgresError::sql("reading pg_database", &e))?;
    Ok(row.is_some())
}

/// Creates an empty database that the migrator owns and only the two roles may enter.
///
/// # Errors
/// It exists already or a statement failed.
pub async fn database_create(server: &ServerAddress, name: &str, roles: &DatabaseRoles) -> Result<(), PostgresError> {
    let client = connect(&server.superuser_url(SUPERUSER)).await?;
    let sql = format!(
        "CREATE DATABASE {} OWNER {} TEMPLATE template0",
        quote_identifier(name),
        quote_identifier(&roles.migrator.name)
    );
    execute(&client, &format!("creating the database {name}"), &sql).await?;
    database_grant(server, name, roles).await
}

/// Drops a database with the sessions in it; a missing one is fine.
///
/// # Errors
/// The statement failed.
pub async fn database_drop(server: &ServerAddress, name: &str) -> Result<(), PostgresError> {
    let client = connect(&server.superuser_url(SUPERUSER)).await?;
    let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quote_identifier(name));
    execute(&client, &format!("dropping the database {name}"), &sql).await
}

/// Gives the two roles what they need and nobody else anything: run after creating, after loading and after migrating.
///
/// # Errors
/// A statement failed.
pub async fn database_grant(server: &ServerAddress, name: &str, roles: &DatabaseRoles) -> Result<(), PostgresError> {
    let client = connect(&server.superuser_url(name)).await?;
    let (database, migrator, runtime) =
        (quote_identifier(name), quote_identifier(&roles.migrator.name), quote_identifier(&roles.runtime.name));
    // Up to PostgreSQL 14, and in dumps of such servers, everybody may create in public.
    let sql = format!(
        "ALTER DATABASE {database} OWNER TO {migrator};
         ALTER SCHEMA public OWNER TO {migrator};
         REVOKE ALL ON DATABASE {database} FROM PUBLIC;
         GRANT CONNECT ON DATABASE {database} TO {runtime};
         REVOKE ALL ON SCHEMA public FROM PUBLIC, {runtime};
         GRANT USAGE ON SCHEMA public TO {runtime};
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {runtime};
         GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {runtime};
         ALTER DEFAULT PRIVILEGES FOR ROLE {migrator} IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {runtime};
         ALTER DEFAULT PRIVILEGES FOR ROLE {migrator} IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO {runtime}"
    );
    execute(&client, &format!("granting rights in {name}"), &sql).await
}

pub(super) async fn execute(client: &Client, action: &str, sql: &str) -> Result<(), PostgresError> {
    client.batch_execute(sql).await.map_err(|e| PostgresError::sql(action, &e))
}
