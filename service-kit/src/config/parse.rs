//! Parsing of the command line into one struct, with errors of exactly one line that name the environment variable.

use std::collections::HashMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{Setting, SettingSource};
use crate::postgres::{DatabaseUrl, DatabaseUrlError, TlsSetup};

/// A parsed command line.
#[derive(Debug)]
pub struct Parsed<C> {
    /// The service's own struct.
    pub cli: C,
    /// Every setting of the chosen subcommand that has an environment variable, in `--help` order, secrets masked.
    pub settings: Vec<Setting>,
}

/// Parses the process's arguments and environment. On `--help` and `--version` prints them and gives exit code 0; on a bad or
/// missing value prints one line on stderr and gives exit code 2. An empty environment variable counts as unset.
pub fn parse_cli<C: clap::Parser>() -> Result<Parsed<C>, ExitCode> {
    parse_cli_from(std::env::args_os()).map_err(|error| match error {
        CliError::Display(text) => {
            let _ = text.print();
            ExitCode::SUCCESS
        }
        CliError::Usage(line) => {
            eprintln!("error: {line}");
            ExitCode::from(2)
        }
    })
}

/// Why a command line gave no value.
#[derive(Debug)]
pub enum CliError {
    /// `--help` or `--version`: to be printed, exit code 0.
    Display(clap::Error),
    /// One line for stderr that names the variable and the flag, exit code 2.
    Usage(String),
}

/// [`parse_cli`] for given arguments (the first is the program's name); prints nothing.
pub fn parse_cli_from<C: clap::Parser>(
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<Parsed<C>, CliError> {
    let mut variables = Variables::default();
    let mut command = C::command();
    variables.collect(&mut command);
    let matches = command.clone().try_get_matches_from(arguments);
    let parsed = matches.and_then(|mut matches| {
        let settings = variables.settings(&command, &matches);
        C::from_arg_matches_mut(&mut matches).map(|cli| Parsed { cli, settings })
    });
    parsed.map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            CliError::Display(error)
        }
        _ => CliError::Usage(variables.line(&error)),
    })
}

/// The environment variable behind each flag, remembered before clap sees the command.
#[derive(Default)]
struct Variables {
    by_flag: HashMap<String, Variable>,
}

#[derive(Clone)]
struct Variable {
    name: String,
    help: String,
    secret: bool,
}

