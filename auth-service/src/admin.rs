//! `admin bootstrap` and `admin hash-password`.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use chrono::{DateTime, SubsecRound as _, Utc};
use service_kit::config::{DatabaseArgs, TelemetryArgs};
use service_kit::database::{Database, DatabaseError};
use service_kit::telemetry;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::config::PasswordArgs;
use crate::domain::account::{Email, Username};
use crate::domain::login_key::fold;
use crate::domain::password::{HashingPool, StoredHash, check_new_password};
use crate::domain::user::NewUser;
use crate::flows::{FlowError, name_taken};
use crate::store::AuthStore;
use crate::store::administrators::ExistingAccount;
use crate::store::roles::ADMIN;

/// Usage or configuration.
const USAGE: u8 = 2;
/// An account is there and is not as asked.
pub const DIFFERENT: u8 = 3;
/// Most bytes that are read from stdin or a hash file.
const MOST_INPUT: u64 = 64 * 1024;

/// `admin bootstrap`.
#[derive(Debug, clap::Args)]
pub struct BootstrapArgs {
    /// E-mail address of the administrator.
    #[arg(long, value_name = "EMAIL")]
    email: String,
    /// User name of a new account [default: what stands before the @, with a number where that is taken].
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    #[command(flatten)]
    source: HashSource,
    /// Give an account that is there this password and the admin role, activate it and end its sessions.
    #[arg(long)]
    reset: bool,
    #[command(flatten)]
    passwords: PasswordArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    telemetry: TelemetryArgs,
}

/// Where the password comes from.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct HashSource {
    /// Argon2id PHC string of the password, in single quotes: a shell eats the $ signs otherwise.
    #[arg(long, value_name = "PHC")]
    password_hash: Option<String>,
    /// File with the PHC string; white space around it does not count.
    #[arg(long, value_name = "FILE")]
    password_hash_file: Option<PathBuf>,
    /// Read the password itself from stdin; one line break at its end does not count.
    #[arg(long)]
    password_stdin: bool,
}

/// `admin hash-password`.
#[derive(Debug, clap::Args)]
pub struct HashPasswordArgs {
    #[command(flatten)]
    passwords: PasswordArgs,
}

/// What was given to set.
enum Wanted {
    /// A PHC string within the bounds.
    Hash(String),
    /// A password that keeps the rules.
    Password(Zeroizing<String>),
}

/// What the command works with.
struct Tools {
    store: AuthStore,
    hashing: HashingPool,
    now: DateTime<Utc>,
}

/// Makes, finds or resets an administrator.
pub async fn bootstrap(args: BootstrapArgs) -> anyhow::Result<ExitCode> {
    telemetry::init_logs(&args.telemetry)?;
    // All that can be wrong with the arguments comes before the first connection.
    let wanted = match parse(&args).await {
        Ok(parsed) => parsed,
        Err(line) => return Ok(refuse(&line)),
    };
    let tools = Tools {
        store: AuthStore::new(Database::new(&args.database.database_url, 1)?),
        hashing: HashingPool::start(args.passwords.pool_of_one())?,
        now: Utc::now().trunc_subsecs(6),
    };
    let found = account_of(&tools.store, &args).await;
    match found.context("the accounts cannot be read; has auth-service migrate up been run?")? {
        None => create(&tools, &args, &wanted).await,
        Some(account) => {
            if args.username.as_deref().is_some_and(|name| name != account.username) {
                eprintln!("note: account {} has another user name, which stays", account.id);
            }
            settle(&tools, &account, &wanted, args.reset).await
        }
    }
}

/// By the address as it was typed: an account from before today's rules must be found too.
async fn account_of(store: &AuthStore, args: &BootstrapArgs) -> Result<Option<ExistingAccount>, DatabaseError> {
    store.account_by_email(&args.email, &fold(&args.email)).await
}

/// Reads a password from stdin and prints its hash.
pub async fn hash_password(args: HashPasswordArgs) -> anyhow::Result<ExitCode> {
    if let Some((variable, reason)) = args.passwords.conflict() {
        return Ok(refuse(&format!("{variable}: {reason}")));
    }
    let password = match password_from_stdin().await {
        Ok(password) => password,
        Err(line) => return Ok(refuse(&line)),
    };
    if let Err(problem) = check_new_password(&password, "", "") {
        eprintln!("warning: a new account would not be given this password: {problem}");
    }
    println!("{}", HashingPool::start(args.passwords.pool_of_one())?.hash(&password).await?);
    Ok(ExitCode::SUCCESS)
}

async fn parse(args: &BootstrapArgs) -> Result<Wanted, String> {
    if let Some((variable, reason)) = args.passwords.conflict() {
        return Err(format!("{variable}: {reason}"));
    }
    if args.email.trim().is_empty() {
        return Err("--email: expected an e-mail address such as name@example.com".to_owned());
    }
    let username = args.username.as_deref().or_else(|| args.email.split('@').next()).unwrap_or_default();
    let hash = |flag: &str, text: &str| {
        let parsed =
            StoredHash::parse_within(text, &args.passwords.bounds()).map_err(|error| format!("{flag}: {error}"))?;
        if parsed.is_weaker_than(args.passwords.cost()) {
            eprintln!(
                "note: this hash costs less than the configured one; the first sign-in replaces it, and then it counts as another hash here"
            );
        }
        Ok::<_, String>(Wanted::Hash(text.to_owned()))
    };
    Ok(match &args.source {
        HashSource { password_hash: Some(text), .. } => hash("--password-hash", text.trim())?,
        HashSource { password_hash_file: Some(path), .. } => {
            let text = tokio::fs::read_to_string(path).await;
            let text =
                text.map_err(|error| format!("--password-hash-file: {} cannot be read: {error}", path.display()))?;
            hash("--password-hash-file", text.trim())?
        }
        HashSource { .. } => {
            let password = password_from_stdin().await?;
            let checked = check_new_password(&password, &args.email, username);
            checked.map_err(|problem| format!("--password-stdin: {problem}"))?;
            Wanted::Password(password)
        }
    })
}

