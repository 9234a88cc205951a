//! Rotation of refresh tokens. The row of the session is locked first: whatever happens to one family happens in a row, so
//! that 32 refreshes of one token at once make one successor.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Nullable, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use proto::auth::v1::AuditAction;
use service_kit::database::DatabaseError;
use uuid::Uuid;

use super::AuthStore;
use super::audit::audit_insert_on_conn;
use super::revocations::{Revoked, newest_revision_on_conn, revoke_on_conn};
use super::roles::role_permissions_on_conn;
use super::schema::{refresh_tokens, roles, sessions, users};
use super::sessions::{EndReason, sessions_end_on_conn, token_insert_on_conn};
use crate::domain::access_token::{LONGEST_LIFE, Subject};
use crate::domain::audit::{Actor, Event, Origin, Target};
use crate::domain::refresh_token::{RefreshToken, TokenState, Verdict};

/// A token that is presented, and the one that replaces it if all is well.
pub struct Rotation<'a> {
    /// What the client sent.
    pub presented: &'a RefreshToken,
    /// A new one.
    pub next: &'a RefreshToken,
    /// The new one, sealed under the presented one.
    pub next_sealed: &'a [u8],
    /// From where it is presented.
    pub origin: &'a Origin,
    /// The time of the call.
    pub now: DateTime<Utc>,
    /// Life of a refresh token that is not used.
    pub ttl: TimeDelta,
    /// When the access token ends that goes with the answer.
    pub access_ends_at: DateTime<Utc>,
}

/// What became of it.
pub enum Refreshed {
    /// The new token counts.
    Rotated {
        /// For the access token.
        subject: Subject,
        /// When the new refresh token ends.
        expires_at: DateTime<Utc>,
    },
    /// It had been traded a moment ago; this is the successor from then.
    Repeated {
        /// For the access token.
        subject: Subject,
        /// The successor.
        successor: RefreshToken,
        /// When it ends.
        expires_at: DateTime<Utc>,
    },
    /// Unknown, revoked, expired, or its session or user is gone.
    Refused,
    /// A used token came back: the session is ended.
    SessionEnded {
        /// Which.
        session_id: Uuid,
        /// Whose.
        user_id: Uuid,
    },
}

#[derive(Queryable)]
struct TokenRow {
    id: Uuid,
    expires_at: DateTime<Utc>,
    is_revoked: bool,
    rotated_at: Option<DateTime<Utc>>,
    successor_sealed: Option<Vec<u8>>,
}

/// A session that goes on, of an active user.
struct Living {
    id: Uuid,
    user_id: Uuid,
    expires_at: DateTime<Utc>,
    role: String,
    /// The newest revocation when the role was read.
    revision: i64,
}

impl AuthStore {
    /// Trades a refresh token.
    pub async fn session_refresh(&self, rotation: &Rotation<'_>) -> Result<Refreshed, DatabaseError> {
        let hash = rotation.presented.hash();
        self.database
            .transaction("session_refresh", async |conn| {
                let Some(session) = session_lock_on_conn(conn, &hash, rotation.now).await? else {
                    return Ok(Refreshed::Refused);
                };
                // Read after the lock: a refresh that held it may have traded this token.
                let token: TokenRow = refresh_tokens::table
                    .filter(refresh_tokens::token_hash.eq(&hash))
                    .select((
                        refresh_tokens::id,
                        refresh_tokens::expires_at,
                        refresh_tokens::is_revoked,
                        refresh_tokens::rotated_at,
                        refresh_tokens::successor_sealed,
                    ))
                    .first(conn)
                    .await?;
                let state = TokenState {
                    expires_at: token.expires_at,
                    is_revoked: token.is_revoked,
                    rotated_at: token.rotated_at,
                };
                match state.verdict(rotation.now) {
                    Verdict::Rotate => rotate_on_conn(conn, rotation, &session, token.id).await,
                    Verdict::Repeat => {
                        match successor_on_conn(conn, rotation, token.successor_sealed.as_deref()).await? {
                            Some((successor, expires_at)) => {
                                let session_row = sessions::table.find(session.id);
                                diesel::update(session_row).set(tokens_end(rotation)).execute(conn).await?;
                                let subject = subject_on_conn(conn, &session).await?;
                                Ok(Refreshed::Repeated { subject, successor, expires_at })
                            }
                            None => reuse_on_conn(conn, rotation, &session).await,
                        }
                    }
                    Verdict::Refuse => Ok(Refreshed::Refused),
                    Verdict::EndSession => reuse_on_conn(conn, rotation, &session).await,
                }
            })
            .await
    }
}

async fn reuse_on_conn(
    conn: &mut AsyncPgConnection,
    rotation: &Rotation<'_>,
    session: &Living,
) -> Result<Refreshed, DatabaseError> {
    sessions_end_on_conn(conn, &[session.id], EndReason::TokenReused, rotation.now).await?;
    let session_ended = Target::Session(session.id);
    let event = Event::done(Actor::Anonymous, AuditAction::RefreshTokenReuse, session_ended);
    audit_insert_on_conn(conn, &event, rotation.origin, rotation.now).await?;
    revoke_on_conn(conn, &[Revoked::Session(session.id)], rotation.now).await?;
    Ok(Refreshed::SessionEnded { session_id: session.id, user_id: session.user_id })
}

