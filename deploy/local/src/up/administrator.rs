//! The local administrator: an account of its own, never one of those that are there already.

use std::path::Path;

use super::UpError;
use super::child::{run_with_input, service_command};
use super::directory::{Administrator, Directory, Secrets};
use super::progress::Progress;
use crate::postgres::{PostgresError, ServerAddress, connect};

/// `admin bootstrap` says so of an account that was changed since.
const LEFT_ALONE: i32 = 3;

/// Creates the administrator, or finds the one of the last run.
pub(super) async fn bootstrap(
    directory: &Directory,
    secrets: &mut Secrets,
    program: &Path,
    server: &ServerAddress,
    database: &str,
    progress: &Progress,
) -> Result<Administrator, UpError> {
    let administrator = match &secrets.administrator {
        Some(known) => known.clone(),
        None => {
            let chosen = choose(server, database).await?;
            // Written first: a run that is killed in between finds its own account again.
            secrets.administrator = Some(chosen.clone());
            directory.write_secrets(secrets)?;
            chosen
        }
    };
    let url = server.role_url(&secrets.roles(database).runtime, database);
    let mut command = service_command(program);
    command
        .args([
            "admin",
            "bootstrap",
            "--password-stdin",
            "--email",
            &administrator.email,
            "--username",
            &administrator.username,
        ])
        .env("DATABASE_URL", url)
        .env("KEY_ENCRYPTION_KEY", &secrets.key_encryption_key);
    let (code, reason) = run_with_input(command, program, &secrets.admin_password).await?;
    match code {
        Some(0) => {
            progress.done(&format!("administrator {}", administrator.email));
            Ok(administrator)
        }
        Some(LEFT_ALONE) => {
            progress.care(&format!("the administrator {} was changed since the first run and is left alone: its first password may not work", administrator.email));
            Ok(administrator)
        }
        _ => Err(UpError::failed(format!("auth-service admin bootstrap: {reason}"))),
    }
}

/// The first name that no account has, compared without case.
async fn choose(server: &ServerAddress, database: &str) -> Result<Administrator, UpError> {
    let client = connect(&server.superuser_url(database)).await?;
    for number in 1..1000_u32 {
        let suffix = if number == 1 { String::new() } else { number.to_string() };
        let candidate =
            Administrator { email: format!("admin{suffix}@local.test"), username: format!("local-admin{suffix}") };
        let sql = "SELECT FROM users WHERE lower(email) IN ($1, $2) OR lower(username) IN ($1, $2) LIMIT 1";
        let taken = client
            .query_opt(sql, &[&candidate.email, &candidate.username])
            .await
            .map_err(|e| PostgresError::sql("looking for a free administrator name", &e))?;
        if taken.is_none() {
            return Ok(candidate);
        }
    }
    Err(UpError::failed(
        "a thousand accounts named admin@local.test and alike exist: no name is left for the local administrator",
    ))
}
