//! Sessions: begun by a sign-in, ended together with their refresh tokens.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use service_kit::database::DatabaseError;
use uuid::Uuid;

use super::AuthStore;
use super::schema::{refresh_tokens, sessions};

/// A session that begins, with its first refresh token.
pub struct NewSession {
    /// Its id.
    pub id: Uuid,
    /// When it begins.
    pub now: DateTime<Utc>,
    /// When it ends in any case.
    pub expires_at: DateTime<Utc>,
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
}

impl EndReason {
    /// As stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SignedOut => "signed_out",
            Self::TokenReused => "token_reused",
            Self::AdminReset => "admin_reset",
        }
    }
}

impl AuthStore {
    /// Ends the session of a refresh token, by the token's hash. Unknown and ended ones are no error. Gives whose it was.
    pub async fn session_end_by_token(
        &self,
        token_hash: &str,
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
                sessions_end_on_conn(conn, &[session_id], EndReason::SignedOut, now).await?;
                Ok::<_, DatabaseError>(Some(user_id))
            })
            .await
    }
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
