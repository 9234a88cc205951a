//! The command line: what each subcommand takes and does. Exit codes: 0 done, 1 failed, 2 usage or configuration;
//! `admin bootstrap` and `admin service-account` have 3, `migrate` has more.

use std::process::ExitCode;

use migration_engine::cli::{MigrateCommand, Output};
use service_kit::config::{
    DatabaseArgs, ListenArgs, Parsed, Setting, ShutdownArgs, TelemetryArgs, TlsArgs, settings_json, settings_text,
};
use service_kit::server::ServeError;
use service_kit::telemetry;

use crate::config::{AccountArgs, HashingArgs, KeyAgeArgs, KeyArgs, MailArgs, PasswordArgs, PeerArgs, TokenArgs};
use crate::service_account_command::{self, ServiceAccountArgs};
use crate::{admin, app, key_commands, migrate, migrations};

/// Users, roles and tokens over gRPC.
#[derive(Debug, clap::Parser)]
#[command(name = "auth-service", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Serve gRPC until SIGTERM or SIGINT.
    Serve(Box<ServeArgs>),
    /// Make, check and mend the schema of the database.
    Migrate(Box<MigrateArgs>),
    /// Make or reset an administrator or a service account; hash a password.
    #[command(subcommand)]
    Admin(AdminCommand),
    /// List and rotate the keys that sign access tokens.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Check or print the configuration of `serve`.
    #[command(subcommand)]
    Config(ConfigCommand),
}

/// Everything that `serve` can be told.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub database: DatabaseArgs,
    #[command(flatten)]
    pub listen: ListenArgs<50051, 9464>,
    #[command(flatten)]
    pub tls: TlsArgs,
    #[command(flatten)]
    pub tokens: TokenArgs,
    #[command(flatten)]
    pub keys: KeyArgs,
    #[command(flatten)]
    pub key_age: KeyAgeArgs,
    #[command(flatten)]
    pub passwords: PasswordArgs,
    #[command(flatten)]
    pub hashing: HashingArgs,
    #[command(flatten)]
    pub accounts: AccountArgs,
    #[command(flatten)]
    pub peer: PeerArgs,
    #[command(flatten)]
    pub mail: MailArgs,
    #[command(flatten)]
    pub shutdown: ShutdownArgs,
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

#[derive(Debug, clap::Args)]
struct MigrateArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    telemetry: TelemetryArgs,
    #[command(subcommand)]
    command: MigrateCommand,
}

#[derive(Debug, clap::Subcommand)]
enum AdminCommand {
    /// Make the first administrator, or find it as asked and do nothing; another password or role is reported and left alone
    /// (exit 3) unless --reset.
    Bootstrap(Box<admin::BootstrapArgs>),
    /// Read a password from stdin and print its Argon2id hash as a PHC string.
    HashPassword(admin::HashPasswordArgs),
    /// Make the account with which one of our own programs signs in, find it, or reset it.
    ServiceAccount(Box<ServiceAccountArgs>),
}

#[derive(Debug, clap::Subcommand)]
enum KeysCommand {
    /// List the signing keys: id, state, times. Shows no private part and needs none.
    List(Box<key_commands::ListArgs>),
    /// Publish a new signing key that signs once every service knows it; the others retire then.
    Rotate(Box<key_commands::RotateArgs>),
}

#[derive(Debug, clap::Subcommand)]
enum ConfigCommand {
    /// Read the configuration of `serve` and say whether it is valid; connects to nothing.
    Check(Box<ServeArgs>),
    /// Print the configuration of `serve`, secrets masked.
    Print(Box<PrintArgs>),
}

#[derive(Debug, clap::Args)]
struct PrintArgs {
    #[command(flatten)]
    serve: ServeArgs,
    /// How to print: NAME=value lines, or a JSON array.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Runs the chosen subcommand.
pub fn run(parsed: Parsed<Cli>) -> ExitCode {
    let done = match parsed.cli.command {
        Command::Serve(args) => run_async(serve(*args)).map(|()| ExitCode::SUCCESS),
        Command::Migrate(args) => run_async(run_migrate(*args)),
        Command::Admin(AdminCommand::Bootstrap(args)) => run_async(admin::bootstrap(*args)),
        Command::Admin(AdminCommand::ServiceAccount(args)) => run_async(service_account_command::run(*args)),
        Command::Admin(AdminCommand::HashPassword(args)) => run_async(admin::hash_password(args)),
        Command::Keys(KeysCommand::List(args)) => run_async(key_commands::list(*args)),
        Command::Keys(KeysCommand::Rotate(args)) => run_async(key_commands::rotate(*args)),
        Command::Config(ConfigCommand::Check(args)) => run_async(async { app::configuration_check(&args) }).map(|()| {
            println!("the configuration is valid");
            ExitCode::SUCCESS
        }),
        Command::Config(ConfigCommand::Print(args)) => {
            print_settings(&parsed.settings, args.output);
            Ok(ExitCode::SUCCESS)
        }
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {}", one_line(&error));
        let is_configuration = error.is::<app::ConfigurationError>()
            || error.is::<service_kit::peer::PeerError>()
            || matches!(error.downcast_ref::<ServeError>(), Some(ServeError::Tls(_)));
        if is_configuration { ExitCode::from(2) } else { ExitCode::FAILURE }
    })
}

