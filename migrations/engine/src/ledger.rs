//! The engine's own memory, beside Diesel's history: a row per run that changed something, and which service each
//! version belongs to (services may share one database, and then one history).

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::error::EngineError;
use crate::report::UpReport;
use crate::set::MigrationSet;

/// Made with the history, under the same lock.
pub(crate) const CREATE: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS public.__migration_runs (\
        id uuid PRIMARY KEY, service text NOT NULL, command text NOT NULL, binary_version text NOT NULL, \
        database_user text NOT NULL DEFAULT session_user, client_address text DEFAULT host(inet_client_addr()), \
        started_at timestamptz NOT NULL, finished_at timestamptz NOT NULL DEFAULT clock_timestamp(), \
        outcome text NOT NULL, error text, actions jsonb NOT NULL, data_changes jsonb NOT NULL)",
    "CREATE TABLE IF NOT EXISTS public.__migration_versions (\
        service text NOT NULL, version text NOT NULL, checksum text NOT NULL, run_id uuid NOT NULL, \
        verified_at timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (service, version))",
];

/// What the tables must have, as `name type`, to be read and written. Another application may have the names.
pub(crate) const SHAPES: &[(&str, &[&str])] = &[
    (
        "__migration_runs",
        &[
            "id uuid",
            "service text",
            "command text",
            "binary_version text",
            "database_user text",
            "started_at timestamp with time zone",
            "finished_at timestamp with time zone",
            "outcome text",
            "error text",
            "actions jsonb",
            "data_changes jsonb",
        ],
    ),
    ("__migration_versions", &["service text", "version text", "checksum text", "run_id uuid"]),
];

/// The last run, for `status`.
#[derive(Clone, Debug, Serialize)]
pub struct LastRun {
    /// The run's id.
    pub id: Uuid,
    /// Which command.
    pub command: String,
    /// Version of the binary.
    pub binary_version: String,
    /// Who ran it.
    pub database_user: String,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: DateTime<Utc>,
    /// `done` or `failed`.
    pub outcome: String,
    /// Why it failed.
    pub error: Option<String>,
}

/// Versions that the ledger gives to other services.
pub(crate) async fn foreign_versions(client: &Client, service: &str) -> Result<BTreeSet<String>, EngineError> {
    if !usable(client, SHAPES[1].0, SHAPES[1].1).await? {
        return Ok(BTreeSet::new());
    }
    let rows = client.query("SELECT version FROM public.__migration_versions WHERE service <> $1", &[&service]).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// The last run of a service.
pub(crate) async fn last_run(client: &Client, service: &str) -> Result<Option<LastRun>, EngineError> {
    if !usable(client, SHAPES[0].0, SHAPES[0].1).await? {
        return Ok(None);
    }
    let row = client
        .query_opt(
            "SELECT id, command, binary_version, database_user, started_at, finished_at, outcome, error
             FROM public.__migration_runs WHERE service = $1 ORDER BY finished_at DESC LIMIT 1",
            &[&service],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(LastRun {
        id: row.try_get(0)?,
        command: row.try_get(1)?,
        binary_version: row.try_get(2)?,
        database_user: row.try_get(3)?,
        started_at: row.try_get(4)?,
        finished_at: row.try_get(5)?,
        outcome: row.try_get(6)?,
        error: row.try_get(7)?,
    }))
}

/// Writes the row of a run, and after success the versions it has verified.
pub(crate) async fn write(
    client: &Client,
    set: &MigrationSet,
    started_at: DateTime<Utc>,
    report: &UpReport,
    error: Option<&str>,
) -> Result<(), EngineError> {
    let id = Uuid::now_v7();
    let (actions, data_changes) = (serde_json::json!(report.actions), serde_json::json!(report.data_changes));
    let outcome = if error.is_none() { "done" } else { "failed" };
    client
        .execute(
            "INSERT INTO public.__migration_runs (id, service, command, binary_version, started_at, outcome, error, actions, data_changes)
             VALUES ($1, $2, 'up', $3, $4, $5, $6, $7, $8)",
            &[&id, &set.service, &env!("CARGO_PKG_VERSION"), &started_at, &outcome, &error, &actions, &data_changes],
        )
        .await?;
    if error.is_none() {
        for migration in &set.migrations {
            let known = client
                .execute(
                    "UPDATE public.__migration_versions SET checksum = $3 WHERE service = $1 AND version = $2",
                    &[&set.service, &migration.version, &migration.checksum],
                )
                .await?;
            if known == 0 {
                client
                    .execute(
                        "INSERT INTO public.__migration_versions (service, version, checksum, run_id) VALUES ($1, $2, $3, $4)",
                        &[&set.service, &migration.version, &migration.checksum, &id],
                    )
                    .await?;
            }
        }
    }
    Ok(())
}

/// Whether something has the name.
pub(crate) async fn there(client: &Client, table: &str) -> Result<bool, EngineError> {
    let row = client.query_one("SELECT pg_catalog.to_regclass('public.' || $1::text) IS NOT NULL", &[&table]).await?;
    Ok(row.try_get(0)?)
}

/// Whether it is a table with these columns.
pub(crate) async fn usable(client: &Client, table: &str, columns: &[&str]) -> Result<bool, EngineError> {
    Ok(shape(client, table, columns).await?.0)
}

/// Whether a row of ours can be written too: no further column demands a value.
pub(crate) async fn writable(client: &Client, table: &str, columns: &[&str]) -> Result<bool, EngineError> {
    let (usable, demanding) = shape(client, table, columns).await?;
    Ok(usable && !demanding)
}

async fn shape(client: &Client, table: &str, columns: &[&str]) -> Result<(bool, bool), EngineError> {
    let row = client
        .query_one(
            "SELECT coalesce(pg_catalog.array_agg(a.attname || ' ' || pg_catalog.format_type(a.atttypid, a.atttypmod)) @> $2::text[], false),
                coalesce(pg_catalog.bool_or(a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''
                    AND a.attname || ' ' || pg_catalog.format_type(a.atttypid, a.atttypmod) <> ALL ($2)), false)
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             WHERE c.oid = pg_catalog.to_regclass('public.' || $1::text) AND c.relkind = 'r'",
            &[&table, &columns],
        )
        .await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}
