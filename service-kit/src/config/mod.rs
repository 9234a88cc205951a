//! Command line and environment: one struct per concern, every variable with an equal flag.
//!
//! | variable | struct | default |
//! |---|---|---|
//! | `DATABASE_URL` | [`DatabaseArgs`] | required |
//! | `DATABASE_MAX_CONNECTIONS` | [`DatabaseArgs`] | 16 |
//! | `LISTEN_ADDR`, `METRICS_ADDR` | [`ListenArgs`] | the service's ports, on all interfaces |
//! | `TLS_CERT_FILE`, `TLS_KEY_FILE`, `TLS_CLIENT_CA_FILE` | [`TlsArgs`] | unset: plain text |
//! | `LOG_FORMAT`, `RUST_LOG`, `OTEL_EXPORTER_OTLP_ENDPOINT` | [`TelemetryArgs`] | text on a terminal, else json; `info`; unset |
//! | `SHUTDOWN_PROPAGATION`, `SHUTDOWN_DRAIN` | [`ShutdownArgs`] | 5s, 30s |
//!
//! A service flattens these into its own `clap` structs and starts with [`parse_cli`]. An argument whose value is a secret says
//! `hide_env_values = true`; that keeps it out of `--help`, out of error lines and masked in `config print`.

mod parse;
mod settings;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PathBufValueParser, TypedValueParser as _};

use crate::postgres::DatabaseUrl;
use crate::server::ServeError;

pub use parse::{CliError, Parsed, parse_cli, parse_cli_from};
pub use settings::{Setting, SettingSource, settings_json, settings_text};

/// The database and the size of its pool.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Database")]
pub struct DatabaseArgs {
    /// PostgreSQL URL: postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full&sslrootcert=FILE.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL", value_parser = parse::database_url)]
    pub database_url: DatabaseUrl,
    /// Most connections this process opens to the database.
    #[arg(long, env = "DATABASE_MAX_CONNECTIONS", value_name = "COUNT", default_value_t = 16,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub database_max_connections: u32,
}

/// Where the service listens; `GRPC` and `METRICS` are the service's default ports.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Listening")]
pub struct ListenArgs<const GRPC: u16, const METRICS: u16> {
    /// Address of the gRPC server; port 0 picks a free one.
    #[arg(long, env = "LISTEN_ADDR", value_name = "IP:PORT", default_value_t = all_interfaces(GRPC), value_parser = parse::socket_address)]
    pub listen_addr: SocketAddr,
    /// Address of /metrics, /livez and /readyz over HTTP; port 0 picks a free one.
    #[arg(long, env = "METRICS_ADDR", value_name = "IP:PORT", default_value_t = all_interfaces(METRICS), value_parser = parse::socket_address)]
    pub metrics_addr: SocketAddr,
}

/// The two addresses of [`ListenArgs`] without the defaults in the type.
#[derive(Debug, Clone, Copy)]
pub struct ListenAddresses {
    /// gRPC.
    pub grpc: SocketAddr,
    /// HTTP: `/metrics`, `/livez`, `/readyz`.
    pub metrics: SocketAddr,
}

impl<const GRPC: u16, const METRICS: u16> From<ListenArgs<GRPC, METRICS>> for ListenAddresses {
    fn from(args: ListenArgs<GRPC, METRICS>) -> Self {
        Self { grpc: args.listen_addr, metrics: args.metrics_addr }
    }
}

/// TLS of the gRPC server. The files are read again when they change.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "TLS")]
pub struct TlsArgs {
    /// Certificate chain of this server, PEM; TLS is on when it is set.
    #[arg(long, env = "TLS_CERT_FILE", value_name = "FILE", requires = "tls_key_file",
          value_parser = PathBufValueParser::new().try_map(parse::certificates_file))]
    pub tls_cert_file: Option<PathBuf>,
    /// Private key of the certificate, PEM.
    #[arg(long, env = "TLS_KEY_FILE", value_name = "FILE", requires = "tls_cert_file",
          value_parser = PathBufValueParser::new().try_map(parse::private_key_file))]
    pub tls_key_file: Option<PathBuf>,
    /// Authorities of client certificates, PEM; when set, every client must show one (mutual TLS).
    #[arg(long, env = "TLS_CLIENT_CA_FILE", value_name = "FILE", requires = "tls_cert_file",
          value_parser = PathBufValueParser::new().try_map(parse::certificates_file))]
    pub tls_client_ca_file: Option<PathBuf>,
}

impl TlsArgs {
    /// Whether the files fit together. Parsing has found that each is there and of its kind; this completes a configuration
    /// check that opens no port.
    ///
    /// # Errors
    /// [`ServeError::Tls`], which names the variables.
    pub fn check(&self) -> Result<(), ServeError> {
        crate::server::check_tls(self)
    }
}

/// Form of the log lines on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

/// Logs and traces.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Telemetry")]
pub struct TelemetryArgs {
    /// Form of the log on stderr [default: text on a terminal, else json].
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,
    /// What is logged, as `tracing` filter directives.
    #[arg(long, env = "RUST_LOG", value_name = "FILTER", default_value = "info", value_parser = parse::log_filter)]
    pub rust_log: String,
    /// OTLP endpoint for traces; this version exports none and says so when it is set.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otel_exporter_otlp_endpoint: Option<String>,
}

/// How the service ends: NOT_SERVING, a pause until callers know, then a bounded drain.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Shutdown")]
pub struct ShutdownArgs {
    /// Pause between NOT_SERVING and the end of accepting, for load balancers to notice.
    #[arg(long, env = "SHUTDOWN_PROPAGATION", value_name = "DURATION", default_value = "5s", value_parser = parse::duration)]
    pub shutdown_propagation: Duration,
    /// Longest wait for calls in flight after that; what is still open then is cut.
    #[arg(long, env = "SHUTDOWN_DRAIN", value_name = "DURATION", default_value = "30s", value_parser = parse::duration)]
    pub shutdown_drain: Duration,
}

fn all_interfaces(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))
}
