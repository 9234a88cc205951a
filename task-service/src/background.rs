//! What runs beside the calls, each under the supervisor: the readiness latches, the fetching of keys, the end of rows whose time is over.

use std::time::{Duration, SystemTime};

use auth_client::{ChannelSource, Revocations, ServiceCredentials, Verifier};
use migration_engine::{MigrationSet, State};
use service_kit::database::Database;
use service_kit::readiness::Readiness;
use service_kit::tasks::{Supervisor, TaskError};
use tokio_util::sync::CancellationToken;

use crate::domain::time::now;
use crate::migrate::EngineConnections;
use crate::store::TaskStore;
use crate::watch::Feed;

/// Latch: the database answers.
pub const DATABASE: &str = "database";
/// Latch: the schema is the expected one.
pub const SCHEMA: &str = "schema";
/// Latch: there are keys to check tokens with.
pub const KEYS: &str = "keys";

/// Latch: revocations arrive; only where they are followed.
pub const REVOCATIONS: &str = "revocations";

/// A dead stream is noticed within about this time.
const REVOCATIONS_INTERVAL: Duration = Duration::from_millis(500);
/// A lost database is noticed within about this time.
const DATABASE_INTERVAL: Duration = Duration::from_secs(2);
/// The catalog is compared this often while it fits, so that drift is noticed.
const SCHEMA_INTERVAL: Duration = Duration::from_secs(30);
/// And this often while it does not: a start waits for the migration.
const SCHEMA_RETRY: Duration = Duration::from_secs(1);
/// One comparison takes a handful of round trips.
const SCHEMA_TIMEOUT: Duration = Duration::from_secs(10);
/// Expired rows cost only space, and the log of changes is read by nobody after its time.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// The first time comes soon: a service that is restarted often would never get there.
const EXPIRY_FIRST: Duration = Duration::from_secs(10);
/// Between two batches, so that the calls come first.
const EXPIRY_PAUSE: Duration = Duration::from_millis(20);

/// What the tasks work with.
pub struct Parts {
    pub database: Database,
    pub connector: EngineConnections,
    pub migrations: MigrationSet,
    pub verifier: Verifier,
    pub store: TaskStore,
    pub revocations: Option<Following>,
    pub feed: Feed,
}

/// How revocations are followed.
pub struct Following {
    /// What is known.
    pub revocations: Revocations,
    /// The way to the auth service.
    pub channel: ChannelSource,
    /// Who asks.
    pub credentials: ServiceCredentials,
}

/// Spawns all of them.
pub fn spawn_all(supervisor: &Supervisor, readiness: &Readiness, parts: Parts) {
    let Parts { database, connector, migrations, verifier, store, revocations, feed } = parts;
    let (latches, keys) = (readiness.clone(), verifier.clone());
    supervisor.spawn("keys_watch", |stop| keys_watch(keys, latches, stop));
    if let Some(Following { revocations, channel, credentials }) = revocations {
        let (watched, latches, news) = (revocations.clone(), readiness.clone(), verifier.clone());
        readiness.set(REVOCATIONS, Err("no revocations from the auth service yet"));
        supervisor.spawn("revocations_watch", |stop| revocations_watch(watched, latches, stop));
        supervisor.spawn("revocations_follow", |stop| async move {
            revocations.run(channel, credentials, news, stop).await;
            Ok(())
        });
    }
    supervisor.spawn("keys_fetch", |stop| async move {
        verifier.run(stop).await;
        Ok(())
    });
    let latches = readiness.clone();
    supervisor.spawn("database_watch", |stop| database_watch(database, latches, stop));
    let latches = readiness.clone();
    supervisor.spawn("schema_watch", |stop| schema_watch(connector, migrations, latches, stop));
    let (changes, latches) = (store.clone(), readiness.clone());
    supervisor.spawn("changes_feed", |stop| feed.run(changes, latches, stop));
    supervisor.spawn("rows_expire", |stop| rows_expire(store, stop));
}

async fn database_watch(database: Database, readiness: Readiness, stop: CancellationToken) -> Result<(), TaskError> {
    loop {
        let state = database.ping().await;
        readiness.set(DATABASE, state.map_err(|error| error.to_string()));
        if stopped_within(&stop, DATABASE_INTERVAL).await {
            return Ok(());
        }
    }
}

