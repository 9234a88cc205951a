//! What runs beside the calls, each under the supervisor: the readiness latches, the signing keys, the mails and the purges.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use auth_client::{KeyAlgorithm, Verifier};
use chrono::{TimeDelta, Utc};
use migration_engine::{MigrationSet, State};
use service_kit::database::Database;
use service_kit::peer::Peer;
use service_kit::readiness::Readiness;
use service_kit::tasks::{Supervisor, TaskError};
use tokio_util::sync::CancellationToken;

use crate::domain::access_token::TokenSettings;
use crate::domain::sealing::SealingKey;
use crate::domain::signing_key::{ACTIVATE_IN, AFTER_LAST_TOKEN, KeyRing, KeyRingError, StoredKey};
use crate::flows::delta;
use crate::keys::Keys;
use crate::mail::{MailSender, Mailer};
use crate::migrate::EngineConnections;
use crate::purge::PurgeSender;
use crate::revocations::Revocations;
use crate::store::AuthStore;
use crate::store::signing_keys::{KeyRotation, KeyStoreError};

/// Latch: the database answers.
pub const DATABASE: &str = "database";
/// Latch: the schema is the expected one.
pub const SCHEMA: &str = "schema";
/// Latch: there are keys to sign and verify with.
pub const KEYS: &str = "keys";

/// A lost database is noticed within about this time.
const DATABASE_INTERVAL: Duration = Duration::from_secs(2);
/// The catalog is compared this often while it fits, so that drift is noticed.
const SCHEMA_INTERVAL: Duration = Duration::from_secs(30);
/// And this often while it does not: a start waits for the migration.
const SCHEMA_RETRY: Duration = Duration::from_secs(1);
/// One comparison takes a handful of round trips.
const SCHEMA_TIMEOUT: Duration = Duration::from_secs(10);
/// A key that another replica made is known after this time: much less than the overlap of a rotation.
const KEYS_INTERVAL: Duration = Duration::from_secs(10);
/// While there are none, or the schema is not there yet.
const KEYS_RETRY: Duration = Duration::from_millis(250);

/// Expired rows cost only space.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// The first time comes soon: a service that is restarted often would never get there.
const EXPIRY_FIRST: Duration = Duration::from_secs(10);
/// Between two batches, so that the calls come first.
const EXPIRY_PAUSE: Duration = Duration::from_millis(20);

/// Mails that are sent at a time by one replica: a slow mail server holds up no more than these.
const MAIL_SENDERS: usize = 3;

/// What the tasks work with.
pub struct Parts {
    pub database: Database,
    pub connector: EngineConnections,
    pub migrations: MigrationSet,
    pub verifier: Verifier,
    pub store: AuthStore,
    pub sealing: Arc<SealingKey>,
    pub keys: Keys,
    pub signing_algorithm: KeyAlgorithm,
    /// Zero: keys are not rotated by themselves.
    pub key_max_age: TimeDelta,
    pub mailer: Mailer,
    pub task_service: Arc<Peer>,
    pub settings: Arc<TokenSettings>,
    pub revocations: Revocations,
}

/// Spawns all of them.
pub fn spawn_all(supervisor: &Supervisor, readiness: &Readiness, parts: Parts) {
    let Parts {
        database,
        connector,
        migrations,
        verifier,
        store,
        sealing,
        keys,
        signing_algorithm,
        key_max_age,
        mailer,
        task_service,
        settings,
        revocations,
    } = parts;
    let access_ttl = delta(settings.access_ttl);
    let sender = MailSender { store: store.clone(), mailer: Arc::new(mailer), readiness: readiness.clone() };
    for _ in 0..MAIL_SENDERS {
        let sender = sender.clone();
        supervisor.spawn("mail_sender", |stop| sender.run(stop));
    }
    supervisor.spawn("mail_count", |stop| sender.count(stop));
    let purge =
        PurgeSender { store: store.clone(), task_service, keys: keys.clone(), settings, readiness: readiness.clone() };
    let (revoked_in, latches) = (store.clone(), readiness.clone());
    supervisor.spawn("revocations_read", |stop| revocations.run(revoked_in, latches, stop));
    let (kept_in, latches) = (store.clone(), readiness.clone());
    supervisor.spawn("rows_expire", |stop| rows_expire(kept_in, latches, stop));
    let count = purge.clone();
    supervisor.spawn("purge_sender", |stop| purge.run(stop));
    supervisor.spawn("purge_count", |stop| count.count(stop));
    let watch = KeysWatch {
        store,
        sealing,
        keys,
        algorithm: signing_algorithm,
        max_age: key_max_age,
        access_ttl,
        verifier: verifier.clone(),
        readiness: readiness.clone(),
        is_loaded: false,
        told: HashSet::new(),
        refused: None,
    };
    supervisor.spawn("keys_watch", |stop| watch.run(stop));
    supervisor.spawn("keys_fetch", |stop| async move {
        verifier.run(stop).await;
        Ok(())
    });
    let latches = readiness.clone();
    supervisor.spawn("database_watch", |stop| database_watch(database, latches, stop));
    let latches = readiness.clone();
    supervisor.spawn("schema_watch", |stop| schema_watch(connector, migrations, latches, stop));
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
            Err(format!("{pending} to run: run auth-service migrate up"))
        }
        State::Drift => {
            Err(format!("the schema differs from the expected one in {places}: run auth-service migrate verify"))
        }
        // A newer release has migrated, by adding only: this one goes on until it is replaced.
        State::Ahead if hindrances == 0 => Ok(()),
        State::Ahead => {
            Err(format!("the database is newer than this binary and differs in {places}: deploy the newer one"))
        }
    }
}

