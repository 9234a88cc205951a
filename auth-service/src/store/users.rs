//! Accounts.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use proto::auth::v1::AuditAction;
use service_kit::database::DatabaseError;
use uuid::Uuid;

use super::audit::audit_insert_on_conn;
use super::callers::{Caller, good_caller};
use super::revocations::newest_revision_on_conn;
use super::roles::{MEMBER, role_permissions_on_conn};
use super::schema::{roles, sessions, users};
use super::sessions::{NewSession, session_insert_on_conn};
use super::throttles::throttle_passed_on_conn;
use super::{AuthStore, ChangeError};
use crate::domain::access_token::Subject;
use crate::domain::audit::{Actor, Event, Origin, Target};
use crate::domain::throttle::ThrottleKeys;
use crate::domain::user::{Credentials, NewUser, User, best_match};

/// The columns of an account that callers see, with the role's name.
#[derive(Queryable)]
pub(super) struct UserRow {
    id: Uuid,
    email: String,
    username: String,
    is_active: bool,
    email_verified: bool,
    last_login_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    role: String,
}

/// What [`UserRow`] reads from `users` joined with `roles`.
pub(super) const USER_COLUMNS: UserColumns = (
    users::id,
    users::email,
    users::username,
    users::is_active,
    users::email_verified,
    users::last_login_at,
    users::created_at,
    users::updated_at,
    roles::name,
);

type UserColumns = (
    users::id,
    users::email,
    users::username,
    users::is_active,
    users::email_verified,
    users::last_login_at,
    users::created_at,
    users::updated_at,
    roles::name,
);

