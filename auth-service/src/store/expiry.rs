//! Rows that nobody needs any more.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::sql_types::{BigInt, Timestamptz};
use diesel_async::RunQueryDsl;
use service_kit::database::DatabaseError;

use super::AuthStore;

/// Most rows that one statement deletes, so that it holds no locks for long.
pub const EXPIRY_BATCH: i64 = 1_000;

/// How long what has ended is kept, for whoever looks into what happened.
const KEPT: TimeDelta = TimeDelta::days(30);

/// What expires: each statement deletes at most $2 rows that ended before $1. Refresh tokens go with their sessions.
const EXPIRE: [(&str, TimeDelta, &str); 5] = [
    (
        "sessions",
        KEPT,
        "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE expires_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)",
    ),
    (
        "password_reset_tokens",
        KEPT,
        "DELETE FROM password_reset_tokens WHERE id IN \
         (SELECT id FROM password_reset_tokens WHERE expires_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)",
    ),
    (
        "email_verification_tokens",
        KEPT,
        "DELETE FROM email_verification_tokens WHERE id IN \
         (SELECT id FROM email_verification_tokens WHERE expires_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)",
    ),
    // Except the newest: revisions go on from there.
    (
        "revocations",
        TimeDelta::zero(),
        "DELETE FROM revocations WHERE revision IN (SELECT revision FROM revocations WHERE forget_at < $1 \
         AND revision < (SELECT max(revision) FROM revocations) LIMIT $2 FOR UPDATE SKIP LOCKED)",
    ),
    (
        "sign_in_throttles",
        TimeDelta::zero(),
        "DELETE FROM sign_in_throttles WHERE (throttle_key, source) IN \
         (SELECT throttle_key, source FROM sign_in_throttles WHERE expires_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)",
    ),
];

impl AuthStore {
    /// Deletes what has ended long ago, one batch of each kind. Gives whether there may be more.
    pub async fn rows_expire(&self, now: DateTime<Utc>) -> Result<bool, DatabaseError> {
        let mut is_more = false;
        for (table, kept, statement) in EXPIRE {
            let deleted = self
                .database
                .run("rows_expire", async |conn| {
                    let expire = diesel::sql_query(statement).bind::<Timestamptz, _>(now - kept);
                    Ok::<_, DatabaseError>(expire.bind::<BigInt, _>(EXPIRY_BATCH).execute(conn).await?)
                })
                .await?;
            tracing::debug!(table, deleted, "expired rows are deleted");
            is_more |= i64::try_from(deleted).is_ok_and(|deleted| deleted >= EXPIRY_BATCH);
        }
        Ok(is_more)
    }
}
