//! `admin service-account`: the account of one of our own programs, made, found or reset, with a secret that is given.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use proto::auth::v1::AuditAction;
use service_kit::database::DatabaseError;
use uuid::Uuid;

use super::audit::audit_insert_on_conn;
use super::revocations::{Revoked, revoke_on_conn};
use super::schema::{service_account_permissions, service_account_secrets, service_accounts};
use super::service_accounts::{
    account_insert_on_conn, account_lock_on_conn, good_secret, permissions_insert_on_conn, secret_replace_on_conn,
    service_account_permissions_on_conn,
};
use super::{AuthStore, ChangeError};
use crate::domain::audit::{Actor, Event, Origin, Target};
use crate::domain::service_account::NewServiceAccount;

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setup {
    /// It was made.
    Created(Uuid),
    /// It is as asked; nothing was done.
    AsAsked(Uuid),
    /// It has these other things; nothing was done.
    Different(Uuid, Vec<&'static str>),
    /// It had these other things and is as asked now.
    Reset(Uuid, Vec<&'static str>),
}

impl AuthStore {
    /// Makes the service account with this client id, or finds it, or with `reset` sets it as asked: then the secret before
    /// stays good for `overlap`. A taken name fails with the constraint's name.
    pub async fn service_account_setup(
        &self,
        account: &NewServiceAccount,
        secret_hash: &str,
        (reset, overlap): (bool, TimeDelta),
        now: DateTime<Utc>,
    ) -> Result<Setup, ChangeError> {
        self.database
            .transaction("service_account_setup", async |conn| {
                let found: Option<Uuid> = service_accounts::table
                    .filter(service_accounts::client_id.eq(&account.client_id))
                    .select(service_accounts::id)
                    .first(conn)
                    .await
                    .optional()?;
                let Some(id) = found else {
                    account_insert_on_conn(conn, account, secret_hash, now).await?;
                    note_on_conn(conn, account.id, AuditAction::ServiceAccountCreate, now).await?;
                    return Ok(Setup::Created(account.id));
                };
                account_lock_on_conn(conn, id).await?;
                let mut differences = Vec::new();
                let held: BTreeSet<String> = service_account_permissions_on_conn(conn, id).await?.unwrap_or_default();
                if held != account.permissions {
                    differences.push("other permissions");
                }
                let current: Vec<String> = service_account_secrets::table
                    .filter(service_account_secrets::service_account_id.eq(id))
                    .filter(good_secret(now))
                    .filter(service_account_secrets::expires_at.is_null())
                    .select(service_account_secrets::secret_hash)
                    .load(conn)
                    .await?;
                let has_other_secret = current != [secret_hash];
                if has_other_secret {
                    differences.push("another secret");
                }
                let lingering = service_account_secrets::table
                    .filter(service_account_secrets::service_account_id.eq(id))
                    .filter(service_account_secrets::expires_at.is_not_null());
                if overlap <= TimeDelta::zero() && reset && diesel::delete(lingering).execute(conn).await? > 0 {
                    differences.push("an older secret");
                }
                if differences.is_empty() {
                    return Ok(Setup::AsAsked(id));
                }
                if !reset {
                    return Ok(Setup::Different(id, differences));
                }
                let mut has_ended = overlap <= TimeDelta::zero();
                if has_other_secret {
                    has_ended |= secret_replace_on_conn(conn, id, secret_hash, overlap, now).await?.1;
                    note_on_conn(conn, id, AuditAction::ServiceAccountSecretRotate, now).await?;
                }
                if held != account.permissions {
                    let rows = service_account_permissions::service_account_id.eq(id);
                    diesel::delete(service_account_permissions::table.filter(rows)).execute(conn).await?;
                    permissions_insert_on_conn(conn, id, &account.permissions).await?;
                    note_on_conn(conn, id, AuditAction::ServiceAccountUpdate, now).await?;
                }
                // What the old secret was good for ends with it.
                if held != account.permissions || has_ended {
                    revoke_on_conn(conn, &[Revoked::ServiceAccount(id)], now).await?;
                }
                Ok(Setup::Reset(id, differences))
            })
            .await
    }
}

/// Whoever holds the command line acts as the service itself.
async fn note_on_conn(
    conn: &mut AsyncPgConnection,
    id: Uuid,
    action: AuditAction,
    now: DateTime<Utc>,
) -> Result<(), DatabaseError> {
    let event = Event::done(Actor::System, action, Target::ServiceAccount(id));
    audit_insert_on_conn(conn, &event, &Origin::default(), now).await
}