/// The session of a token, locked, if it goes on and its user is active.
async fn session_lock_on_conn(
    conn: &mut AsyncPgConnection,
    token_hash: &str,
    now: DateTime<Utc>,
) -> Result<Option<Living>, DatabaseError> {
    let id: Option<Uuid> = refresh_tokens::table
        .filter(refresh_tokens::token_hash.eq(token_hash))
        .select(refresh_tokens::session_id)
        .first(conn)
        .await
        .optional()?;
    let Some(id) = id else { return Ok(None) };
    let locked: Option<(Uuid, DateTime<Utc>)> = sessions::table
        .find(id)
        .filter(sessions::ended_at.is_null().and(sessions::expires_at.gt(now)))
        .select((sessions::user_id, sessions::expires_at))
        .for_update()
        .first(conn)
        .await
        .optional()?;
    let Some((user_id, expires_at)) = locked else { return Ok(None) };
    let revision = newest_revision_on_conn(conn).await?;
    let role: Option<String> = users::table
        .inner_join(roles::table)
        .filter(users::id.eq(user_id).and(users::is_active))
        .select(roles::name)
        .first(conn)
        .await
        .optional()?;
    Ok(role.map(|role| Living { id, user_id, expires_at, role, revision }))
}

async fn rotate_on_conn(
    conn: &mut AsyncPgConnection,
    rotation: &Rotation<'_>,
    session: &Living,
    token_id: Uuid,
) -> Result<Refreshed, DatabaseError> {
    let now = rotation.now;
    // The condition repeats what the lock promises: two successors of one token cannot be, whoever else writes this table.
    let unused = refresh_tokens::table
        .find(token_id)
        .filter(refresh_tokens::rotated_at.is_null().and(refresh_tokens::is_revoked.eq(false)));
    let traded = diesel::update(unused)
        .set((
            refresh_tokens::rotated_at.eq(now),
            refresh_tokens::is_revoked.eq(true),
            refresh_tokens::successor_sealed.eq(rotation.next_sealed),
            refresh_tokens::updated_at.eq(now),
        ))
        .execute(conn)
        .await?;
    if traded == 0 {
        return Ok(Refreshed::Refused);
    }
    let expires_at = session.expires_at.min(now + rotation.ttl);
    token_insert_on_conn(conn, session.user_id, session.id, &rotation.next.hash(), now, expires_at).await?;
    let used =
        (sessions::last_used_at.eq(now), sessions::source_address.eq(&rotation.origin.source), tokens_end(rotation));
    diesel::update(sessions::table.find(session.id)).set(used).execute(conn).await?;
    Ok(Refreshed::Rotated { subject: subject_on_conn(conn, session).await?, expires_at })
}

diesel::define_sql_function! {
    /// The later of two times.
    fn greatest(one: Timestamptz, other: Timestamptz) -> Timestamptz
}

diesel::define_sql_function! {
    /// The first that is known.
    fn coalesce(one: Nullable<Timestamptz>, other: Timestamptz) -> Timestamptz
}

/// Moves the end of the session's last access token on. It never moves back: another replica may have made longer ones, and of tokens
/// from before this was written down nothing is known but the longest that there can be.
#[diesel::dsl::auto_type(no_type_alias)]
fn tokens_end(rotation: &Rotation<'_>) -> _ {
    let (until, unknown): (DateTime<Utc>, DateTime<Utc>) = (rotation.access_ends_at, rotation.now + LONGEST_LIFE);
    sessions::tokens_end_at.eq(greatest(coalesce(sessions::tokens_end_at, unknown), until).nullable())
}

/// The successor from the last time, if it is unused: then the presented token is the one right before the current one.
async fn successor_on_conn(
    conn: &mut AsyncPgConnection,
    rotation: &Rotation<'_>,
    sealed: Option<&[u8]>,
) -> Result<Option<(RefreshToken, DateTime<Utc>)>, DatabaseError> {
    let Some(successor) = sealed.and_then(|sealed| rotation.presented.open_successor(sealed).ok()) else {
        return Ok(None);
    };
    let expires_at: Option<DateTime<Utc>> = refresh_tokens::table
        .filter(refresh_tokens::token_hash.eq(successor.hash()))
        .filter(refresh_tokens::rotated_at.is_null().and(refresh_tokens::is_revoked.eq(false)))
        .select(refresh_tokens::expires_at)
        .first(conn)
        .await
        .optional()?;
    Ok(expires_at.map(|expires_at| (successor, expires_at)))
}

async fn subject_on_conn(conn: &mut AsyncPgConnection, session: &Living) -> Result<Subject, DatabaseError> {
    let permissions = role_permissions_on_conn(conn, &session.role).await?;
    let Living { id, user_id, role, revision, .. } = session;
    Ok(Subject { id: *user_id, session_id: Some(*id), role: role.clone(), permissions, revision: *revision })
}
