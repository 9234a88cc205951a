//! Sessions: begun by a sign-in, ended together with their refresh tokens.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use service_kit::database::DatabaseError;
use uuid::Uuid;

use proto::auth::v1::AuditAction;

use super::accounts::caller_locked_on_conn;
use super::audit::audit_insert_on_conn;
use super::callers::{Caller, caller_check_on_conn};
use super::revocations::{Revoked, revoke_on_conn};
use super::schema::{refresh_tokens, sessions};
use super::{AuthStore, ChangeError};
use crate::domain::audit::{Actor, Event, Origin, Target};

/// A session that begins, with its first refresh token.
pub struct NewSession {
    /// Its id.
    pub id: Uuid,
    /// When it begins.
    pub now: DateTime<Utc>,
    /// When it ends in any case.
    pub expires_at: DateTime<Utc>,
    /// When its first access token ends.
    pub access_ends_at: DateTime<Utc>,
    /// `refresh_tokens.token_hash` of its first token.
    pub token_hash: String,
    /// When that token ends if it is not used.
    pub token_expires_at: DateTime<Utc>,
    /// What the client said it is.
    pub user_agent: Option<String>,
    /// Where it called from.
    pub source_address: Option<String>,
}

/// Why a session ended: `sessions.end_reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The user signed out.
    SignedOut,
    /// A used refresh token came back: it was stolen, or its successor was.
    TokenReused,
    /// `admin bootstrap --reset`.
    AdminReset,
    /// The user ended it from another session, or all of them.
    Revoked,
    /// The account got another password.
    PasswordChanged,
    /// The account was deactivated.
    Deactivated,
    /// The account was deleted; its sessions go with it.
    Deleted,
}

impl EndReason {
    /// As stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SignedOut => "signed_out",
            Self::TokenReused => "token_reused",
            Self::AdminReset => "admin_reset",
            Self::Revoked => "revoked",
            Self::PasswordChanged => "password_changed",
            Self::Deactivated => "deactivated",
            Self::Deleted => "deleted",
        }
    }
}