/// An error and its causes in one line; a cause that only repeats what stands there is left out.
fn one_line(error: &anyhow::Error) -> String {
    let line = error.chain().map(ToString::to_string).reduce(|line, cause| match line.contains(&cause) {
        true => line,
        false => format!("{line}: {cause}"),
    });
    line.unwrap_or_default().replace('\n', " ")
}

fn run_async<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let metrics = telemetry::init(&args.telemetry)?;
    app::serve(args, metrics).await
}

async fn run_migrate(args: MigrateArgs) -> anyhow::Result<ExitCode> {
    telemetry::init_logs(&args.telemetry)?;
    let connector = migrate::EngineConnections::new(args.database.database_url);
    let code = migration_engine::cli::run(&args.command, &migrations::set()?, &connector).await;
    Ok(code.into())
}

fn print_settings(settings: &[Setting], output: Output) {
    match output {
        Output::Text => print!("{}", settings_text(settings)),
        Output::Json => println!("{}", settings_json(settings)),
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use service_kit::config::{CliError, parse_cli_from};

    use super::*;

    const DATABASE: &str = "--database-url=postgres://me:s3cret@localhost/auth";
    const PEER: &str = "--task-service-url=http://task:1";

    fn key(bytes: usize) -> String {
        base64::engine::general_purpose::STANDARD.encode(vec![7; bytes])
    }

    fn usage(arguments: &[&str]) -> String {
        match parse_cli_from::<Cli>([&["auth-service"], arguments].concat()) {
            Err(CliError::Usage(line)) => line,
            other => panic!("expected a refusal, not {other:?}"),
        }
    }

    #[test]
    fn the_commands_are_sound() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn a_bad_or_missing_value_names_its_variable_in_one_line() {
        let key_given = format!("--key-encryption-key={}", key(32));
        for (extra, variable) in [
            (vec![PEER], "KEY_ENCRYPTION_KEY"),
            (vec![PEER, "--key-encryption-key=c2hvcnQ="], "KEY_ENCRYPTION_KEY"),
            (vec![key_given.as_str()], "TASK_SERVICE_URL"),
            (vec![key_given.as_str(), "--task-service-url=task:50052"], "TASK_SERVICE_URL"),
            (vec![key_given.as_str(), PEER, "--password-hash-memory-kib=19455"], "PASSWORD_HASH_MEMORY_KIB"),
            (vec![key_given.as_str(), PEER, "--password-hash-iterations=1"], "PASSWORD_HASH_ITERATIONS"),
            (vec![key_given.as_str(), PEER, "--access-token-ttl=0s"], "ACCESS_TOKEN_TTL"),
            (vec![key_given.as_str(), PEER, "--refresh-token-ttl=forever"], "REFRESH_TOKEN_TTL"),
            (vec![key_given.as_str(), PEER, "--smtp-url=mail:25"], "SMTP_URL"),
        ] {
            let line = usage(&[vec!["serve", DATABASE], extra].concat());
            assert!(line.contains(variable) && !line.contains('\n') && !line.contains("c2hvcnQ"), "{line}");
        }
    }

    #[test]
    fn a_secret_is_printed_nowhere() {
        let key = key(32);
        let arguments = [
            "auth-service",
            "config",
            "print",
            DATABASE,
            PEER,
            "--key-encryption-key",
            &key,
            "--smtp-url=smtp://u:hush@mail",
        ];
        let parsed = parse_cli_from::<Cli>(arguments).unwrap();
        let printed =
            format!("{} {} {:?}", settings_text(&parsed.settings), settings_json(&parsed.settings), parsed.cli);
        assert!(!printed.contains("s3cret") && !printed.contains(&key), "{printed}");
        assert!(!settings_text(&parsed.settings).contains("hush"), "{printed}");
        assert!(printed.contains("JWT_ISSUER=auth-service") && printed.contains("ACCESS_TOKEN_TTL=15m"), "{printed}");
    }
}
