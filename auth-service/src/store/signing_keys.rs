//! Signing keys. Whoever makes or retires one holds a lock, so that replicas agree.

use auth_client::KeyAlgorithm;
use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use proto::auth::v1::AuditAction;
use service_kit::database::DatabaseError;

use super::audit::audit_insert_on_conn;
use super::callers::{Acting, caller_may_on_conn};
use super::revocations::{Revoked, revoke_on_conn};
use super::schema::signing_keys;
use super::{AuthStore, ChangeError};
use crate::domain::audit::{Actor, Event, Origin, Target};
use crate::domain::sealing::SealingKey;
use crate::domain::signing_key::{KeyRing, KeyRingError, KeyState, StoredKey};

/// Key of the advisory lock, "authkeys" as bytes; the migrations' locks are others.
const LOCK: i64 = i64::from_be_bytes(*b"authkeys");

/// The permission to rotate them.
const WRITE: &str = "keys.write";

/// Why keys could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum KeyStoreError {
    /// The database.
    #[error(transparent)]
    Database(DatabaseError),
    /// The stored keys do not open.
    #[error(transparent)]
    Ring(#[from] KeyRingError),
    /// Who acts may not.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The cryptographic library.
    #[error(transparent)]
    Crypto(#[from] crate::domain::sealing::CryptoFailure),
}

service_kit::store_error!(KeyStoreError::Database);

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = signing_keys, check_for_backend(diesel::pg::Pg))]
struct KeyRow {
    kid: String,
    algorithm: String,
    public_key: Vec<u8>,
    private_key_sealed: Vec<u8>,
    activates_at: DateTime<Utc>,
    retires_at: Option<DateTime<Utc>>,
    expires_at: Option<DateTime<Utc>>,
}

impl From<KeyRow> for StoredKey {
    fn from(row: KeyRow) -> Self {
        let KeyRow { kid, algorithm, public_key, private_key_sealed, activates_at, retires_at, expires_at } = row;
        Self { kid, algorithm, public_key, private_key_sealed, activates_at, retires_at, expires_at }
    }
}

impl From<&StoredKey> for KeyRow {
    fn from(key: &StoredKey) -> Self {
        let StoredKey { kid, algorithm, public_key, private_key_sealed, activates_at, retires_at, expires_at } =
            key.clone();
        Self { kid, algorithm, public_key, private_key_sealed, activates_at, retires_at, expires_at }
    }
}

impl AuthStore {
    /// All stored keys, the oldest first.
    pub async fn signing_keys_list(&self) -> Result<Vec<StoredKey>, DatabaseError> {
        self.database.run("signing_keys_list", async |conn| keys_on_conn(conn).await).await
    }

    /// All keys that count, opened; makes the first one when there is none.
    ///
    /// # Errors
    /// A stored key that does not open: no new one is made in its place.
    pub async fn signing_keys_ensure(
        &self,
        sealing: &SealingKey,
        algorithm: KeyAlgorithm,
        now: DateTime<Utc>,
    ) -> Result<KeyRing, KeyStoreError> {
        let ring = KeyRing::open(self.signing_keys_list().await?, sealing, now)?;
        if has_future(&ring, now) {
            return Ok(ring);
        }
        self.database
            .transaction("signing_keys_ensure", async |conn| {
                lock_on_conn(conn).await?;
                let ring = KeyRing::open(keys_on_conn(conn).await?, sealing, now)?;
                if has_future(&ring, now) {
                    return Ok(ring);
                }
                let key = StoredKey::generate(sealing, algorithm, now)?;
                insert_on_conn(conn, &key).await?;
                tracing::info!(kid = key.kid, "made the first signing key");
                Ok(KeyRing::open(keys_on_conn(conn).await?, sealing, now)?)
            })
            .await
    }

    /// Makes a new key. Without `acting` it is an operator on the command line.
    ///
    /// # Errors
    /// A stored key that does not open, or who acts may not: then nothing is changed.
    pub async fn signing_key_rotate(
        &self,
        acting: Option<Acting>,
        rotation: &KeyRotation<'_>,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<StoredKey, KeyStoreError> {
        self.database
            .transaction("signing_key_rotate", async |conn| {
                lock_on_conn(conn).await?;
                if let Some(acting) = acting {
                    caller_may_on_conn(conn, acting, WRITE, now).await?;
                }
                let actor = acting.map_or(Actor::System, Acting::actor);
                rotate_on_conn(conn, rotation, (actor, origin), now).await
            })
            .await
    }

