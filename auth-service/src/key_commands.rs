//! `keys list` and `keys rotate`.

use std::process::ExitCode;
use std::time::Duration;

use chrono::{SecondsFormat, TimeDelta, Utc};
use migration_engine::cli::Output;
use service_kit::config::{DatabaseArgs, TelemetryArgs};
use service_kit::database::Database;
use service_kit::telemetry;

use crate::config::{KeyArgs, TokenArgs};
use crate::domain::audit::Origin;
use crate::domain::signing_key::{AFTER_LAST_TOKEN, KeyState, StoredKey};
use crate::store::AuthStore;
use crate::store::signing_keys::KeyRotation;

/// `keys list`.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    telemetry: TelemetryArgs,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// `keys rotate`.
#[derive(Debug, clap::Args)]
pub struct RotateArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    keys: KeyArgs,
    #[command(flatten)]
    tokens: TokenArgs,
    #[command(flatten)]
    telemetry: TelemetryArgs,
    /// When the new key signs its first token: long enough for every service to have fetched it. 0s only in an emergency.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = overlap)]
    activate_in: Duration,
    /// The keys before have leaked: the new one signs at once and theirs are void now, so everybody refreshes or signs in anew.
    #[arg(long, conflicts_with = "activate_in")]
    withdraw: bool,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Lists the keys on stdout.
pub async fn list(args: ListArgs) -> anyhow::Result<ExitCode> {
    telemetry::init_logs(&args.telemetry)?;
    let store = AuthStore::new(Database::new(&args.database.database_url, 1)?);
    print(&store.signing_keys_list().await?, args.output);
    Ok(ExitCode::SUCCESS)
}

/// Rotates and lists the keys.
pub async fn rotate(args: RotateArgs) -> anyhow::Result<ExitCode> {
    telemetry::init_logs(&args.telemetry)?;
    let store = AuthStore::new(Database::new(&args.database.database_url, 1)?);
    let (overlap, access_ttl) =
        (TimeDelta::from_std(args.activate_in)?, TimeDelta::from_std(args.tokens.access_token_ttl)?);
    let rotation = KeyRotation {
        sealing: &args.keys.key_encryption_key.sealing,
        algorithm: args.keys.signing_algorithm,
        overlap: if args.withdraw { TimeDelta::zero() } else { overlap },
        token_life: if args.withdraw { TimeDelta::zero() } else { access_ttl + AFTER_LAST_TOKEN },
    };
    store.signing_key_rotate(None, &rotation, &Origin::default(), Utc::now()).await?;
    print(&store.signing_keys_list().await?, args.output);
    Ok(ExitCode::SUCCESS)
}

fn print(keys: &[StoredKey], output: Output) {
    match output {
        Output::Json => println!("{}", serde_json::Value::Array(keys.iter().map(json).collect())),
        Output::Text => {
            println!(
                "{:<43}  {:<9}  {:<6}  {:<20}  {:<20}  leaves the list",
                "kid", "state", "alg", "signs from", "signs until"
            );
            for key in keys {
                let json = json(key);
                let text = |name: &str| json[name].as_str().unwrap_or("-").to_owned();
                println!(
                    "{:<43}  {:<9}  {:<6}  {:<20}  {:<20}  {}",
                    text("kid"),
                    text("state"),
                    text("algorithm"),
                    text("activates_at"),
                    text("retires_at"),
                    text("expires_at")
                );
            }
        }
    }
}

fn json(key: &StoredKey) -> serde_json::Value {
    let time = |time: chrono::DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
    let state = match key.state(Utc::now()) {
        KeyState::Published => "published",
        KeyState::Active => "active",
        KeyState::Retiring => "retiring",
        KeyState::Expired => "expired",
    };
    serde_json::json!({
        "kid": key.kid,
        "algorithm": key.algorithm,
        "state": state,
        "activates_at": time(key.activates_at),
        "retires_at": key.retires_at.map(time),
        "expires_at": key.expires_at.map(time),
    })
}

fn overlap(text: &str) -> Result<Duration, String> {
    let most = Duration::from_secs(30 * 24 * 3600);
    let duration = humantime::parse_duration(text).ok().filter(|duration| *duration <= most);
    duration.ok_or_else(|| "expected a duration from 0s to 30d, such as 5m".to_owned())
}
