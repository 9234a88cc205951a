//! What is void before its time, in an order that all replicas agree on.
//!
//! Whoever adds a row holds a lock until the end of the transaction, so revisions become visible in their order. The lock is
//! taken last, after all rows: nobody who holds it waits for somebody else's row.

use auth_client::{Principal, PrincipalKind};
use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};
use diesel::dsl::max;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use service_kit::database::DatabaseError;
use uuid::Uuid;

use super::AuthStore;
use super::schema::{revocations, roles, service_accounts, sessions, users};
use crate::domain::access_token::LONGEST_LIFE;

/// Key of the advisory lock, "authrevo" as bytes; those of keys and migrations are others.
const LOCK: i64 = i64::from_be_bytes(*b"authrevo");

/// Clocks may differ, and ACCESS_TOKEN_TTL may be lower now than when a token was made. So a revocation is remembered for the
/// longest life and this time: what has ended here may be good elsewhere a little longer.
pub const LEEWAY: TimeDelta = TimeDelta::seconds(60);

/// An ended session is remembered for this long at least: while a release is rolled out, replicas of the one before refresh sessions
/// and do not say when their tokens end.
const SESSION_LEAST: TimeDelta = TimeDelta::hours(1);

/// What becomes void.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revoked {
    /// Tokens of a user from before.
    User(Uuid),
    /// Tokens of a service account from before.
    ServiceAccount(Uuid),
    /// The tokens of a session.
    Session(Uuid),
    /// Tokens with this role from before.
    Role(String),
    /// What was known of the signing keys.
    SigningKeys,
}

/// A revocation with its place in the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// The place.
    pub revision: i64,
    /// What is void.
    pub revoked: Revoked,
    /// Tokens issued before this time are: what who does not know revisions goes by.
    pub not_before: DateTime<Utc>,
    /// When the last of them has expired.
    pub forget_at: DateTime<Utc>,
}

impl Revocation {
    /// Whether a verified token is void by it.
    pub fn voids(&self, principal: &Principal) -> bool {
        let is_older = principal.revision < self.revision;
        match &self.revoked {
            Revoked::User(id) => principal.kind == PrincipalKind::User && principal.id == *id && is_older,
            Revoked::ServiceAccount(id) => principal.kind == PrincipalKind::Service && principal.id == *id && is_older,
            Revoked::Session(id) => principal.session_id == Some(*id),
            Revoked::Role(name) => principal.kind == PrincipalKind::User && principal.role == *name && is_older,
            Revoked::SigningKeys => false,
        }
    }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = revocations, check_for_backend(diesel::pg::Pg))]
struct RevocationRow {
    revision: i64,
    kind: String,
    subject: Option<String>,
    not_before: Option<DateTime<Utc>>,
    forget_at: DateTime<Utc>,
}

impl RevocationRow {
    /// `None`: a newer program wrote it.
    fn read(self) -> Option<Revocation> {
        let Self { revision, kind, subject, not_before, forget_at } = self;
        let id = || subject.as_deref().and_then(|text| Uuid::parse_str(text).ok());
        let revoked = match kind.as_str() {
            "user" => Revoked::User(id()?),
            "service_account" => Revoked::ServiceAccount(id()?),
            "session" => Revoked::Session(id()?),
            "role" => Revoked::Role(subject?),
            "signing_keys" => Revoked::SigningKeys,
            _ => return None,
        };
        Some(Revocation { revision, revoked, not_before: not_before.unwrap_or(forget_at), forget_at })
    }
}

impl AuthStore {
    /// At most `limit` revocations behind a revision, in their order, and how far that reaches.
    pub async fn revocations_behind(
        &self,
        revision: i64,
        limit: i64,
    ) -> Result<(Vec<Revocation>, Option<i64>), DatabaseError> {
        self.database
            .run("revocations_behind", async |conn| {
                let rows: Vec<RevocationRow> = revocations::table
                    .filter(revocations::revision.gt(revision))
                    .order(revocations::revision)
                    .limit(limit)
                    .select(RevocationRow::as_select())
                    .load(conn)
                    .await?;
                let reached = rows.last().map(|row| row.revision);
                Ok((rows.into_iter().filter_map(RevocationRow::read).collect(), reached))
            })
            .await
    }

    /// The newest revision; 0 for none.
    pub async fn revocation_newest(&self) -> Result<i64, DatabaseError> {
        self.database.run("revocation_newest", async |conn| newest_revision_on_conn(conn).await).await
    }
}

