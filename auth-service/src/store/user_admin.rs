//! What administrators do with accounts. Each statement first asks what the caller may do now, whatever the token says.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use diesel::dsl::{exists, not};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Nullable, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use proto::auth::v1::AuditAction;
use uuid::Uuid;

use super::accounts::{
    AccountChange, account_locked_on_conn, account_on_conn, account_update_on_conn, reset_tokens_void_on_conn,
};
use super::audit::audit_insert_on_conn;
use super::callers::{Acting, caller_may_on_conn};
use super::mails::verification_tokens_void_on_conn;
use super::revocations::{Revoked, revoke_on_conn};
use super::role_admin::{assignable_role_on_conn, only_what_is_held};
use super::roles::{ADMIN, role_permissions_on_conn};
use super::schema::{roles, users};
use super::sessions::{EndReason, user_sessions_end_on_conn};
use super::users::{USER_COLUMNS, UserRow};
use super::{AuthStore, ChangeError};
use crate::domain::audit::{Event, Origin, Target};
use crate::domain::user::{User, UserCounts};

const READ: &str = "users.read";
const WRITE: &str = "users.write";

impl AuthStore {
    /// Several accounts in the order of their ids. The place of the first one that is missing otherwise.
    pub async fn users_get(
        &self,
        caller: Acting,
        ids: &[Uuid],
        now: DateTime<Utc>,
    ) -> Result<Result<Vec<User>, usize>, ChangeError> {
        self.database
            .run("users_get", async |conn| {
                caller_may_on_conn(conn, caller, READ, now).await?;
                let rows: Vec<UserRow> = users::table
                    .inner_join(roles::table)
                    .filter(users::id.eq_any(ids))
                    .select(USER_COLUMNS)
                    .load(conn)
                    .await?;
                let found: std::collections::HashMap<Uuid, User> =
                    rows.into_iter().map(User::from).map(|user| (user.id, user)).collect();
                let wanted = ids.iter().enumerate();
                Ok::<_, ChangeError>(wanted.map(|(place, id)| found.get(id).cloned().ok_or(place)).collect())
            })
            .await
    }