/// What a new account would be called: its address, and the user names to try in turn. Only here the rules for new accounts count.
fn names(args: &BootstrapArgs) -> Result<(Email, Vec<Username>), String> {
    let email = Email::parse(&args.email).map_err(|problem| format!("--email: {problem}"))?;
    let usernames = match &args.username {
        Some(name) => vec![Username::parse(name).map_err(|problem| format!("--username: {problem}"))?],
        None => email.usernames().collect(),
    };
    Ok((email, usernames))
}

/// Makes the account; when another run has just made it, that one is settled like any that is there.
async fn create(tools: &Tools, args: &BootstrapArgs, wanted: &Wanted) -> anyhow::Result<ExitCode> {
    let (email, usernames) = match names(args) {
        Ok(names) => names,
        Err(line) => return Ok(refuse(&line)),
    };
    let hash = hash_of(tools, wanted).await?;
    for username in usernames {
        let user = NewUser { id: Uuid::now_v7(), email: email.clone(), username };
        let taken = match tools.store.administrator_create(&user, &hash, tools.now).await.map_err(name_taken) {
            Ok(()) => {
                println!("created administrator {}", user.id);
                return Ok(ExitCode::SUCCESS);
            }
            Err(taken @ (FlowError::EmailTaken | FlowError::UsernameTaken)) => taken,
            Err(error) => return Err(error.into()),
        };
        if let Some(account) = account_of(&tools.store, args).await? {
            return settle(tools, &account, wanted, args.reset).await;
        }
        if matches!(taken, FlowError::EmailTaken) {
            return Err(taken.into());
        }
    }
    anyhow::bail!("another account has this user name: choose one with --username")
}

/// An account is there: as asked, to be reset, or to be reported.
async fn settle(tools: &Tools, account: &ExistingAccount, wanted: &Wanted, reset: bool) -> anyhow::Result<ExitCode> {
    let id = account.id;
    if reset {
        let ended = tools.store.administrator_reset(id, &hash_of(tools, wanted).await?, tools.now).await?;
        println!("reset account {id}: password set, role {ADMIN}, active, {ended} session(s) ended");
        return Ok(ExitCode::SUCCESS);
    }
    let mut differences = Vec::new();
    if !has_password(tools, account, wanted).await? {
        differences.push("another password hash".to_owned());
    }
    if account.role != ADMIN {
        differences.push(format!("the role {}", account.role));
    }
    if !account.is_active {
        differences.push("been deactivated".to_owned());
    }
    if differences.is_empty() {
        println!("administrator {id} is there as asked");
        return Ok(ExitCode::SUCCESS);
    }
    let differences = differences.join(" and ");
    eprintln!(
        "error: account {id} is there but has {differences}; it is left as it is; to set it as asked add --reset"
    );
    Ok(ExitCode::from(DIFFERENT))
}

async fn has_password(tools: &Tools, account: &ExistingAccount, wanted: &Wanted) -> anyhow::Result<bool> {
    match wanted {
        Wanted::Hash(hash) => Ok(*hash == account.password_hash),
        Wanted::Password(password) => match StoredHash::parse(&account.password_hash) {
            Ok(stored) => Ok(tools.hashing.verify(password, Some(stored)).await?),
            Err(_) => Ok(false),
        },
    }
}

async fn hash_of(tools: &Tools, wanted: &Wanted) -> anyhow::Result<String> {
    match wanted {
        Wanted::Hash(hash) => Ok(hash.clone()),
        Wanted::Password(password) => Ok(tools.hashing.hash(password).await?),
    }
}

/// The whole of stdin without one line break at its end.
async fn password_from_stdin() -> Result<Zeroizing<String>, String> {
    let text = text_from_stdin("a password").await?;
    let password = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    match password.is_empty() {
        true => Err("stdin: expected a password, found nothing".to_owned()),
        false => Ok(Zeroizing::new(password.to_owned())),
    }
}

/// The whole of stdin; `what` is expected there.
pub async fn text_from_stdin(what: &str) -> Result<Zeroizing<String>, String> {
    let read = tokio::task::spawn_blocking(|| {
        let mut text = Zeroizing::new(String::new());
        std::io::stdin().take(MOST_INPUT).read_to_string(&mut text).map(|_| text)
    });
    let text = read.await.map_err(|error| format!("stdin: {error}"))?;
    text.map_err(|error| format!("stdin: expected {what} in UTF-8: {error}"))
}

/// Says what is wrong with the arguments.
pub fn refuse(line: &str) -> ExitCode {
    eprintln!("error: {}", line.replace('\n', " "));
    ExitCode::from(USAGE)
}
