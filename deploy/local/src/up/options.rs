//! The command line of `cargo up`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

/// Flags of `cargo up`.
#[derive(Debug, Clone, Args)]
pub struct UpOptions {
    /// Adopt an existing database: load this plain SQL dump into one new database for both services and migrate it
    #[arg(long, value_name = "FILE.sql")]
    pub restore: Option<PathBuf>,
    /// Address of auth-service; port 0 picks a free one
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:50051")]
    pub auth_addr: SocketAddr,
    /// Address of task-service; port 0 picks a free one
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:50052")]
    pub task_addr: SocketAddr,
    /// Where the database, the secrets, the logs and the mails are kept
    #[arg(long, value_name = "DIR", default_value = ".local")]
    pub dir: PathBuf,
    /// Remove what earlier runs left in DIR and start over
    #[arg(long)]
    pub fresh: bool,
    /// Build the services with optimisation
    #[arg(long)]
    pub release: bool,
}