/// Deletes what ended long ago.
async fn rows_expire(store: AuthStore, readiness: Readiness, stop: CancellationToken) -> Result<(), TaskError> {
    let mut pause = EXPIRY_FIRST;
    while !stopped_within(&stop, pause).await {
        pause = if !readiness.is_set(SCHEMA) {
            EXPIRY_FIRST
        } else {
            match store.rows_expire(Utc::now()).await {
                Ok(true) => EXPIRY_PAUSE,
                Ok(false) => EXPIRY_INTERVAL,
                // The database's own latch tells operators; the next hour tries again.
                Err(error) => {
                    tracing::warn!(%error, "expired rows could not be deleted");
                    EXPIRY_INTERVAL
                }
            }
        };
    }
    Ok(())
}

/// Loads the keys, makes the first one, and takes up those that others make.
struct KeysWatch {
    store: AuthStore,
    sealing: Arc<SealingKey>,
    keys: Keys,
    algorithm: KeyAlgorithm,
    max_age: TimeDelta,
    access_ttl: TimeDelta,
    verifier: Verifier,
    readiness: Readiness,
    /// Whether there has been a ring.
    is_loaded: bool,
    /// Keys of unknown algorithms that the log names already.
    told: HashSet<String>,
    /// Why the last load was refused, so that it is said once.
    refused: Option<KeyRingError>,
}

impl KeysWatch {
    /// Ends with an error when a stored key does not open at the first load: signing with a key of our own would split the
    /// replicas. Later the keys at hand are kept, so that one bad row does not end all replicas at once.
    async fn run(mut self, stop: CancellationToken) -> Result<(), TaskError> {
        loop {
            let state = self.load().await?;
            let pause = if state.is_ok() { KEYS_INTERVAL } else { KEYS_RETRY };
            self.readiness.set(KEYS, state);
            if stopped_within(&stop, pause).await {
                return Ok(());
            }
        }
    }

    /// Gives a key that is old enough a successor. What goes wrong is told by the load that follows.
    async fn rotate_when_old(&self) {
        let now = Utc::now();
        let since = now - self.max_age;
        let is_young = |key: &StoredKey| key.retires_at.is_none() && key.activates_at >= since;
        if self.max_age.is_zero() || !self.is_loaded || self.keys.ring().published(now).any(is_young) {
            return;
        }
        let rotation = KeyRotation {
            sealing: &self.sealing,
            algorithm: self.algorithm,
            overlap: ACTIVATE_IN,
            token_life: self.access_ttl + AFTER_LAST_TOKEN,
        };
        match self.store.signing_key_rotate_when_old(since, &rotation, now).await {
            Ok(Some(key)) => tracing::info!(kid = key.kid, "the signing key is old: made its successor"),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the old signing key could not be rotated"),
        }
    }

    /// The state of the latch. Keys at hand stay usable while the database is away.
    async fn load(&mut self) -> Result<Result<(), String>, TaskError> {
        let schema_fits = self.readiness.is_set(SCHEMA);
        if schema_fits {
            self.rotate_when_old().await;
            match self.store.signing_keys_ensure(&self.sealing, self.algorithm, Utc::now()).await {
                Ok(ring) => self.take(ring),
                Err(KeyStoreError::Ring(error)) if !self.is_loaded => return Err(error.into()),
                Err(KeyStoreError::Ring(error)) => {
                    if self.refused.as_ref() != Some(&error) {
                        tracing::warn!(%error, "the stored signing keys cannot be taken up; those in memory are kept");
                    }
                    self.refused = Some(error);
                }
                Err(error) => tracing::warn!(%error, "the signing keys cannot be read"),
            }
        }
        let ring = self.keys.ring();
        if ring.signing(Utc::now()).is_none() {
            let waiting = if schema_fits { "there is no signing key" } else { "waiting for the schema" };
            return Ok(Err(waiting.to_owned()));
        }
        let mut ready = self.verifier.keys_ready();
        match tokio::time::timeout(Duration::from_secs(5), ready.wait_for(|ready| *ready)).await {
            Ok(Ok(_)) => Ok(Ok(())),
            _ => Ok(Err("the verifier has no keys".to_owned())),
        }
    }
}

impl KeysWatch {
    fn take(&mut self, ring: KeyRing) {
        for key in ring.unknown() {
            if self.told.insert(key.kid.clone()) {
                tracing::warn!(
                    kid = key.kid,
                    algorithm = key.algorithm,
                    "a stored signing key has an algorithm that this version does not know; it is left out"
                );
            }
        }
        self.told.retain(|kid| ring.unknown().iter().any(|key| key.kid == *kid));
        self.is_loaded = true;
        self.refused = None;
        self.keys.set(ring);
    }
}

/// Sleeps; `true` when told to stop meanwhile.
pub async fn stopped_within(stop: &CancellationToken, pause: Duration) -> bool {
    tokio::time::timeout(pause, stop.cancelled()).await.is_ok()
}

/// The pause after a failed attempt, from 1: doubles from one to the next.
pub fn pause_after(attempt: i32, first: TimeDelta, longest: TimeDelta) -> TimeDelta {
    let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or(0).min(16);
    (first * 2_i32.pow(doublings)).min(longest)
}

fn gauge_of(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        let pause = |attempt| pause_after(attempt, TimeDelta::seconds(2), TimeDelta::minutes(10));
        assert_eq!(pause(1), TimeDelta::seconds(2));
        assert_eq!(pause(3), TimeDelta::seconds(8));
        assert_eq!(pause(i32::MAX), TimeDelta::minutes(10));
    }
}