impl AuthStore {
    /// Ends the session of a refresh token, by the token's hash. Unknown and ended ones are no error. Gives whose it was.
    pub async fn session_end_by_token(
        &self,
        token_hash: &str,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<Option<Uuid>, DatabaseError> {
        self.database
            .transaction("session_end_by_token", async |conn| {
                let found: Option<(Uuid, Uuid)> = refresh_tokens::table
                    .filter(refresh_tokens::token_hash.eq(token_hash))
                    .select((refresh_tokens::session_id, refresh_tokens::user_id))
                    .first(conn)
                    .await
                    .optional()?;
                let Some((session_id, user_id)) = found else { return Ok(None) };
                let ended = sessions_end_on_conn(conn, &[session_id], EndReason::SignedOut, now).await?;
                if ended > 0 {
                    let event = Event::done(Actor::User(user_id), AuditAction::SignOut, Target::Session(session_id));
                    audit_insert_on_conn(conn, &event, origin, now).await?;
                    revoke_on_conn(conn, &[Revoked::Session(session_id)], now).await?;
                }
                Ok::<_, DatabaseError>(Some(user_id))
            })
            .await
    }

    /// Ends all sessions of the caller, this one too. Gives how many.
    pub async fn sessions_end_of_caller(
        &self,
        caller: Caller,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<usize, ChangeError> {
        self.database
            .transaction("sessions_end_of_caller", async |conn| {
                caller_locked_on_conn(conn, caller, now).await?;
                let ended = user_sessions_end_on_conn(conn, caller.user_id, EndReason::Revoked, now).await?;
                let user = Target::User(caller.user_id);
                let event = Event::done(caller.actor(), AuditAction::SignOutAll, user);
                audit_insert_on_conn(conn, &event, origin, now).await?;
                revoke_on_conn(conn, &[Revoked::User(caller.user_id)], now).await?;
                Ok::<_, ChangeError>(ended)
            })
            .await
    }

    /// Ends one session of the caller.
    pub async fn session_end_of_caller(
        &self,
        caller: Caller,
        id: Uuid,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<(), ChangeError> {
        self.database
            .transaction("session_end_of_caller", async |conn| {
                caller_check_on_conn(conn, caller, now).await?;
                let own: Option<Uuid> = sessions::table
                    .find(id)
                    .filter(sessions::user_id.eq(caller.user_id))
                    .filter(sessions::ended_at.is_null().and(sessions::expires_at.gt(now)))
                    .select(sessions::id)
                    .for_update()
                    .first(conn)
                    .await
                    .optional()?;
                let id = own.ok_or(ChangeError::SessionNotFound)?;
                sessions_end_on_conn(conn, &[id], EndReason::Revoked, now).await?;
                let event = Event::done(caller.actor(), AuditAction::SessionRevoke, Target::Session(id));
                audit_insert_on_conn(conn, &event, origin, now).await?;
                revoke_on_conn(conn, &[Revoked::Session(id)], now).await?;
                Ok::<_, ChangeError>(())
            })
            .await
    }

    /// At most `limit` sessions of the caller that can still be refreshed, the last used one first, beginning behind the one
    /// with this time and id.
    pub async fn sessions_list(
        &self,
        caller: Caller,
        behind: Option<(DateTime<Utc>, Uuid)>,
        limit: i64,
        now: DateTime<Utc>,
    ) -> Result<Vec<LivingSession>, ChangeError> {
        self.database
            .run("sessions_list", async |conn| {
                caller_check_on_conn(conn, caller, now).await?;
                let mut query = sessions::table
                    .inner_join(refresh_tokens::table)
                    .filter(sessions::user_id.eq(caller.user_id))
                    .filter(sessions::ended_at.is_null().and(sessions::expires_at.gt(now)))
                    // One token of a session is unused at any time.
                    .filter(refresh_tokens::is_revoked.eq(false).and(refresh_tokens::expires_at.gt(now)))
                    .into_boxed();
                if let Some((time, id)) = behind {
                    let tie = sessions::last_used_at.lt(time).or(sessions::id.lt(id));
                    query = query.filter(sessions::last_used_at.le(time).and(tie));
                }
                Ok::<_, ChangeError>(
                    query
                        .order((sessions::last_used_at.desc(), sessions::id.desc()))
                        .limit(limit)
                        .select((
                            sessions::id,
                            sessions::user_agent,
                            sessions::source_address,
                            sessions::created_at,
                            sessions::last_used_at,
                            refresh_tokens::expires_at,
                            sessions::expires_at,
                        ))
                        .load::<LivingSession>(conn)
                        .await?,
                )
            })
            .await
    }
}

/// A session that can still be refreshed.
#[derive(Debug, Clone, Queryable)]
pub struct LivingSession {
    /// Its id.
    pub id: Uuid,
    /// What the client said it is.
    pub user_agent: Option<String>,
    /// Where it called from.
    pub source_address: Option<String>,
    /// When it began.
    pub created_at: DateTime<Utc>,
    /// When it was last refreshed, or begun.
    pub last_used_at: DateTime<Utc>,
    /// When it ends unless it is refreshed.
    pub idle_expires_at: DateTime<Utc>,
    /// When it ends in any case.
    pub expires_at: DateTime<Utc>,
}

/// Ends all sessions of an account that go on. Gives how many.
pub(super) async fn user_sessions_end_on_conn(
    conn: &mut AsyncPgConnection,
    user_id: Uuid,
    reason: EndReason,
    now: DateTime<Utc>,
) -> Result<usize, DatabaseError> {
    let ids: Vec<Uuid> = sessions::table
        .filter(sessions::user_id.eq(user_id).and(sessions::ended_at.is_null()))
        .select(sessions::id)
        .order(sessions::id)
        .for_update()
        .load(conn)
        .await?;
    sessions_end_on_conn(conn, &ids, reason, now).await
}

/// Inserts a session and its first refresh token.
pub(super) async fn session_insert_on_conn(
    conn: &mut AsyncPgConnection,
    user_id: Uuid,
    session: &NewSession,
) -> Result<(), DatabaseError> {
    diesel::insert_into(sessions::table)
        .values((
            sessions::id.eq(session.id),
            sessions::user_id.eq(user_id),
            sessions::created_at.eq(session.now),
            sessions::last_used_at.eq(session.now),
            sessions::expires_at.eq(session.expires_at),
            sessions::tokens_end_at.eq(session.access_ends_at),
            sessions::user_agent.eq(&session.user_agent),
            sessions::source_address.eq(&session.source_address),
        ))
        .execute(conn)
        .await?;
    token_insert_on_conn(conn, user_id, session.id, &session.token_hash, session.now, session.token_expires_at).await
}

/// Inserts a refresh token of a session.
pub(super) async fn token_insert_on_conn(
    conn: &mut AsyncPgConnection,
    user_id: Uuid,
    session_id: Uuid,
    token_hash: &str,
    now: DateTime<Utc>,
    expires_at: DateTime<Utc>,
) -> Result<(), DatabaseError> {
    diesel::insert_into(refresh_tokens::table)
        .values((
            refresh_tokens::id.eq(Uuid::now_v7()),
            refresh_tokens::user_id.eq(user_id),
            refresh_tokens::session_id.eq(session_id),
            refresh_tokens::token_hash.eq(token_hash),
            refresh_tokens::expires_at.eq(expires_at),
            refresh_tokens::created_at.eq(now),
            refresh_tokens::updated_at.eq(now),
        ))
        .execute(conn)
        .await?;
    Ok(())
}

/// Ends sessions that go on, and revokes their tokens. Takes the rows of the sessions first, as a refresh does, so that no
/// refresh slips a new token in. Gives how many it ended.
pub(super) async fn sessions_end_on_conn(
    conn: &mut AsyncPgConnection,
    ids: &[Uuid],
    reason: EndReason,
    now: DateTime<Utc>,
) -> Result<usize, DatabaseError> {
    let ended = diesel::update(sessions::table.filter(sessions::id.eq_any(ids)).filter(sessions::ended_at.is_null()))
        .set((sessions::ended_at.eq(now), sessions::end_reason.eq(reason.as_str())))
        .execute(conn)
        .await?;
    // What was sealed for a repeated answer goes too.
    diesel::update(
        refresh_tokens::table
            .filter(refresh_tokens::session_id.eq_any(ids))
            .filter(refresh_tokens::is_revoked.eq(false).or(refresh_tokens::successor_sealed.is_not_null())),
    )
    .set((
        refresh_tokens::is_revoked.eq(true),
        refresh_tokens::successor_sealed.eq(None::<Vec<u8>>),
        refresh_tokens::updated_at.eq(now),
    ))
    .execute(conn)
    .await?;
    Ok(ended)
}
