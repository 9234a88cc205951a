//! Joins the migration engine, which knows no service, to the connections of service-kit, which knows no engine.

use futures_util::future::BoxFuture;
use migration_engine::{Connect, ConnectError, ToolSettings};
use service_kit::postgres::{self, ConnectErrorKind, DatabaseUrl};

/// Connections for the engine, with the TLS of `DATABASE_URL`.
pub struct EngineConnections {
    url: DatabaseUrl,
}

impl EngineConnections {
    /// Connections to `url`.
    #[must_use]
    pub fn new(url: DatabaseUrl) -> Self {
        Self { url }
    }
}

impl Connect for EngineConnections {
    fn connect(&self) -> BoxFuture<'_, Result<tokio_postgres::Client, ConnectError>> {
        Box::pin(async {
            let (client, connection) = postgres::connect(&self.url).await.map_err(|error| match error.kind() {
                ConnectErrorKind::Unreachable => ConnectError::Unreachable(error.to_string()),
                _ => ConnectError::Refused(error.to_string()),
            })?;
            // Ends when the client is dropped; an error shows in the client's next call.
            tokio::spawn(connection);
            Ok(client)
        })
    }
    fn tool_settings(&self) -> ToolSettings {
        ToolSettings { environment: self.url.libpq_environment(), password: self.url.password() }
    }
}
