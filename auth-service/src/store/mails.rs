//! Mails: asked for, claimed by one replica at a time, and what their tokens do when they come back.

use aws_lc_rs::digest::{SHA256, digest};
use chrono::{DateTime, TimeDelta, Utc};
use diesel::dsl::count_star;
use diesel::prelude::*;
use diesel::sql_types::{Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use proto::auth::v1::AuditAction;
use service_kit::database::DatabaseError;
use uuid::Uuid;

use super::accounts::{account_lock_on_conn, account_on_conn, caller_locked_on_conn, reset_tokens_void_on_conn};
use super::audit::audit_insert_on_conn;
use super::callers::Caller;
use super::revocations::{Revoked, revoke_on_conn};
use super::schema::{audit_events, email_verification_tokens, mail_outbox, password_reset_tokens, users};
use super::sessions::{EndReason, user_sessions_end_on_conn};
use super::throttles::throttles_forget_on_conn;
use super::{AuthStore, ChangeError};
use crate::domain::account::Email;
use crate::domain::audit::{Actor, Event, Origin, Target};
use crate::domain::mail::{MOST_PER_HOUR, MailKind, TOKEN_TTL};
use crate::domain::user::User;

/// `password_reset_tokens.hash_algorithm` of what this program writes.
const HASH: &str = "sha256";

/// A mail that this replica is to send.
#[derive(Debug, Clone)]
pub struct ClaimedMail {
    /// The row of the outbox.
    pub id: Uuid,
    /// What it is for; `None`: a newer program asked for it.
    pub kind: Option<MailKind>,
    /// Since when it waits.
    pub created_at: DateTime<Utc>,
    /// Which attempt this is, from 1.
    pub attempt: i32,
    /// Where to; `None`: nothing is to be sent any more, because the account is inactive or the address is verified.
    pub to: Option<(String, String)>,
}

#[derive(QueryableByName)]
struct ClaimedRow {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    user_id: Uuid,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Timestamptz)]
    created_at: DateTime<Utc>,
    #[diesel(sql_type = Integer)]
    attempts: i32,
    #[diesel(sql_type = Nullable<Text>)]
    address: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    addressee: Option<String>,
}

/// Another replica skips a row that is being claimed; the lease brings it back when the one that claimed it dies. The account
/// is locked with it: nobody changes address or password between here and the token. An account that is being changed is
/// skipped, too, so that nobody waits here.
const CLAIM: &str = "UPDATE mail_outbox SET attempts = attempts + 1, next_attempt_at = $2 WHERE id = (
        SELECT m.id FROM mail_outbox m JOIN users u ON u.id = m.user_id WHERE m.next_attempt_at <= $1
        ORDER BY m.next_attempt_at LIMIT 1 FOR NO KEY UPDATE OF m, u SKIP LOCKED
    ) RETURNING id, user_id, kind, created_at, attempts, address, addressee";

/// The same for a notice, which needs neither a token nor the account: who keeps the account busy does not keep it from its addressee.
const CLAIM_NOTICE: &str = "UPDATE mail_outbox SET attempts = attempts + 1, next_attempt_at = $2 WHERE id = (
        SELECT id FROM mail_outbox WHERE next_attempt_at <= $1 AND address IS NOT NULL
        ORDER BY next_attempt_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
    ) RETURNING id, user_id, kind, created_at, attempts, address, addressee";

