//! Connections and pool on real PostgreSQL clusters.

#![expect(clippy::unwrap_used, reason = "tests may panic")]

mod cluster;
mod database;
mod tls;