    /// Changes an account. A taken name fails with the constraint's name.
    pub async fn user_update(
        &self,
        caller: Acting,
        id: Uuid,
        change: &AccountChange,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<User, ChangeError> {
        self.database
            .transaction("user_update", async |conn| {
                // First the row, then the question: whoever waits for it may have lost the permission meanwhile.
                let before = account_locked_on_conn(conn, id).await?;
                let held = caller_may_on_conn(conn, caller, WRITE, now).await?;
                no_more_than_held_on_conn(conn, &before, &held).await?;
                let (user, changed) = account_update_on_conn(conn, before, change, now).await?;
                if !changed.is_empty() {
                    let event = Event::done(caller.actor(), AuditAction::UserUpdate, Target::User(id));
                    audit_insert_on_conn(conn, &event.changing(&changed), origin, now).await?;
                }
                Ok::<_, ChangeError>(user)
            })
            .await
    }

    /// Activates or deactivates an account; deactivation ends its sessions.
    pub async fn user_set_active(
        &self,
        caller: Acting,
        id: Uuid,
        is_active: bool,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<User, ChangeError> {
        self.database
            .transaction("user_set_active", async |conn| {
                administrators_lock_on_conn(conn).await?;
                let before = account_locked_on_conn(conn, id).await?;
                let held = caller_may_on_conn(conn, caller, WRITE, now).await?;
                no_more_than_held_on_conn(conn, &before, &held).await?;
                if before.is_active == is_active {
                    return Ok(before);
                }
                if !is_active && before.role == ADMIN {
                    administrator_remains_on_conn(conn, id).await?;
                }
                diesel::update(users::table.find(id))
                    .set((users::is_active.eq(is_active), users::updated_at.eq(now)))
                    .execute(conn)
                    .await?;
                let action = if is_active { AuditAction::UserActivate } else { AuditAction::UserDeactivate };
                if !is_active {
                    user_sessions_end_on_conn(conn, id, EndReason::Deactivated, now).await?;
                    reset_tokens_void_on_conn(conn, id, now).await?;
                    verification_tokens_void_on_conn(conn, id).await?;
                }
                let event = Event::done(caller.actor(), action, Target::User(id)).changing(&["is_active"]);
                audit_insert_on_conn(conn, &event, origin, now).await?;
                let after = account_on_conn(conn, id).await?;
                if !is_active {
                    revoke_on_conn(conn, &[Revoked::User(id)], now).await?;
                }
                Ok(after)
            })
            .await
    }

    /// Gives an account another role; nobody gives a permission that they do not hold.
    pub async fn user_assign_role(
        &self,
        caller: Acting,
        id: Uuid,
        role: &str,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<User, ChangeError> {
        self.database
            .transaction("user_assign_role", async |conn| {
                administrators_lock_on_conn(conn).await?;
                let before = account_locked_on_conn(conn, id).await?;
                let held = caller_may_on_conn(conn, caller, WRITE, now).await?;
                no_more_than_held_on_conn(conn, &before, &held).await?;
                let role_id = assignable_role_on_conn(conn, role, &held).await?;
                if before.role == role {
                    return Ok(before);
                }
                if before.role == ADMIN && before.is_active {
                    administrator_remains_on_conn(conn, id).await?;
                }
                diesel::update(users::table.find(id))
                    .set((users::role_id.eq(role_id), users::updated_at.eq(now)))
                    .execute(conn)
                    .await?;
                let event = Event::done(caller.actor(), AuditAction::UserRoleAssign, Target::User(id));
                audit_insert_on_conn(conn, &event.changing(&["role"]), origin, now).await?;
                let after = account_on_conn(conn, id).await?;
                revoke_on_conn(conn, &[Revoked::User(id)], now).await?;
                Ok(after)
            })
            .await
    }

    /// Counts accounts.
    pub async fn users_count(&self, caller: Acting, now: DateTime<Utc>) -> Result<UserCounts, ChangeError> {
        self.database
            .run("users_count", async |conn| {
                caller_may_on_conn(conn, caller, READ, now).await?;
                let rows: Vec<CountRow> = diesel::sql_query(COUNTS).load(conn).await?;
                let rows = rows.into_iter().map(|row| (row.role, row.is_active, row.email_verified, row.user_count));
                Ok::<_, ChangeError>(UserCounts::sum(rows))
            })
            .await
    }
}

/// One statement, so that all sums are of one moment.
const COUNTS: &str = "SELECT roles.name AS role, users.is_active, users.email_verified, count(users.id) AS user_count \
    FROM roles LEFT JOIN users ON users.role_id = roles.id GROUP BY roles.name, users.is_active, users.email_verified \
    ORDER BY roles.name COLLATE \"C\"";

#[derive(QueryableByName)]
struct CountRow {
    #[diesel(sql_type = Text)]
    role: String,
    #[diesel(sql_type = Nullable<Bool>)]
    is_active: Option<bool>,
    #[diesel(sql_type = Nullable<Bool>)]
    email_verified: Option<bool>,
    #[diesel(sql_type = BigInt)]
    user_count: i64,
}

/// Whoever may lessen the number of administrators comes one after the other: of two that remove each other the second finds
/// itself removed. The row of the role is the lock.
pub(super) async fn administrators_lock_on_conn(conn: &mut AsyncPgConnection) -> Result<(), ChangeError> {
    let _id: Uuid =
        roles::table.filter(roles::name.eq(ADMIN)).select(roles::id).for_no_key_update().first(conn).await?;
    Ok(())
}

/// Goes on only when an active administrator other than `id` remains.
pub(super) async fn administrator_remains_on_conn(conn: &mut AsyncPgConnection, id: Uuid) -> Result<(), ChangeError> {
    let others =
        users::table.inner_join(roles::table).filter(roles::name.eq(ADMIN).and(users::is_active).and(users::id.ne(id)));
    let nobody: bool = diesel::select(not(exists(others.select(users::id)))).get_result(conn).await?;
    if nobody { Err(ChangeError::LastAdministrator) } else { Ok(()) }
}

/// Who changes an account can get into it, by a mail to another address for example: only who could do all that it can may.
pub(super) async fn no_more_than_held_on_conn(
    conn: &mut AsyncPgConnection,
    account: &User,
    held: &BTreeSet<String>,
) -> Result<(), ChangeError> {
    only_what_is_held(&role_permissions_on_conn(conn, &account.role).await?, held)
}
