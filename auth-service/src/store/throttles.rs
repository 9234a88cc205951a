//! Counts of failed sign-ins, shared by all replicas. What they mean is in `domain::throttle`.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::dsl::max;
use diesel::prelude::*;
use diesel::sql_types::{Integer, Text, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::accounts::account_on_conn;
use super::audit::audit_insert_on_conn;
use super::schema::sign_in_throttles;
use super::{AuthStore, ChangeError};
use crate::domain::audit::{Event, Origin};
use crate::domain::throttle::{KEPT, ThrottleKeys, keys_of_account, overall_delay, source_delay};

/// The source of the row that counts all sources together.
const ALL_SOURCES: &str = "";

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = Integer)]
    failures: i32,
    #[diesel(sql_type = Timestamptz)]
    blocked_until: DateTime<Utc>,
}

/// One more failure, unless the row is blocked: attempts that were let in before the block do not count.
const FAILED: &str = "INSERT INTO sign_in_throttles AS t (throttle_key, source, failures, blocked_until, expires_at) \
    VALUES ($1, $2, 1, $3, $4) ON CONFLICT (throttle_key, source) DO UPDATE SET \
    failures = CASE WHEN t.expires_at <= $3 THEN 1 WHEN t.blocked_until > $3 THEN t.failures ELSE t.failures + 1 END, \
    expires_at = excluded.expires_at RETURNING failures, blocked_until";

impl AuthStore {
    /// Goes on unless an attempt must wait.
    ///
    /// # Errors
    /// [`ChangeError::Throttled`] with the time until when.
    pub async fn throttle_check(&self, keys: &ThrottleKeys, now: DateTime<Utc>) -> Result<(), ChangeError> {
        self.database.run("throttle_check", async |conn| throttle_check_on_conn(conn, keys, now).await).await
    }

    /// Counts a failure and notes it in the audit trail.
    ///
    /// # Errors
    /// [`ChangeError::Throttled`]: others have failed meanwhile, and this attempt must not be answered.
    pub async fn throttle_failed(
        &self,
        keys: &ThrottleKeys,
        event: &Event,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<(), ChangeError> {
        let counts = [(keys.source.as_str(), source_delay as fn(i32) -> TimeDelta), (ALL_SOURCES, overall_delay)];
        let blocked = self
            .database
            .transaction("throttle_failed", async |conn| {
                audit_insert_on_conn(conn, event, origin, now).await?;
                let mut blocked = None;
                for (source, delay) in counts {
                    // Where the source is unknown both counts are one row.
                    let count: Count = diesel::sql_query(FAILED)
                        .bind::<Text, _>(&keys.tried)
                        .bind::<Text, _>(source)
                        .bind::<Timestamptz, _>(now)
                        .bind::<Timestamptz, _>(now + KEPT)
                        .get_result(conn)
                        .await?;
                    if count.blocked_until > now {
                        blocked = blocked.max(Some(count.blocked_until));
                    } else if delay(count.failures) > TimeDelta::zero() {
                        diesel::update(sign_in_throttles::table.find((&keys.tried, source)))
                            .set(sign_in_throttles::blocked_until.eq(now + delay(count.failures)))
                            .execute(conn)
                            .await?;
                    }
                }
                Ok::<_, ChangeError>(blocked)
            })
            .await?;
        blocked.map_or(Ok(()), |until| Err(ChangeError::Throttled(until)))
    }
}

async fn throttle_check_on_conn(
    conn: &mut AsyncPgConnection,
    keys: &ThrottleKeys,
    now: DateTime<Utc>,
) -> Result<(), ChangeError> {
    let blocked: Option<DateTime<Utc>> = sign_in_throttles::table
        .filter(sign_in_throttles::throttle_key.eq(&keys.tried))
        .filter(sign_in_throttles::source.eq_any([keys.source.as_str(), ALL_SOURCES]))
        .filter(sign_in_throttles::blocked_until.gt(now))
        .select(max(sign_in_throttles::blocked_until))
        .first(conn)
        .await?;
    blocked.map_or(Ok(()), |until| Err(ChangeError::Throttled(until)))
}

/// The password was right: counts begin anew, unless others have failed meanwhile. Then nobody is told that it was right:
/// many attempts at once must not be worth more than one after the other.
pub(super) async fn throttle_passed_on_conn(
    conn: &mut AsyncPgConnection,
    keys: &ThrottleKeys,
    now: DateTime<Utc>,
) -> Result<(), ChangeError> {
    throttle_check_on_conn(conn, keys, now).await?;
    for source in [keys.source.as_str(), ALL_SOURCES] {
        diesel::delete(sign_in_throttles::table.find((&keys.tried, source))).execute(conn).await?;
    }
    Ok(())
}

/// Forgets all failures of an account: its password is a new one.
pub(super) async fn throttles_forget_on_conn(conn: &mut AsyncPgConnection, account: Uuid) -> Result<(), ChangeError> {
    let account = account_on_conn(conn, account).await?;
    let keys = keys_of_account(account.id, &account.email, &account.username);
    // As those who fail do: first the rows of a source, then the one of all.
    let of_sources = sign_in_throttles::table.filter(sign_in_throttles::throttle_key.eq_any(&keys));
    diesel::delete(of_sources.filter(sign_in_throttles::source.ne(ALL_SOURCES))).execute(conn).await?;
    let of_all = sign_in_throttles::table.filter(sign_in_throttles::throttle_key.eq_any(&keys));
    diesel::delete(of_all).execute(conn).await?;
    Ok(())
}
