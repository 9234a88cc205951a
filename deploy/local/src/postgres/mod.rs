//! A private PostgreSQL: binaries, cluster, databases with least-privilege roles, plain dumps, a cluster shared by test runs.

mod account;
mod binaries;
mod cluster;
mod databases;
mod error;
mod load;
mod ownership;
mod place;
mod shared;

pub use binaries::{OLDEST_MAJOR, PostgresBinaries};
pub use cluster::{Cluster, ClusterOptions, SUPERUSER};
pub use databases::{
    DatabaseRoles, Role, ServerAddress, connect, database_create, database_drop, database_exists, database_grant,
    quote_identifier, quote_literal, roles_ensure,
};
pub use error::PostgresError;
pub use load::{Dump, LoadReport};
pub use ownership::database_adopt;
pub use shared::{SharedCluster, watch_cluster};