async fn schema_watch(
    connector: EngineConnections,
    migrations: MigrationSet,
    readiness: Readiness,
    stop: CancellationToken,
) -> Result<(), TaskError> {
    loop {
        let checked = tokio::time::timeout(SCHEMA_TIMEOUT, schema_check(&connector, &migrations)).await;
        let state = checked.unwrap_or_else(|_| Err("the schema could not be read in time".to_owned()));
        let pause = if state.is_ok() { SCHEMA_INTERVAL } else { SCHEMA_RETRY };
        readiness.set(SCHEMA, state);
        if stopped_within(&stop, pause).await {
            return Ok(());
        }
    }
}

/// Compares history and catalog with what this binary expects; also sets the gauges that alerts look at.
async fn schema_check(connector: &EngineConnections, migrations: &MigrationSet) -> Result<(), String> {
    let report = migration_engine::verify(connector, migrations).await.map_err(|error| error.to_string())?;
    let hindrances = report.hindrances().count();
    metrics::gauge!("migration_pending").set(gauge_of(report.pending.len()));
    metrics::gauge!("schema_drift_objects").set(gauge_of(report.errors().count()));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    metrics::gauge!("schema_last_verified_timestamp_seconds").set(now.as_secs_f64());
    let places = migration_engine::counted(hindrances, "place");
    match report.state {
        State::Match => Ok(()),
        // It works without, and may be told to make it at any time.
        State::Drift if hindrances == 0 => Ok(()),
        State::Pending => {
            let pending = migration_engine::counted(report.pending.len(), "migration");
            Err(format!("{pending} to run: run task-service migrate up"))
        }
        State::Drift => {
            Err(format!("the schema differs from the expected one in {places}: run task-service migrate verify"))
        }
        // A newer release has migrated, by adding only: this one goes on until it is replaced.
        State::Ahead if hindrances == 0 => Ok(()),
        State::Ahead => {
            Err(format!("the database is newer than this binary and differs in {places}: deploy the newer one"))
        }
    }
}

async fn keys_watch(verifier: Verifier, readiness: Readiness, stop: CancellationToken) -> Result<(), TaskError> {
    let mut ready = verifier.keys_ready();
    loop {
        let state = if *ready.borrow_and_update() { Ok(()) } else { Err("no signing keys from the auth service yet") };
        readiness.set(KEYS, state);
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = ready.changed() => changed?,
        }
    }
}

/// Says whether revocations arrive: without them reads go on, and everything else is refused.
async fn revocations_watch(
    revocations: Revocations,
    readiness: Readiness,
    stop: CancellationToken,
) -> Result<(), TaskError> {
    loop {
        let state = match (revocations.is_live(), revocations.silence()) {
            (true, _) => Ok(()),
            (false, None) => Err("no revocations from the auth service yet: changes are refused"),
            (false, Some(_)) => Err("the stream of revocations is dead: changes are refused, reads go on"),
        };
        metrics::gauge!("auth_revocations_live").set(if state.is_ok() { 1.0 } else { 0.0 });
        readiness.set(REVOCATIONS, state);
        if stopped_within(&stop, REVOCATIONS_INTERVAL).await {
            return Ok(());
        }
    }
}

async fn rows_expire(store: TaskStore, stop: CancellationToken) -> Result<(), TaskError> {
    let mut pause = EXPIRY_FIRST;
    while !stopped_within(&stop, pause).await {
        pause = match store.rows_expire(now()).await {
            Ok(true) => EXPIRY_PAUSE,
            Ok(false) => EXPIRY_INTERVAL,
            // The database's own latch tells operators; the next time tries again.
            Err(error) => {
                tracing::warn!(%error, "expired rows could not be deleted");
                EXPIRY_INTERVAL
            }
        };
    }
    Ok(())
}

/// Sleeps; `true` when told to stop meanwhile.
async fn stopped_within(stop: &CancellationToken, pause: Duration) -> bool {
    tokio::time::timeout(pause, stop.cancelled()).await.is_ok()
}

fn gauge_of(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}
