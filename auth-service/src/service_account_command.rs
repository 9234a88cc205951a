//! `admin service-account`: the account with which one of our own programs signs in, from a Job or a script.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use chrono::{SubsecRound as _, TimeDelta, Utc};
use service_kit::config::{DatabaseArgs, TelemetryArgs};
use service_kit::database::Database;
use service_kit::telemetry;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::admin::{DIFFERENT, refuse, text_from_stdin};
use crate::domain::opaque_token::OpaqueToken;
use crate::domain::role;
use crate::domain::service_account::{self, NewServiceAccount};
use crate::store::service_account_setup::Setup;
use crate::store::{AuthStore, ChangeError};

/// 256 bits in base64 have 43 characters or more.
const SHORTEST_SECRET: usize = 43;

/// `admin service-account`.
#[derive(Debug, clap::Args)]
pub struct ServiceAccountArgs {
    /// The id with which the program signs in, such as task-service: 1 to 64 lower-case letters, digits and hyphens.
    #[arg(long, value_name = "ID", value_parser = service_account::client_id)]
    client_id: String,
    /// Name for people [default: the client id].
    #[arg(long, value_name = "NAME", value_parser = service_account::name)]
    name: Option<String>,
    /// A permission of the account; may be given several times.
    #[arg(long = "permission", value_name = "PERMISSION", required = true)]
    permissions: Vec<String>,
    #[command(flatten)]
    secret: SecretSource,
    /// Set an account that is there as asked.
    #[arg(long)]
    reset: bool,
    /// How long the secret before stays good when another one is set; 0s ends it at once.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    overlap: Duration,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    telemetry: TelemetryArgs,
}

/// Where the secret comes from.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct SecretSource {
    /// File with the secret; white space around it does not count. Make one with openssl rand -base64 32.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Read the secret from stdin.
    #[arg(long)]
    secret_stdin: bool,
}

/// Makes, finds or resets a service account.
pub async fn run(args: ServiceAccountArgs) -> anyhow::Result<ExitCode> {
    telemetry::init_logs(&args.telemetry)?;
    let permissions = match role::permissions(&args.permissions) {
        Ok(permissions) => permissions,
        Err(place) => {
            let all: Vec<_> = proto::policy::permissions().iter().map(String::as_str).collect();
            let given = args.permissions.get(place).map_or("", String::as_str);
            return Ok(refuse(&format!("--permission {given:?}: expected one of {}", all.join(", "))));
        }
    };
    let secret = match secret(&args.secret).await {
        Ok(secret) => secret,
        Err(line) => return Ok(refuse(&line)),
    };
    let account = NewServiceAccount {
        id: Uuid::now_v7(),
        name: args.name.unwrap_or_else(|| args.client_id.clone()),
        client_id: args.client_id,
        permissions,
    };
    let overlap = TimeDelta::from_std(args.overlap).unwrap_or(TimeDelta::MAX).min(TimeDelta::days(30));
    let store = AuthStore::new(Database::new(&args.database.database_url, 1)?);
    let now = Utc::now().trunc_subsecs(6);
    let how = (args.reset, overlap);
    let mut done = store.service_account_setup(&account, &secret.hash(), how, now).await;
    if matches!(constraint(&done), Some("service_accounts_client_id_key" | "service_accounts_name_key")) {
        // Another run may have made it a moment ago: then this one finds it.
        done = store.service_account_setup(&account, &secret.hash(), how, now).await;
    }
    let client_id = &account.client_id;
    match &done {
        Ok(Setup::Created(id)) => println!("created service account {client_id} ({id})"),
        Ok(Setup::AsAsked(id)) => println!("service account {client_id} ({id}) is there as asked"),
        Ok(Setup::Reset(id, what)) => {
            println!("reset service account {client_id} ({id}): it had {}", what.join(" and "));
        }
        Ok(Setup::Different(id, what)) => {
            eprintln!(
                "error: service account {client_id} ({id}) is there but has {}; it is left as it is; to set it as asked add --reset",
                what.join(" and ")
            );
            return Ok(ExitCode::from(DIFFERENT));
        }
        Err(_) if constraint(&done) == Some("service_accounts_name_key") => {
            anyhow::bail!("another service account has this name: choose one with --name")
        }
        Err(_) if constraint(&done) == Some("service_account_secrets_secret_hash_key") => {
            return Ok(refuse("another service account has this secret: give each its own"));
        }
        Err(_) => {
            done.context("the service accounts cannot be read; has auth-service migrate up been run?")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The constraint that refused.
fn constraint(done: &Result<Setup, ChangeError>) -> Option<&str> {
    match done {
        Err(ChangeError::Database(error)) => error.constraint(),
        _ => None,
    }
}

async fn secret(source: &SecretSource) -> Result<OpaqueToken, String> {
    let (from, text) = match &source.secret_file {
        Some(path) => {
            let text = tokio::fs::read_to_string(path).await;
            let text = text.map_err(|error| format!("--secret-file: {} cannot be read: {error}", path.display()))?;
            ("--secret-file", Zeroizing::new(text))
        }
        None => ("--secret-stdin", text_from_stdin("a secret").await?),
    };
    let secret = text.trim();
    if secret.len() < SHORTEST_SECRET || secret.len() > 1024 || secret.contains(char::is_whitespace) {
        return Err(format!(
            "{from}: expected {SHORTEST_SECRET} characters or more without white space, as openssl rand -base64 32 makes them"
        ));
    }
    Ok(OpaqueToken::presented(secret.to_owned()))
}