/// Revokes, as the last thing of a transaction. For users, service accounts and roles it also says so in their rows; all rows
/// must be locked by then.
pub(super) async fn revoke_on_conn(
    conn: &mut AsyncPgConnection,
    revoked: &[Revoked],
    now: DateTime<Utc>,
) -> Result<(), DatabaseError> {
    diesel::sql_query("SELECT pg_advisory_xact_lock($1)")
        .bind::<diesel::sql_types::BigInt, _>(LOCK)
        .execute(conn)
        .await?;
    let newest = newest_revision_on_conn(conn).await?;
    let not_before = not_before(now);
    let longest = not_before + LONGEST_LIFE;
    let mut rows = Vec::with_capacity(revoked.len());
    for (revision, revoked) in (now.timestamp_micros().max(newest + 1)..).zip(revoked) {
        match revoked {
            Revoked::User(id) => {
                let row = diesel::update(users::table.find(id));
                row.set(users::tokens_revision.eq(revision)).execute(conn).await?;
            }
            Revoked::Role(name) => {
                let row = diesel::update(roles::table.filter(roles::name.eq(name)));
                row.set(roles::tokens_revision.eq(revision)).execute(conn).await?;
            }
            Revoked::ServiceAccount(id) => {
                let row = diesel::update(service_accounts::table.find(id));
                row.set(service_accounts::tokens_revision.eq(revision)).execute(conn).await?;
            }
            Revoked::Session(_) | Revoked::SigningKeys => {}
        }
        let last_token_until = match revoked {
            // Most revocations are sign-outs: each is remembered no longer than it must be.
            Revoked::Session(id) => {
                let until = tokens_end_on_conn(conn, *id).await?.unwrap_or(longest);
                until.clamp(not_before + SESSION_LEAST, longest)
            }
            _ => longest,
        };
        let (kind, subject) = stored(revoked);
        rows.push((
            revocations::revision.eq(revision),
            revocations::kind.eq(kind),
            revocations::subject.eq(subject),
            revocations::not_before.eq(not_before),
            revocations::forget_at.eq(last_token_until + LEEWAY),
        ));
    }
    diesel::insert_into(revocations::table).values(rows).execute(conn).await?;
    Ok(())
}

/// When the last access token of a session ends; `None` when a program wrote it that did not say.
async fn tokens_end_on_conn(conn: &mut AsyncPgConnection, id: Uuid) -> Result<Option<DateTime<Utc>>, DatabaseError> {
    let session = sessions::table.find(id).select(sessions::tokens_end_at);
    let until: Option<Option<DateTime<Utc>>> = session.first(conn).await.optional()?;
    Ok(until.flatten())
}

/// The newest revision; 0 for none. What is read after it belongs to it or is newer: later revocations void a token of that.
pub(super) async fn newest_revision_on_conn(conn: &mut AsyncPgConnection) -> Result<i64, DatabaseError> {
    let newest: Option<i64> = revocations::table.select(max(revocations::revision)).first(conn).await?;
    Ok(newest.unwrap_or_default())
}

fn stored(revoked: &Revoked) -> (&'static str, Option<String>) {
    match revoked {
        Revoked::User(id) => ("user", Some(id.to_string())),
        Revoked::ServiceAccount(id) => ("service_account", Some(id.to_string())),
        Revoked::Session(id) => ("session", Some(id.to_string())),
        Revoked::Role(name) => ("role", Some(name.clone())),
        Revoked::SigningKeys => ("signing_keys", None),
    }
}

/// Tokens tell their time in whole seconds: one of this very second may be older than the revocation.
fn not_before(now: DateTime<Utc>) -> DateTime<Utc> {
    let second = TimeDelta::seconds(1);
    now.duration_trunc(second).unwrap_or(now) + second
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_of_the_very_second_is_void() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        assert_eq!(not_before(at("2026-01-01T00:00:00.999999Z")), at("2026-01-01T00:00:01Z"));
        assert_eq!(not_before(at("2026-01-01T00:00:00Z")), at("2026-01-01T00:00:01Z"));
    }

    #[test]
    fn what_is_stored_reads_back() {
        let now = Utc::now();
        let all = [
            Revoked::User(Uuid::now_v7()),
            Revoked::ServiceAccount(Uuid::now_v7()),
            Revoked::Session(Uuid::now_v7()),
            Revoked::Role("auditor".to_owned()),
            Revoked::SigningKeys,
        ];
        for revoked in all {
            let (kind, subject) = stored(&revoked);
            let row =
                RevocationRow { revision: 1, kind: kind.to_owned(), subject, not_before: Some(now), forget_at: now };
            assert_eq!(row.read().unwrap().revoked, revoked);
        }
        let newer =
            RevocationRow { revision: 1, kind: "planet".to_owned(), subject: None, not_before: None, forget_at: now };
        assert_eq!(newer.read(), None);
    }
}
