//! The command line: what each subcommand takes and does. Exit codes: 0 done, 1 failed, 2 usage or configuration; `migrate` has more.

use std::process::ExitCode;

use migration_engine::cli::{MigrateCommand, Output};
use service_kit::config::{
    DatabaseArgs, ListenArgs, Parsed, Setting, ShutdownArgs, TelemetryArgs, TlsArgs, settings_json, settings_text,
};
use service_kit::telemetry;

use crate::config::{PagingArgs, PeerArgs, TokenArgs};
use crate::{app, migrate, migrations};

/// Tasks over gRPC.
#[derive(Debug, clap::Parser)]
#[command(name = "task-service", version, arg_required_else_help = true)]
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
    pub listen: ListenArgs<50052, 9465>,
    #[command(flatten)]
    pub tls: TlsArgs,
    #[command(flatten)]
    pub tokens: TokenArgs,
    #[command(flatten)]
    pub peer: PeerArgs,
    #[command(flatten)]
    pub paging: PagingArgs,
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
        // One line, however many causes.
        eprintln!("error: {}", format!("{error:#}").replace('\n', " "));
        let is_configuration = error.is::<service_kit::peer::PeerError>()
            || matches!(error.downcast_ref(), Some(service_kit::server::ServeError::Tls(_)));
        if is_configuration { ExitCode::from(2) } else { ExitCode::FAILURE }
    })
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
    use base64::engine::general_purpose::STANDARD;
    use service_kit::config::{CliError, parse_cli_from};

    use super::*;

    fn usage(arguments: &[&str]) -> String {
        match parse_cli_from::<Cli>([&["task-service"], arguments].concat()) {
            Err(CliError::Usage(line)) => line,
            other => panic!("expected a refusal, not {other:?}"),
        }
    }

    const DATABASE: &str = "--database-url=postgres://me:s3cret@localhost/tasks";

    #[test]
    fn the_commands_are_sound() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn a_bad_value_names_its_variable() {
        for bad in ["", "auth:50051", "ftp://auth", "http://", "not a url"] {
            let line = usage(&["config", "check", DATABASE, &format!("--auth-service-url={bad}")]);
            assert!(line.contains("AUTH_SERVICE_URL"), "{line}");
        }
        let line = usage(&["serve", DATABASE, "--auth-service-url=http://a:1", "--page-token-key=c2hvcnQ="]);
        assert!(line.contains("PAGE_TOKEN_KEY") && !line.contains("c2hvcnQ"), "{line}");
    }

    #[test]
    fn a_secret_is_printed_nowhere() {
        let key = STANDARD.encode([7; 32]);
        let arguments =
            ["task-service", "config", "print", DATABASE, "--auth-service-url=http://a:1", "--page-token-key", &key];
        let parsed = parse_cli_from::<Cli>(arguments).unwrap();
        let printed =
            format!("{} {} {:?}", settings_text(&parsed.settings), settings_json(&parsed.settings), parsed.cli);
        assert!(!printed.contains("s3cret") && !printed.contains(&key), "{printed}");
        assert!(printed.contains("AUTH_SERVICE_URL=http://a:1"), "{printed}");
    }
}