impl From<UserRow> for User {
    fn from(row: UserRow) -> Self {
        Self {
            id: row.id,
            email: row.email,
            username: row.username,
            role: row.role,
            is_active: row.is_active,
            email_verified: row.email_verified,
            last_login_at: row.last_login_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// An account and what the token of its new session says.
pub struct SignedIn {
    /// The account.
    pub user: User,
    /// For the access token.
    pub subject: Subject,
}

impl AuthStore {
    /// The account that a login means, with its hash. In this order: exact e-mail, exact user name, e-mail ignoring case,
    /// user name ignoring case. `key` is the login folded.
    pub async fn user_by_login(&self, login: &str, key: &str) -> Result<Option<Credentials>, DatabaseError> {
        let found = self
            .database
            .run("user_by_login", async |conn| {
                let meant = users::email
                    .eq(login)
                    .or(users::username.eq(login))
                    .or(users::email_key.eq(key))
                    .or(users::username_key.eq(key));
                Ok::<_, DatabaseError>(
                    users::table
                        .inner_join(roles::table)
                        .filter(meant.assume_not_null())
                        .select((USER_COLUMNS, users::password_hash, users::email_key, users::username_key))
                        .load::<(UserRow, String, Option<String>, Option<String>)>(conn)
                        .await?,
                )
            })
            .await?;
        let candidates = found.into_iter().map(|(row, password_hash, email_key, username_key)| Credentials {
            user: row.into(),
            password_hash,
            email_key,
            username_key,
        });
        Ok(best_match(candidates, login, key))
    }

    /// The account, if the caller's token is still good.
    pub async fn user_of_session(&self, caller: Caller, now: DateTime<Utc>) -> Result<Option<User>, DatabaseError> {
        self.database
            .run("user_of_session", async |conn| {
                let row = users::table
                    .inner_join(roles::table)
                    .inner_join(sessions::table)
                    .filter(good_caller(caller, now))
                    .select(USER_COLUMNS)
                    .first::<UserRow>(conn)
                    .await
                    .optional()?;
                Ok(row.map(User::from))
            })
            .await
    }

    /// Whether an account has this e-mail address or user name, ignoring case: e-mail first, then name. Saves the work of
    /// hashing; the constraints decide.
    pub async fn user_names_taken(&self, user: &NewUser) -> Result<(bool, bool), DatabaseError> {
        let (email, username) = (&user.email, &user.username);
        self.database
            .run("user_names_taken", async |conn| {
                let email = users::email
                    .eq(email.as_str())
                    .assume_not_null()
                    .or(users::email_key.eq(email.key()).assume_not_null());
                let username = users::username
                    .eq(username.as_str())
                    .assume_not_null()
                    .or(users::username_key.eq(username.key()).assume_not_null());
                let taken = diesel::select((
                    diesel::dsl::exists(users::table.filter(email)),
                    diesel::dsl::exists(users::table.filter(username)),
                ));
                Ok(taken.get_result(conn).await?)
            })
            .await
    }

    /// Makes an account with the role `member` and its first session. A taken name fails with the constraint's name.
    pub async fn user_create(
        &self,
        user: &NewUser,
        password_hash: &str,
        session: &NewSession,
        origin: &Origin,
    ) -> Result<SignedIn, DatabaseError> {
        self.database
            .transaction("user_create", async |conn| {
                user_insert_on_conn(conn, user, password_hash, MEMBER, session.now).await?;
                session_insert_on_conn(conn, user.id, session).await?;
                let event = Event::done(Actor::User(user.id), AuditAction::SignUp, Target::User(user.id));
                audit_insert_on_conn(conn, &event, origin, session.now).await?;
                signed_in_on_conn(conn, user.id, session.id).await
            })
            .await
    }

    /// Begins a session of an account whose password was right. `None`: meanwhile it was deactivated, deleted or got
    /// another password. `new_hash` replaces the stored one.
    pub async fn user_sign_in(
        &self,
        credentials: &Credentials,
        new_hash: Option<&str>,
        keys: &ThrottleKeys,
        session: &NewSession,
        origin: &Origin,
    ) -> Result<Option<SignedIn>, ChangeError> {
        self.database
            .transaction("user_sign_in", async |conn| {
                let user_id = credentials.user.id;
                let unchanged = users::table
                    .find(user_id)
                    .filter(users::is_active.and(users::password_hash.eq(&credentials.password_hash)));
                let hash = new_hash.unwrap_or(&credentials.password_hash);
                let updated = diesel::update(unchanged)
                    .set((users::last_login_at.eq(session.now), users::password_hash.eq(hash)))
                    .execute(conn)
                    .await?;
                if updated == 0 {
                    return Ok(None);
                }
                // Not the time of the call: others may have failed while the password was checked.
                throttle_passed_on_conn(conn, keys, Utc::now()).await?;
                session_insert_on_conn(conn, user_id, session).await?;
                let event = Event::done(Actor::User(user_id), AuditAction::SignIn, Target::User(user_id));
                audit_insert_on_conn(conn, &event, origin, session.now).await?;
                Ok(Some(signed_in_on_conn(conn, user_id, session.id).await?))
            })
            .await
    }
}

/// Inserts an account with a role by name.
pub(super) async fn user_insert_on_conn(
    conn: &mut AsyncPgConnection,
    user: &NewUser,
    password_hash: &str,
    role: &str,
    now: DateTime<Utc>,
) -> Result<(), DatabaseError> {
    let role_id: Uuid = roles::table.filter(roles::name.eq(role)).select(roles::id).first(conn).await?;
    diesel::insert_into(users::table)
        .values((
            users::id.eq(user.id),
            users::email.eq(user.email.as_str()),
            users::username.eq(user.username.as_str()),
            users::email_key.eq(user.email.key()),
            users::username_key.eq(user.username.key()),
            users::password_hash.eq(password_hash),
            users::role_id.eq(role_id),
            users::created_at.eq(now),
            users::updated_at.eq(now),
        ))
        .execute(conn)
        .await?;
    Ok(())
}

/// Reads back an account for the answer of a sign-in.
async fn signed_in_on_conn(
    conn: &mut AsyncPgConnection,
    user_id: Uuid,
    session_id: Uuid,
) -> Result<SignedIn, DatabaseError> {
    let revision = newest_revision_on_conn(conn).await?;
    let row: UserRow =
        users::table.inner_join(roles::table).filter(users::id.eq(user_id)).select(USER_COLUMNS).first(conn).await?;
    let user = User::from(row);
    let permissions = role_permissions_on_conn(conn, &user.role).await?;
    let subject = Subject { id: user_id, session_id: Some(session_id), role: user.role.clone(), permissions, revision };
    Ok(SignedIn { user, subject })
}
