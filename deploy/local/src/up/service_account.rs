//! The service account with which the local task-service follows revocations.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::UpError;
use super::child::{run_with_input, service_command};
use super::directory::{Directory, Secrets};
use crate::files;
use crate::postgres::ServerAddress;

/// Of its own, whatever accounts a restored database has.
pub(super) const CLIENT_ID: &str = "local-task-service";

/// Makes the account, or finds the one of the last run. Gives its secret.
pub(super) async fn setup(
    directory: &Directory,
    secrets: &mut Secrets,
    program: &Path,
    server: &ServerAddress,
    database: &str,
) -> Result<String, UpError> {
    let secret = match &secrets.task_client_secret {
        Some(known) => known.clone(),
        None => {
            let bytes = files::random_bytes(32).map_err(|error| UpError::failed(format!("no randomness: {error}")))?;
            let secret = STANDARD.encode(bytes);
            secrets.task_client_secret = Some(secret.clone());
            directory.write_secrets(secrets)?;
            secret
        }
    };
    let mut command = service_command(program);
    command
        .args(["admin", "service-account", "--client-id", CLIENT_ID, "--permission", "tokens.introspect"])
        .args(["--secret-stdin", "--reset"])
        .env("DATABASE_URL", server.role_url(&secrets.roles(database).runtime, database));
    match run_with_input(command, program, &secret).await? {
        (Some(0), _) => Ok(secret),
        (_, reason) => Err(UpError::failed(format!("auth-service admin service-account: {reason}"))),
    }
}