impl AuthStore {
    /// Puts a mail for whoever wants a new password into the outbox and voids the tokens that are out, if there is an active
    /// account with the address, in this spelling or, where it is one by today's rules, in another case. The request is in the
    /// audit trail in any case.
    pub async fn password_reset_ask(
        &self,
        email: &str,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<(), ChangeError> {
        self.database
            .transaction("password_reset_ask", async |conn| {
                let today = Email::parse(email).ok();
                let spelled = today.as_ref().map_or(email, Email::as_str);
                let exact = || users::email.eq_any([email, spelled]);
                let key = today.as_ref().map(Email::key);
                let folded = users::email_key.is_not_null().and(users::email_key.eq(key).assume_not_null());
                // The account in this very spelling comes first: legacy accounts may differ by case alone.
                let found: Option<Uuid> = users::table
                    .filter(exact().or(folded).and(users::is_active))
                    .order((users::email.eq(email).desc(), exact().desc(), users::id))
                    .select(users::id)
                    .for_no_key_update()
                    .first(conn)
                    .await
                    .optional()?;
                let event = Event {
                    actor: Actor::Anonymous,
                    action: AuditAction::PasswordResetRequest,
                    target: found.map(Target::User),
                    reason: found.is_none().then_some("NO_ACTIVE_ACCOUNT"),
                    changed_fields: Vec::new(),
                };
                audit_insert_on_conn(conn, &event, origin, now).await?;
                if let Some(user_id) = found {
                    // Where no newer token comes the one that is out stays: or anybody could keep the owner without one.
                    if mail_ask_on_conn(conn, user_id, MailKind::PasswordReset, now).await? {
                        reset_tokens_void_on_conn(conn, user_id, now).await?;
                    }
                }
                Ok::<_, ChangeError>(())
            })
            .await
    }

    /// Puts a mail to the caller's own address into the outbox, unless that is verified.
    pub async fn email_verification_ask(
        &self,
        caller: Caller,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<(), ChangeError> {
        self.database
            .transaction("email_verification_ask", async |conn| {
                let user = caller_locked_on_conn(conn, caller, now).await?;
                if user.email_verified {
                    return Ok(());
                }
                if mail_ask_on_conn(conn, caller.user_id, MailKind::EmailVerification, now).await? {
                    verification_tokens_void_on_conn(conn, caller.user_id).await?;
                }
                let target = Target::User(caller.user_id);
                let event = Event::done(caller.actor(), AuditAction::EmailVerificationRequest, target);
                audit_insert_on_conn(conn, &event, origin, now).await?;
                Ok::<_, ChangeError>(())
            })
            .await
    }

    /// The next mail that is due, kept from other replicas for the time of the `lease`, with a new token of this hash; older
    /// tokens of its kind are void from here on.
    pub async fn mail_claim(
        &self,
        token_hash: &str,
        lease: TimeDelta,
        now: DateTime<Utc>,
    ) -> Result<Option<ClaimedMail>, ChangeError> {
        self.database
            .transaction("mail_claim", async |conn| {
                let mut row: Option<ClaimedRow> = None;
                for claim in [CLAIM_NOTICE, CLAIM] {
                    if row.is_none() {
                        let claim = diesel::sql_query(claim).bind::<Timestamptz, _>(now);
                        let claim = claim.bind::<Timestamptz, _>(now + lease);
                        row = claim.get_result(conn).await.optional()?;
                    }
                }
                let Some(row) = row else { return Ok(None) };
                let kind = MailKind::from_stored(&row.kind);
                let user = account_on_conn(conn, row.user_id).await?;
                let is_wanted = match kind {
                    Some(MailKind::PasswordReset) => user.is_active,
                    Some(MailKind::EmailVerification) => user.is_active && !user.email_verified,
                    // Also when the account was deactivated since: by whom is what its owner may ask.
                    Some(MailKind::EmailChanged) => row.address.is_some(),
                    None => false,
                };
                if let Some(kind) = kind.filter(|_| is_wanted) {
                    token_insert_on_conn(conn, kind, &user, token_hash, now).await?;
                }
                let (address, name) = (row.address.unwrap_or(user.email), row.addressee.unwrap_or(user.username));
                let to = is_wanted.then_some((address, name));
                let ClaimedRow { id, created_at, attempts, .. } = row;
                Ok::<_, ChangeError>(Some(ClaimedMail { id, kind, created_at, attempt: attempts, to }))
            })
            .await
    }

    /// Takes a mail out of the outbox: it was sent, or given up. One that was asked for anew meanwhile has another id.
    pub async fn mail_remove(&self, id: Uuid) -> Result<(), DatabaseError> {
        self.database
            .run("mail_remove", async |conn| {
                diesel::delete(mail_outbox::table.find(id)).execute(conn).await?;
                Ok(())
            })
            .await
    }

    /// Tries a mail again later. The token that did not leave is forgotten: it does not count as a mail.
    pub async fn mail_postpone(&self, id: Uuid, token_hash: &str, until: DateTime<Utc>) -> Result<(), DatabaseError> {
        self.database
            .transaction("mail_postpone", async |conn| {
                let reset = password_reset_tokens::token_hash.eq(token_hash);
                diesel::delete(password_reset_tokens::table.filter(reset)).execute(conn).await?;
                let verification = email_verification_tokens::token_hash.eq(token_hash);
                diesel::delete(email_verification_tokens::table.filter(verification)).execute(conn).await?;
                diesel::update(mail_outbox::table.find(id))
                    .set(mail_outbox::next_attempt_at.eq(until))
                    .execute(conn)
                    .await?;
                Ok(())
            })
            .await
    }

    /// How many mails wait.
    pub async fn mails_waiting(&self) -> Result<i64, DatabaseError> {
        self.database
            .run("mails_waiting", async |conn| Ok(mail_outbox::table.select(count_star()).first(conn).await?))
            .await
    }

    /// Whose account an open token for a new password is of.
    pub async fn reset_token_find(&self, token_hash: &str, now: DateTime<Utc>) -> Result<User, ChangeError> {
        self.database
            .run("reset_token_find", async |conn| {
                let id: Option<Uuid> = password_reset_tokens::table
                    .filter(open_reset_token(token_hash, now))
                    .select(password_reset_tokens::user_id)
                    .first(conn)
                    .await
                    .optional()?;
                let user = account_on_conn(conn, id.ok_or(ChangeError::MailTokenInvalid)?).await?;
                if user.is_active { Ok(user) } else { Err(ChangeError::MailTokenInvalid) }
            })
            .await
    }

    /// Gives the account of an open token a new hash, uses the token up and ends all sessions. Of two with one token one wins.
    pub async fn password_reset(
        &self,
        token_hash: &str,
        new_hash: &str,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<Uuid, ChangeError> {
        self.database
            .transaction("password_reset", async |conn| {
                let found: Option<Uuid> = password_reset_tokens::table
                    .filter(open_reset_token(token_hash, now))
                    .select(password_reset_tokens::user_id)
                    .first(conn)
                    .await
                    .optional()?;
                let user_id = found.ok_or(ChangeError::MailTokenInvalid)?;
                gone(account_lock_on_conn(conn, user_id).await)?;
                let used = diesel::update(password_reset_tokens::table)
                    .filter(open_reset_token(token_hash, now))
                    .set((password_reset_tokens::is_used.eq(true), password_reset_tokens::updated_at.eq(now)))
                    .execute(conn)
                    .await?;
                if used == 0 {
                    return Err(ChangeError::MailTokenInvalid);
                }
                let updated = diesel::update(users::table.find(user_id).filter(users::is_active))
                    .set((users::password_hash.eq(new_hash), users::updated_at.eq(now)))
                    .execute(conn)
                    .await?;
                if updated == 0 {
                    return Err(ChangeError::MailTokenInvalid);
                }
                reset_tokens_void_on_conn(conn, user_id, now).await?;
                throttles_forget_on_conn(conn, user_id).await?;
                user_sessions_end_on_conn(conn, user_id, EndReason::PasswordChanged, now).await?;
                let event = Event::done(Actor::User(user_id), AuditAction::PasswordReset, Target::User(user_id));
                audit_insert_on_conn(conn, &event, origin, now).await?;
                revoke_on_conn(conn, &[Revoked::User(user_id)], now).await?;
                Ok(user_id)
            })
            .await
    }

    /// Marks the address of an open token as verified, if the account still has it. Gives whose account it is.
    pub async fn email_verify(
        &self,
        token_hash: &str,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<Uuid, ChangeError> {
        self.database
            .transaction("email_verify", async |conn| {
                let open = email_verification_tokens::token_hash
                    .eq(token_hash)
                    .and(email_verification_tokens::is_used.eq(false))
                    .and(email_verification_tokens::expires_at.gt(now));
                let found: Option<(Uuid, String)> = email_verification_tokens::table
                    .filter(open)
                    .select((email_verification_tokens::user_id, email_verification_tokens::email))
                    .first(conn)
                    .await
                    .optional()?;
                let (user_id, email) = found.ok_or(ChangeError::MailTokenInvalid)?;
                gone(account_lock_on_conn(conn, user_id).await)?;
                let used = diesel::update(email_verification_tokens::table.filter(open))
                    .set(email_verification_tokens::is_used.eq(true))
                    .execute(conn)
                    .await?;
                if used == 0 {
                    return Err(ChangeError::MailTokenInvalid);
                }
                let meant = users::table.find(user_id).filter(users::is_active.and(users::email.eq(email)));
                let updated = diesel::update(meant)
                    .set((users::email_verified.eq(true), users::updated_at.eq(now)))
                    .execute(conn)
                    .await?;
                if updated == 0 {
                    return Err(ChangeError::MailTokenInvalid);
                }
                let event = Event::done(Actor::User(user_id), AuditAction::EmailVerify, Target::User(user_id));
                audit_insert_on_conn(conn, &event.changing(&["email_verified"]), origin, now).await?;
                Ok(user_id)
            })
            .await
    }
}

/// An account that was deleted meanwhile has no good token.
fn gone(locked: Result<(), ChangeError>) -> Result<(), ChangeError> {
    locked.map_err(|error| match error {
        ChangeError::UserNotFound => ChangeError::MailTokenInvalid,
        other => other,
    })
}

type OpenResetToken<'a> = diesel::dsl::And<
    diesel::dsl::And<
        diesel::dsl::Eq<password_reset_tokens::token_hash, &'a str>,
        diesel::dsl::Eq<password_reset_tokens::is_used, bool>,
    >,
    diesel::dsl::Gt<password_reset_tokens::expires_at, DateTime<Utc>>,
>;

fn open_reset_token(token_hash: &str, now: DateTime<Utc>) -> OpenResetToken<'_> {
    password_reset_tokens::token_hash
        .eq(token_hash)
        .and(password_reset_tokens::is_used.eq(false))
        .and(password_reset_tokens::expires_at.gt(now))
}

/// Has the address that an account had until now told of the change. One row for each address: a notice that waits stays.
pub(super) async fn change_notice_on_conn(
    conn: &mut AsyncPgConnection,
    before: &User,
    now: DateTime<Utc>,
) -> Result<(), ChangeError> {
    let kind = format!("{}:{}", MailKind::EmailChanged.as_str(), mark_of(&before.email));
    diesel::insert_into(mail_outbox::table)
        .values((
            mail_outbox::id.eq(Uuid::now_v7()),
            mail_outbox::user_id.eq(before.id),
            mail_outbox::kind.eq(kind),
            mail_outbox::created_at.eq(now),
            mail_outbox::next_attempt_at.eq(now),
            mail_outbox::address.eq(&before.email),
            mail_outbox::addressee.eq(&before.username),
        ))
        .on_conflict((mail_outbox::user_id, mail_outbox::kind))
        .do_nothing()
        .execute(conn)
        .await?;
    Ok(())
}

/// Tells the addresses of one account apart: the beginning of a hash, as lower-case hex.
fn mark_of(address: &str) -> String {
    hex::encode(digest(&SHA256, address.as_bytes())).chars().take(16).collect()
}

/// Goes on while an owner has not changed the address too often: each change is told to an address that may be a stranger's, and none
/// may go untold because others were.
pub(super) async fn changes_check_on_conn(
    conn: &mut AsyncPgConnection,
    owner: Uuid,
    now: DateTime<Utc>,
) -> Result<(), ChangeError> {
    let window = TimeDelta::hours(1);
    let changes = audit_events::target_id
        .eq(owner.to_string())
        .and(audit_events::occurred_at.gt(now - window))
        .and(audit_events::changed_fields.contains(vec![Some("email")]));
    let times = audit_events::table.filter(changes).select(audit_events::occurred_at);
    let times: Vec<DateTime<Utc>> =
        times.order(audit_events::occurred_at.desc()).limit(MOST_PER_HOUR).load(conn).await?;
    match times.last() {
        Some(oldest) if times.len() as i64 >= MOST_PER_HOUR => Err(ChangeError::TooManyChanges(*oldest + window)),
        _ => Ok(()),
    }
}

/// Puts a mail into the outbox, in place of one of its kind that still waits. `false`: the account had enough of them.
async fn mail_ask_on_conn(
    conn: &mut AsyncPgConnection,
    user_id: Uuid,
    kind: MailKind,
    now: DateTime<Utc>,
) -> Result<bool, ChangeError> {
    let since = now - TimeDelta::hours(1);
    let recent: i64 = match kind {
        MailKind::PasswordReset => {
            let of = password_reset_tokens::user_id.eq(user_id).and(password_reset_tokens::created_at.gt(since));
            password_reset_tokens::table.filter(of).select(count_star()).first(conn).await?
        }
        MailKind::EmailVerification => {
            let of =
                email_verification_tokens::user_id.eq(user_id).and(email_verification_tokens::created_at.gt(since));
            email_verification_tokens::table.filter(of).select(count_star()).first(conn).await?
        }
        // Nobody asks for it.
        MailKind::EmailChanged => return Ok(false),
    };
    if recent >= MOST_PER_HOUR {
        metrics::counter!("mails_suppressed_total", "kind" => kind.as_str()).increment(1);
        return Ok(false);
    }
    let waiting = (
        mail_outbox::id.eq(Uuid::now_v7()),
        mail_outbox::created_at.eq(now),
        mail_outbox::next_attempt_at.eq(now),
        mail_outbox::attempts.eq(0),
    );
    diesel::insert_into(mail_outbox::table)
        .values((mail_outbox::user_id.eq(user_id), mail_outbox::kind.eq(kind.as_str()), waiting))
        .on_conflict((mail_outbox::user_id, mail_outbox::kind))
        .do_update()
        .set(waiting)
        .execute(conn)
        .await?;
    Ok(true)
}

/// A new token of an account; those before it are void.
async fn token_insert_on_conn(
    conn: &mut AsyncPgConnection,
    kind: MailKind,
    user: &User,
    token_hash: &str,
    now: DateTime<Utc>,
) -> Result<(), ChangeError> {
    match kind {
        MailKind::PasswordReset => {
            reset_tokens_void_on_conn(conn, user.id, now).await?;
            diesel::insert_into(password_reset_tokens::table)
                .values((
                    password_reset_tokens::id.eq(Uuid::now_v7()),
                    password_reset_tokens::user_id.eq(user.id),
                    password_reset_tokens::token_hash.eq(token_hash),
                    password_reset_tokens::expires_at.eq(now + TOKEN_TTL),
                    password_reset_tokens::created_at.eq(now),
                    password_reset_tokens::updated_at.eq(now),
                    password_reset_tokens::hash_algorithm.eq(HASH),
                ))
                .execute(conn)
                .await?;
        }
        MailKind::EmailVerification => {
            verification_tokens_void_on_conn(conn, user.id).await?;
            diesel::insert_into(email_verification_tokens::table)
                .values((
                    email_verification_tokens::id.eq(Uuid::now_v7()),
                    email_verification_tokens::user_id.eq(user.id),
                    email_verification_tokens::email.eq(&user.email),
                    email_verification_tokens::token_hash.eq(token_hash),
                    email_verification_tokens::expires_at.eq(now + TOKEN_TTL),
                    email_verification_tokens::created_at.eq(now),
                ))
                .execute(conn)
                .await?;
        }
        MailKind::EmailChanged => {}
    }
    Ok(())
}

/// Voids what is out to verify an address with.
pub(super) async fn verification_tokens_void_on_conn(
    conn: &mut AsyncPgConnection,
    user_id: Uuid,
) -> Result<(), ChangeError> {
    let open = email_verification_tokens::table
        .filter(email_verification_tokens::user_id.eq(user_id).and(email_verification_tokens::is_used.eq(false)));
    diesel::update(open).set(email_verification_tokens::is_used.eq(true)).execute(conn).await?;
    Ok(())
}