    /// Makes a new key when the youngest was made to sign before `since`; of several replicas one does. `None`: it is young
    /// enough.
    ///
    /// # Errors
    /// A stored key that does not open: then nothing is changed.
    pub async fn signing_key_rotate_when_old(
        &self,
        since: DateTime<Utc>,
        rotation: &KeyRotation<'_>,
        now: DateTime<Utc>,
    ) -> Result<Option<StoredKey>, KeyStoreError> {
        self.database
            .transaction("signing_key_rotate_when_old", async |conn| {
                lock_on_conn(conn).await?;
                let stored = keys_on_conn(conn).await?;
                let youngest = stored
                    .iter()
                    .filter(|key| key.kind().is_some() && key.retires_at.is_none())
                    .map(|key| key.activates_at)
                    .max();
                if youngest.is_none_or(|youngest| youngest >= since) {
                    return Ok(None);
                }
                let by = (Actor::System, &Origin::default());
                rotate_on_conn(conn, rotation, by, now).await.map(Some)
            })
            .await
    }
}

/// The new key signs after the overlap; the others retire then and are published until their last token has ended. Expired
/// keys are deleted. Needs the lock.
async fn rotate_on_conn(
    conn: &mut AsyncPgConnection,
    rotation: &KeyRotation<'_>,
    (actor, origin): (Actor, &Origin),
    now: DateTime<Utc>,
) -> Result<StoredKey, KeyStoreError> {
    KeyRing::open(keys_on_conn(conn).await?, rotation.sealing, now)?;
    let key = StoredKey::generate(rotation.sealing, rotation.algorithm, now + rotation.overlap)?;
    let staying = signing_keys::table
        .filter(signing_keys::retires_at.is_null().or(signing_keys::retires_at.gt(key.activates_at)));
    diesel::update(staying)
        .set((
            signing_keys::retires_at.eq(key.activates_at),
            signing_keys::expires_at.eq(key.activates_at + rotation.token_life),
        ))
        .execute(conn)
        .await?;
    if rotation.token_life <= TimeDelta::zero() {
        // They have leaked: also those that retired before leave the list now.
        let all = diesel::update(signing_keys::table);
        all.set((signing_keys::retires_at.eq(now), signing_keys::expires_at.eq(now))).execute(conn).await?;
    }
    insert_on_conn(conn, &key).await?;
    diesel::delete(signing_keys::table.filter(signing_keys::expires_at.le(now))).execute(conn).await?;
    let event = Event::done(actor, AuditAction::SigningKeyRotate, Target::SigningKey(key.kid.clone()));
    audit_insert_on_conn(conn, &event, origin, now).await?;
    revoke_on_conn(conn, &[Revoked::SigningKeys], now).await?;
    Ok(key)
}

/// How a new key takes over.
pub struct KeyRotation<'k> {
    /// What seals it.
    pub sealing: &'k SealingKey,
    /// What kind of key it is.
    pub algorithm: KeyAlgorithm,
    /// After this time it signs: by then every verifier knows it.
    pub overlap: TimeDelta,
    /// How long the keys before stay published after that.
    pub token_life: TimeDelta,
}

/// Whether some key signs or will.
fn has_future(ring: &KeyRing, now: DateTime<Utc>) -> bool {
    ring.published(now).any(|key| matches!(key.state(now), KeyState::Active | KeyState::Published))
}

/// Waits for the lock; it is held to the end of the transaction.
async fn lock_on_conn(conn: &mut AsyncPgConnection) -> Result<(), DatabaseError> {
    diesel::sql_query("SELECT pg_advisory_xact_lock($1)")
        .bind::<diesel::sql_types::BigInt, _>(LOCK)
        .execute(conn)
        .await?;
    Ok(())
}

async fn keys_on_conn(conn: &mut AsyncPgConnection) -> Result<Vec<StoredKey>, DatabaseError> {
    let order = (signing_keys::activates_at.asc(), signing_keys::kid.asc());
    let rows = signing_keys::table.order(order).select(KeyRow::as_select()).load(conn).await?;
    Ok(rows.into_iter().map(StoredKey::from).collect())
}

async fn insert_on_conn(conn: &mut AsyncPgConnection, key: &StoredKey) -> Result<(), DatabaseError> {
    diesel::insert_into(signing_keys::table).values(KeyRow::from(key)).execute(conn).await?;
    Ok(())
}
