//! Changes of accounts: by their owners and by administrators.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use proto::auth::v1::AuditAction;
use uuid::Uuid;

use super::audit::audit_insert_on_conn;
use super::callers::{Caller, caller_check_on_conn};
use super::mails::{change_notice_on_conn, changes_check_on_conn, verification_tokens_void_on_conn};
use super::revocations::{Revoked, revoke_on_conn};
use super::schema::{password_reset_tokens, roles, users};
use super::sessions::{EndReason, user_sessions_end_on_conn};
use super::throttles::throttles_forget_on_conn;
use super::users::{USER_COLUMNS, UserRow};
use super::{AuthStore, ChangeError};
use crate::domain::account::{Email, Username};
use crate::domain::audit::{Event, Origin, Target};
use crate::domain::user::User;

/// What of an account changes; `None` leaves it.
#[derive(Debug, Clone, Default)]
pub struct AccountChange {
    /// The address.
    pub email: Option<Email>,
    /// The name.
    pub username: Option<Username>,
    /// Whether mail is known to arrive.
    pub email_verified: Option<bool>,
}

#[derive(AsChangeset, Default)]
#[diesel(table_name = users)]
struct AccountColumns<'a> {
    email: Option<&'a str>,
    email_key: Option<String>,
    username: Option<&'a str>,
    username_key: Option<String>,
    email_verified: Option<bool>,
    updated_at: Option<DateTime<Utc>>,
}

