//! `admin bootstrap`: the first administrator, made, found or reset.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use proto::auth::v1::AuditAction;
use service_kit::database::DatabaseError;
use uuid::Uuid;

use super::audit::audit_insert_on_conn;
use super::revocations::{Revoked, revoke_on_conn};
use super::roles::ADMIN;
use super::schema::{password_reset_tokens, roles, users};
use super::sessions::{EndReason, user_sessions_end_on_conn};
use super::throttles::throttles_forget_on_conn;
use super::users::user_insert_on_conn;
use super::{AuthStore, ChangeError};
use crate::domain::audit::{Actor, Event, Origin, Target};
use crate::domain::user::NewUser;

/// An account that has the wanted e-mail address already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExistingAccount {
    /// Its id.
    pub id: Uuid,
    /// Its user name.
    pub username: String,
    /// Its role's name.
    pub role: String,
    /// Its stored hash.
    pub password_hash: String,
    /// Whether it may sign in.
    pub is_active: bool,
}

impl AuthStore {
    /// The account with an e-mail address: the exact one, else the one that differs by case.
    pub async fn account_by_email(&self, email: &str, key: &str) -> Result<Option<ExistingAccount>, DatabaseError> {
        self.database
            .run("account_by_email", async |conn| {
                let found = users::table
                    .inner_join(roles::table)
                    .filter(users::email.eq(email).assume_not_null().or(users::email_key.eq(key).assume_not_null()))
                    .order(users::email.eq(email).desc())
                    .select((users::id, users::username, roles::name, users::password_hash, users::is_active))
                    .first::<(Uuid, String, String, String, bool)>(conn)
                    .await
                    .optional()?;
                Ok::<_, DatabaseError>(found.map(|(id, username, role, password_hash, is_active)| ExistingAccount {
                    id,
                    username,
                    role,
                    password_hash,
                    is_active,
                }))
            })
            .await
    }

    /// Makes an administrator. A taken name fails with the constraint's name.
    pub async fn administrator_create(
        &self,
        user: &NewUser,
        password_hash: &str,
        now: DateTime<Utc>,
    ) -> Result<(), DatabaseError> {
        self.database
            .transaction("administrator_create", async |conn| {
                user_insert_on_conn(conn, user, password_hash, ADMIN, now).await?;
                bootstrap_note_on_conn(conn, user.id, now).await
            })
            .await
    }

    /// Makes an account an active administrator with this hash, ends its sessions and voids its reset tokens. Gives how many
    /// sessions it ended.
    pub async fn administrator_reset(
        &self,
        id: Uuid,
        password_hash: &str,
        now: DateTime<Utc>,
    ) -> Result<usize, ChangeError> {
        self.database
            .transaction("administrator_reset", async |conn| {
                let role_id: Uuid = roles::table.filter(roles::name.eq(ADMIN)).select(roles::id).first(conn).await?;
                diesel::update(users::table.find(id))
                    .set((
                        users::password_hash.eq(password_hash),
                        users::role_id.eq(role_id),
                        users::is_active.eq(true),
                        users::updated_at.eq(now),
                    ))
                    .execute(conn)
                    .await?;
                let void = password_reset_tokens::table
                    .filter(password_reset_tokens::user_id.eq(id).and(password_reset_tokens::is_used.eq(false)));
                diesel::update(void)
                    .set((password_reset_tokens::is_used.eq(true), password_reset_tokens::updated_at.eq(now)))
                    .execute(conn)
                    .await?;
                throttles_forget_on_conn(conn, id).await?;
                bootstrap_note_on_conn(conn, id, now).await?;
                let ended = user_sessions_end_on_conn(conn, id, EndReason::AdminReset, now).await?;
                revoke_on_conn(conn, &[Revoked::User(id)], now).await?;
                Ok(ended)
            })
            .await
    }
}

/// Whoever holds the command line acts as the service itself.
async fn bootstrap_note_on_conn(
    conn: &mut AsyncPgConnection,
    id: Uuid,
    now: DateTime<Utc>,
) -> Result<(), DatabaseError> {
    let event = Event::done(Actor::System, AuditAction::AdminBootstrap, Target::User(id));
    audit_insert_on_conn(conn, &event, &Origin::default(), now).await
}
