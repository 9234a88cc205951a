//! Who calls, as the database knows it now: a token says what was true when it was issued.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::ChangeError;
use super::roles::role_permissions_on_conn;
use super::schema::{roles, sessions, users};
use super::service_accounts::program_permissions_on_conn;
use crate::domain::audit::Actor;

/// A person with a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Who.
    pub user_id: Uuid,
    /// The session that the token names.
    pub session_id: Uuid,
    /// The newest revocation that the token's issuer knew of.
    pub revision: i64,
}

impl Caller {
    /// For the audit trail.
    pub fn actor(self) -> Actor {
        Actor::User(self.user_id)
    }
}

/// A service account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    /// Which.
    pub id: Uuid,
    /// The newest revocation that the token's issuer knew of.
    pub revision: i64,
}

/// Whoever administrates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acting {
    /// A person with a session.
    Person(Caller),
    /// A service account.
    Program(Program),
}

impl Acting {
    /// For the audit trail.
    pub fn actor(self) -> Actor {
        match self {
            Self::Person(caller) => caller.actor(),
            Self::Program(program) => Actor::ServiceAccount(program.id),
        }
    }

    /// The user or the service account.
    pub fn id(self) -> Uuid {
        match self {
            Self::Person(caller) => caller.user_id,
            Self::Program(program) => program.id,
        }
    }
}

/// The account is active, the session has not ended, and nothing has voided tokens of the account or of its role since the
/// token was issued.
#[diesel::dsl::auto_type(no_type_alias)]
pub(super) fn good_caller(caller: Caller, now: DateTime<Utc>) -> _ {
    let (user_id, session_id): (Uuid, Uuid) = (caller.user_id, caller.session_id);
    let revision: i64 = caller.revision;
    let account = users::id.eq(user_id).and(users::is_active);
    let session = sessions::id.eq(session_id).and(sessions::ended_at.is_null()).and(sessions::expires_at.gt(now));
    let of_user = users::tokens_revision.is_null().or(users::tokens_revision.assume_not_null().le(revision));
    let of_role = roles::tokens_revision.is_null().or(roles::tokens_revision.assume_not_null().le(revision));
    account.and(session).and(of_user).and(of_role)
}

/// Goes on only when the caller's token is still good. Gives the name of the role.
pub(super) async fn caller_check_on_conn(
    conn: &mut AsyncPgConnection,
    caller: Caller,
    now: DateTime<Utc>,
) -> Result<String, ChangeError> {
    let role: Option<String> = users::table
        .inner_join(roles::table)
        .inner_join(sessions::table)
        .filter(good_caller(caller, now))
        .select(roles::name)
        .first(conn)
        .await
        .optional()?;
    role.ok_or(ChangeError::CallerGone)
}

/// Goes on only when the caller also holds this permission now, whatever the token says.
pub(super) async fn caller_may_on_conn(
    conn: &mut AsyncPgConnection,
    acting: Acting,
    permission: &'static str,
    now: DateTime<Utc>,
) -> Result<BTreeSet<String>, ChangeError> {
    let held = match acting {
        Acting::Person(caller) => {
            let role = caller_check_on_conn(conn, caller, now).await?;
            role_permissions_on_conn(conn, &role).await?
        }
        Acting::Program(program) => program_permissions_on_conn(conn, program).await?.ok_or(ChangeError::CallerGone)?,
    };
    if held.contains(permission) { Ok(held) } else { Err(ChangeError::PermissionMissing(permission.to_owned())) }
}