impl AuthStore {
    /// Changes the caller's own account. A taken name fails with the constraint's name.
    pub async fn account_update_own(
        &self,
        caller: Caller,
        change: &AccountChange,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<User, ChangeError> {
        self.database
            .transaction("account_update_own", async |conn| {
                let before = caller_locked_on_conn(conn, caller, now).await?;
                if change.email.as_ref().is_some_and(|email| !is_same_mailbox(email, &before.email)) {
                    changes_check_on_conn(conn, caller.user_id, now).await?;
                }
                let (user, changed) = account_update_on_conn(conn, before, change, now).await?;
                if !changed.is_empty() {
                    let event = Event::done(caller.actor(), AuditAction::ProfileUpdate, Target::User(user.id));
                    audit_insert_on_conn(conn, &event.changing(&changed), origin, now).await?;
                }
                Ok::<_, ChangeError>(user)
            })
            .await
    }

    /// The caller's account and its stored hash.
    pub async fn account_own(&self, caller: Caller, now: DateTime<Utc>) -> Result<(User, String), ChangeError> {
        self.database
            .run("account_own", async |conn| {
                caller_check_on_conn(conn, caller, now).await?;
                let (row, hash): (UserRow, String) = users::table
                    .inner_join(roles::table)
                    .filter(users::id.eq(caller.user_id))
                    .select((USER_COLUMNS, users::password_hash))
                    .first(conn)
                    .await?;
                Ok::<_, ChangeError>((row.into(), hash))
            })
            .await
    }

    /// Gives the caller's account a new hash, ends all its sessions and voids its reset tokens.
    ///
    /// [`ChangeError::Stale`] when the stored hash is not `old_hash` any more: the password must be checked once more.
    pub async fn password_change(
        &self,
        caller: Caller,
        old_hash: &str,
        new_hash: &str,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<(), ChangeError> {
        self.database
            .transaction("password_change", async |conn| {
                caller_locked_on_conn(conn, caller, now).await?;
                let unchanged = users::table.find(caller.user_id).filter(users::password_hash.eq(old_hash));
                let updated = diesel::update(unchanged)
                    .set((users::password_hash.eq(new_hash), users::updated_at.eq(now)))
                    .execute(conn)
                    .await?;
                if updated == 0 {
                    return Err(ChangeError::Stale);
                }
                reset_tokens_void_on_conn(conn, caller.user_id, now).await?;
                throttles_forget_on_conn(conn, caller.user_id).await?;
                user_sessions_end_on_conn(conn, caller.user_id, EndReason::PasswordChanged, now).await?;
                let event = Event::done(caller.actor(), AuditAction::PasswordChange, Target::User(caller.user_id));
                audit_insert_on_conn(conn, &event, origin, now).await?;
                revoke_on_conn(conn, &[Revoked::User(caller.user_id)], now).await?;
                Ok(())
            })
            .await
    }
}

/// Voids what is out to set a new password with.
pub(super) async fn reset_tokens_void_on_conn(
    conn: &mut AsyncPgConnection,
    user_id: Uuid,
    now: DateTime<Utc>,
) -> Result<(), ChangeError> {
    let open = password_reset_tokens::table
        .filter(password_reset_tokens::user_id.eq(user_id).and(password_reset_tokens::is_used.eq(false)));
    diesel::update(open)
        .set((password_reset_tokens::is_used.eq(true), password_reset_tokens::updated_at.eq(now)))
        .execute(conn)
        .await?;
    Ok(())
}

/// Keeps others away from an account. Whoever changes an account and its tokens locks the account first, so that two of them
/// wait and never for each other.
pub(super) async fn account_lock_on_conn(conn: &mut AsyncPgConnection, id: Uuid) -> Result<(), ChangeError> {
    let locked: Option<Uuid> =
        users::table.find(id).select(users::id).for_no_key_update().first(conn).await.optional()?;
    locked.map(|_| ()).ok_or(ChangeError::UserNotFound)
}

/// The account, locked.
pub(super) async fn account_locked_on_conn(conn: &mut AsyncPgConnection, id: Uuid) -> Result<User, ChangeError> {
    account_lock_on_conn(conn, id).await?;
    account_on_conn(conn, id).await
}

/// The caller's own account, locked, when the caller's token is still good. First the row, then the question: whoever waits for
/// it may have lost the session meanwhile. An account that is gone took its sessions along.
pub(super) async fn caller_locked_on_conn(
    conn: &mut AsyncPgConnection,
    caller: Caller,
    now: DateTime<Utc>,
) -> Result<User, ChangeError> {
    let locked = account_locked_on_conn(conn, caller.user_id).await;
    let account = locked.map_err(|error| match error {
        ChangeError::UserNotFound => ChangeError::CallerGone,
        other => other,
    })?;
    caller_check_on_conn(conn, caller, now).await?;
    Ok(account)
}

/// Changes a locked account; gives it as it is then, and the names of what really changed.
pub(super) async fn account_update_on_conn(
    conn: &mut AsyncPgConnection,
    before: User,
    change: &AccountChange,
    now: DateTime<Utc>,
) -> Result<(User, Vec<&'static str>), ChangeError> {
    let id = before.id;
    let mut columns = AccountColumns::default();
    let mut changed = Vec::new();
    if let Some(email) = change.email.as_ref().filter(|email| email.as_str() != before.email) {
        columns.email = Some(email.as_str());
        columns.email_key = Some(email.key());
        // Nobody has shown yet to receive mail there.
        columns.email_verified = Some(false);
        changed.push("email");
    }
    if let Some(username) = change.username.as_ref().filter(|username| username.as_str() != before.username) {
        columns.username = Some(username.as_str());
        columns.username_key = Some(username.key());
        changed.push("username");
    }
    if let Some(verified) = change.email_verified {
        columns.email_verified = Some(verified);
    }
    if columns.email_verified.is_some_and(|verified| verified != before.email_verified) {
        changed.push("email_verified");
    }
    if changed.is_empty() {
        return Ok((before, changed));
    }
    if columns.email.is_some() {
        // Whoever reads the old mailbox has no say any more.
        reset_tokens_void_on_conn(conn, id, now).await?;
        verification_tokens_void_on_conn(conn, id).await?;
        if !change.email.as_ref().is_some_and(|email| is_same_mailbox(email, &before.email)) {
            change_notice_on_conn(conn, &before, now).await?;
        }
    }
    columns.updated_at = Some(now);
    diesel::update(users::table.find(id)).set(columns).execute(conn).await?;
    Ok((account_on_conn(conn, id).await?, changed))
}

/// The same in another case of ASCII reaches the same mailbox; what only looks alike may be another domain.
fn is_same_mailbox(email: &Email, before: &str) -> bool {
    email.as_str().eq_ignore_ascii_case(before)
}

/// One account, as callers see it.
pub(super) async fn account_on_conn(conn: &mut AsyncPgConnection, id: Uuid) -> Result<User, ChangeError> {
    let row: Option<UserRow> = users::table
        .inner_join(roles::table)
        .filter(users::id.eq(id))
        .select(USER_COLUMNS)
        .first(conn)
        .await
        .optional()?;
    row.map(User::from).ok_or(ChangeError::UserNotFound)
}
