//! Deleting an account, and remembering that its tasks are still to go.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::dsl::count_star;
use diesel::prelude::*;
use diesel::sql_types::{Integer, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use proto::auth::v1::AuditAction;
use service_kit::database::DatabaseError;
use uuid::Uuid;

use super::accounts::{account_locked_on_conn, caller_locked_on_conn};
use super::audit::audit_insert_on_conn;
use super::callers::{Acting, Caller, caller_may_on_conn};
use super::revocations::{LEEWAY, Revoked, revoke_on_conn};
use super::roles::ADMIN;
use super::schema::{user_deletions, users};
use super::sessions::{EndReason, user_sessions_end_on_conn};
use super::throttles::throttles_forget_on_conn;
use super::user_admin::{administrator_remains_on_conn, administrators_lock_on_conn, no_more_than_held_on_conn};
use super::{AuthStore, ChangeError};
use crate::domain::access_token::LONGEST_LIFE;
use crate::domain::audit::{Actor, Event, Origin, Target};

/// The permission to delete others' accounts.
const WRITE: &str = "users.write";

/// A deleted account whose tasks this replica is to have purged.
#[derive(Debug, Clone, QueryableByName)]
pub struct ClaimedPurge {
    /// Whose tasks.
    #[diesel(sql_type = SqlUuid)]
    pub user_id: Uuid,
    /// When the account was deleted.
    #[diesel(sql_type = Timestamptz)]
    pub deleted_at: DateTime<Utc>,
    /// Which attempt this is, from 1.
    #[diesel(sql_type = Integer)]
    pub attempts: i32,
}

/// Another replica skips a row that is being claimed; the lease brings it back when the one that claimed it dies.
const CLAIM: &str = "UPDATE user_deletions SET attempts = attempts + 1, next_attempt_at = $2 WHERE user_id = (
        SELECT user_id FROM user_deletions WHERE next_attempt_at <= $1
        ORDER BY next_attempt_at LIMIT 1 FOR UPDATE SKIP LOCKED
    ) RETURNING user_id, deleted_at, attempts";

impl AuthStore {
    /// Deletes the caller's own account. [`ChangeError::Stale`] when the stored hash is not `hash` any more: the password must
    /// be checked once more.
    pub async fn account_delete_own(
        &self,
        caller: Caller,
        hash: &str,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<(), ChangeError> {
        self.database
            .transaction("account_delete_own", async |conn| {
                administrators_lock_on_conn(conn).await?;
                let user = caller_locked_on_conn(conn, caller, now).await?;
                let unchanged = users::table.find(caller.user_id).filter(users::password_hash.eq(hash));
                let unchanged: Option<Uuid> = unchanged.select(users::id).first(conn).await.optional()?;
                unchanged.ok_or(ChangeError::Stale)?;
                let (actor, action) = (caller.actor(), AuditAction::AccountDelete);
                delete_on_conn(conn, caller.user_id, user.role == ADMIN, (actor, action), origin, now).await
            })
            .await
    }

    /// Deletes an account.
    pub async fn user_delete(
        &self,
        acting: Acting,
        id: Uuid,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<(), ChangeError> {
        self.database
            .transaction("user_delete", async |conn| {
                administrators_lock_on_conn(conn).await?;
                let user = account_locked_on_conn(conn, id).await?;
                let held = caller_may_on_conn(conn, acting, WRITE, now).await?;
                no_more_than_held_on_conn(conn, &user, &held).await?;
                let is_administrator = user.role == ADMIN && user.is_active;
                let said = (acting.actor(), AuditAction::UserDelete);
                delete_on_conn(conn, id, is_administrator, said, origin, now).await
            })
            .await
    }

    /// The next deleted account whose tasks are due to be purged, kept from other replicas for the time of the `lease`.
    pub async fn purge_claim(
        &self,
        lease: TimeDelta,
        now: DateTime<Utc>,
    ) -> Result<Option<ClaimedPurge>, DatabaseError> {
        self.database
            .run("purge_claim", async |conn| {
                let claim = diesel::sql_query(CLAIM).bind::<Timestamptz, _>(now).bind::<Timestamptz, _>(now + lease);
                Ok(claim.get_result(conn).await.optional()?)
            })
            .await
    }

    /// The tasks were purged at the time `asked_at`. Gives whether that was the last time: tasks that somebody makes with a
    /// token that is still good somewhere go once more when none can be.
    pub async fn purge_done(&self, purge: &ClaimedPurge, asked_at: DateTime<Utc>) -> Result<bool, DatabaseError> {
        let last_from = purge.deleted_at + LONGEST_LIFE + LEEWAY;
        self.database
            .run("purge_done", async |conn| {
                // Not one that came back and was deleted anew meanwhile.
                let row = user_deletions::table
                    .filter(user_deletions::user_id.eq(purge.user_id))
                    .filter(user_deletions::deleted_at.eq(purge.deleted_at));
                if asked_at >= last_from {
                    diesel::delete(row).execute(conn).await?;
                    return Ok(true);
                }
                diesel::update(row)
                    .set((user_deletions::next_attempt_at.eq(last_from), user_deletions::attempts.eq(0)))
                    .execute(conn)
                    .await?;
                Ok(false)
            })
            .await
    }

    /// Tries again later.
    pub async fn purge_postpone(&self, user_id: Uuid, until: DateTime<Utc>) -> Result<(), DatabaseError> {
        self.database
            .run("purge_postpone", async |conn| {
                diesel::update(user_deletions::table.find(user_id))
                    .set(user_deletions::next_attempt_at.eq(until))
                    .execute(conn)
                    .await?;
                Ok(())
            })
            .await
    }

    /// How many deleted accounts wait for a purge that failed or was not tried yet.
    pub async fn purges_waiting(&self, now: DateTime<Utc>) -> Result<i64, DatabaseError> {
        self.database
            .run("purges_waiting", async |conn| {
                let due = user_deletions::attempts.gt(0).or(user_deletions::next_attempt_at.le(now));
                Ok(user_deletions::table.filter(due).select(count_star()).first(conn).await?)
            })
            .await
    }
}

/// Deletes a locked account with all that hangs on it. What others must do for it is remembered in the same transaction.
async fn delete_on_conn(
    conn: &mut AsyncPgConnection,
    id: Uuid,
    is_administrator: bool,
    (actor, action): (Actor, AuditAction),
    origin: &Origin,
    now: DateTime<Utc>,
) -> Result<(), ChangeError> {
    if is_administrator {
        administrator_remains_on_conn(conn, id).await?;
    }
    throttles_forget_on_conn(conn, id).await?;
    // The sessions first: a refresh that holds one still needs the account's row.
    user_sessions_end_on_conn(conn, id, EndReason::Deleted, now).await?;
    diesel::delete(users::table.find(id)).execute(conn).await?;
    diesel::insert_into(user_deletions::table)
        .values((
            user_deletions::user_id.eq(id),
            user_deletions::deleted_at.eq(now),
            user_deletions::next_attempt_at.eq(now),
        ))
        .on_conflict(user_deletions::user_id)
        .do_update()
        .set((user_deletions::deleted_at.eq(now), user_deletions::next_attempt_at.eq(now)))
        .execute(conn)
        .await?;
    audit_insert_on_conn(conn, &Event::done(actor, action, Target::User(id)), origin, now).await?;
    revoke_on_conn(conn, &[Revoked::User(id)], now).await?;
    Ok(())
}
