//! Accounts taken over from another system.

use chrono::{DateTime, Utc};
use diesel::dsl::exists;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use proto::auth::v1::AuditAction;
use uuid::Uuid;

use super::audit::audit_insert_on_conn;
use super::callers::{Acting, caller_may_on_conn};
use super::role_admin::assignable_role_on_conn;
use super::schema::{service_accounts, user_deletions, users};
use super::{AuthStore, ChangeError};
use crate::domain::audit::{Event, Origin, Target};
use crate::domain::user::ImportedUser;

/// The permission to import.
const WRITE: &str = "users.write";

/// What became of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Imported {
    /// It was made.
    Created,
    /// There is this very account.
    AlreadyThere(Uuid),
}

impl AuthStore {
    /// Takes over one account; in a dry run nothing is kept. A taken name fails with the constraint's name.
    pub async fn user_import(
        &self,
        acting: Acting,
        user: &ImportedUser,
        dry_run: bool,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<Imported, ChangeError> {
        let imported = self
            .database
            .transaction("user_import", async |conn| {
                let held = caller_may_on_conn(conn, acting, WRITE, now).await?;
                if let Some(id) = same_account_on_conn(conn, user).await? {
                    return Ok(Imported::AlreadyThere(id));
                }
                let role_id = assignable_role_on_conn(conn, &user.role, &held).await?;
                id_is_free_on_conn(conn, user).await?;
                insert_on_conn(conn, user, role_id, now).await?;
                if dry_run {
                    return Err(ChangeError::DryRun);
                }
                let event = Event::done(acting.actor(), AuditAction::UserImport, Target::User(user.id));
                audit_insert_on_conn(conn, &event, origin, now).await?;
                Ok(Imported::Created)
            })
            .await;
        match imported {
            Err(ChangeError::DryRun) => Ok(Imported::Created),
            other => other,
        }
    }
}

/// An account with the very address and name, and with the id where one is given: an import that is run again finds its own.
async fn same_account_on_conn(conn: &mut AsyncPgConnection, user: &ImportedUser) -> Result<Option<Uuid>, ChangeError> {
    let found: Option<Uuid> = users::table
        .filter(users::email.eq(user.email.as_str()).and(users::username.eq(user.username.as_str())))
        .select(users::id)
        .first(conn)
        .await
        .optional()?;
    Ok(found.filter(|id| !user.has_own_id || *id == user.id))
}

/// An id of a program is no user's: tasks are owned by whoever a token names. An account that was deleted comes back under
/// its id only when its tasks are purged for the last time, or they would take those of the new one along.
async fn id_is_free_on_conn(conn: &mut AsyncPgConnection, user: &ImportedUser) -> Result<(), ChangeError> {
    let is_taken: bool =
        diesel::select(exists(user_deletions::table.find(user.id)).or(exists(service_accounts::table.find(user.id))))
            .get_result(conn)
            .await?;
    if is_taken { Err(ChangeError::UserIdTaken) } else { Ok(()) }
}

async fn insert_on_conn(
    conn: &mut AsyncPgConnection,
    user: &ImportedUser,
    role_id: Uuid,
    now: DateTime<Utc>,
) -> Result<(), ChangeError> {
    diesel::insert_into(users::table)
        .values((
            users::id.eq(user.id),
            users::email.eq(user.email.as_str()),
            users::username.eq(user.username.as_str()),
            users::email_key.eq(user.email.key()),
            users::username_key.eq(user.username.key()),
            users::password_hash.eq(&user.password_hash),
            users::is_active.eq(user.is_active),
            users::email_verified.eq(user.email_verified),
            users::role_id.eq(role_id),
            users::created_at.eq(user.created_at),
            users::updated_at.eq(now),
        ))
        .execute(conn)
        .await?;
    Ok(())
}