impl Variables {
    /// Remembers the variables of `command` and its subcommands; hides empty ones from clap, because deployment tools set
    /// an unused variable to the empty string.
    fn collect(&mut self, command: &mut clap::Command) {
        let taken = std::mem::take(command);
        *command = taken.mut_args(|argument| {
            let Some(name) = argument.get_env().map(|name| name.to_string_lossy().into_owned()) else {
                return argument;
            };
            if let Some(flag) = argument.get_long() {
                let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
                let secret = argument.is_hide_env_values_set();
                self.by_flag.insert(format!("--{flag}"), Variable { name: name.clone(), help, secret });
            }
            let empty = std::env::var_os(&name).is_some_and(|value| value.is_empty());
            if empty { argument.env(None::<&'static str>) } else { argument }
        });
        for subcommand in command.get_subcommands_mut() {
            self.collect(subcommand);
        }
    }

    /// `DATABASE_URL (--database-url <URL>)` for `--database-url <URL>`; the flag alone when no variable stands behind it.
    fn title(&self, flag: &str) -> String {
        match self.find(flag) {
            Some(variable) => format!("{} ({flag})", variable.name),
            None => flag.to_owned(),
        }
    }

    fn find(&self, flag: &str) -> Option<&Variable> {
        self.by_flag.get(flag.split([' ', '=']).next().unwrap_or(flag))
    }

    /// The whole error in one line.
    fn line(&self, error: &clap::Error) -> String {
        let text = |kind| match error.get(kind) {
            Some(ContextValue::String(text)) => Some(text.clone()),
            _ => None,
        };
        let flag = text(ContextKind::InvalidArg);
        match (error.kind(), flag) {
            (ErrorKind::MissingRequiredArgument, _) => {
                let Some(ContextValue::Strings(missing)) = error.get(ContextKind::InvalidArg) else {
                    return first_line(error);
                };
                let missing: Vec<_> = missing.iter().map(|flag| self.missing(flag)).collect();
                missing.join("; ")
            }
            (ErrorKind::ValueValidation | ErrorKind::InvalidValue, Some(flag)) => {
                let value = text(ContextKind::InvalidValue).unwrap_or_default();
                if value.is_empty() && std::error::Error::source(error).is_none() {
                    return format!("{} needs a value", self.title(&flag));
                }
                let shown = match self.find(&flag) {
                    Some(variable) if variable.secret => "the value".to_owned(),
                    _ => format!("\"{}\"", value.escape_debug()),
                };
                let why = match (std::error::Error::source(error), error.get(ContextKind::ValidValue)) {
                    (Some(source), _) => source.to_string(),
                    (None, Some(ContextValue::Strings(valid))) => format!("expected one of {}", valid.join(", ")),
                    _ => "not valid".to_owned(),
                };
                format!("{}: {shown} is not accepted: {}", self.title(&flag), why.replace('\n', " "))
            }
            _ => first_line(error),
        }
    }

    fn missing(&self, flag: &str) -> String {
        match self.find(flag) {
            Some(variable) => {
                let help = variable.help.trim_end_matches('.').replace('\n', " ");
                format!("{} is missing: set it or pass {flag} ({help})", variable.name)
            }
            None => format!("{flag} is missing"),
        }
    }

    /// The settings of the innermost subcommand that was chosen.
    fn settings(&self, command: &clap::Command, matches: &clap::ArgMatches) -> Vec<Setting> {
        if let Some((name, inner)) = matches.subcommand()
            && let Some(subcommand) = command.find_subcommand(name)
        {
            return self.settings(subcommand, inner);
        }
        let known =
            |argument: &clap::Arg| argument.get_long().and_then(|flag| self.by_flag.get(&format!("--{flag}"))).cloned();
        let arguments =
            command.get_arguments().filter_map(|argument| Some((argument.get_id().as_str(), known(argument)?)));
        let setting = |(id, variable): (&str, Variable)| {
            let source = match matches.value_source(id) {
                Some(ValueSource::CommandLine) => SettingSource::CommandLine,
                Some(ValueSource::EnvVariable) => SettingSource::Environment,
                _ => SettingSource::Default,
            };
            let values: Vec<_> =
                matches.get_raw(id).into_iter().flatten().map(|value| value.to_string_lossy().into_owned()).collect();
            let value = (!values.is_empty()).then(|| values.join(","));
            Setting::new(variable.name, value.as_deref(), variable.secret, source)
        };
        arguments.map(setting).collect()
    }
}

/// clap's own text without its tail of usage and tips, in one line.
fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let head = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<_> = head.trim_start_matches("error: ").split_whitespace().collect();
    format!("{}; try --help", words.join(" "))
}

/// Parses `15m`, `30s`, `7d`, `500ms`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "expected a duration such as 500ms, 30s, 15m or 7d".to_owned())
}

/// A URL whose trusted authorities can be read.
pub(super) fn database_url(text: &str) -> Result<DatabaseUrl, String> {
    let url: DatabaseUrl = text.parse().map_err(|error: DatabaseUrlError| error.to_string())?;
    TlsSetup::load(&url).map_err(|error| error.to_string())?;
    Ok(url)
}

/// A PEM file of certificates.
pub(super) fn certificates_file(path: PathBuf) -> Result<PathBuf, String> {
    let contents = contents(&path)?;
    let mut certificates = CertificateDer::pem_slice_iter(&contents).peekable();
    let fits = certificates.peek().is_some() && certificates.all(|certificate| certificate.is_ok());
    fits.then_some(path).ok_or_else(|| "the file holds no certificate; expected PEM".to_owned())
}

/// A PEM file with a private key.
pub(super) fn private_key_file(path: PathBuf) -> Result<PathBuf, String> {
    let fits = PrivateKeyDer::from_pem_slice(&contents(&path)?).is_ok();
    fits.then_some(path).ok_or_else(|| "the file holds no private key; expected PEM".to_owned())
}

fn contents(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("the file cannot be read: {error}"))
}

pub(super) fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "expected IP:PORT such as 0.0.0.0:50051 or [::]:50051".to_owned())
}

pub(super) fn log_filter(text: &str) -> Result<String, String> {
    match tracing_subscriber::EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("expected filter directives such as info or info,service_kit=debug".to_owned()),
    }
}
