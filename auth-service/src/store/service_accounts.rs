//! Service accounts, their permissions and their secrets.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use proto::auth::v1::AuditAction;
use service_kit::database::DatabaseError;
use uuid::Uuid;

use super::audit::audit_insert_on_conn;
use super::callers::{Acting, Program, caller_may_on_conn};
use super::revocations::{Revoked, newest_revision_on_conn, revoke_on_conn};
use super::role_admin::{ByCodePoint, only_what_is_held};
use super::schema::{service_account_permissions, service_account_secrets, service_accounts};
use super::{AuthStore, ChangeError};
use crate::domain::audit::{Actor, Event, Origin, Target};
use crate::domain::service_account::{NewServiceAccount, Secret, ServiceAccount};

/// The permission to see and to change them.
const WRITE: &str = "service_accounts.write";

#[derive(Queryable, Selectable)]
#[diesel(table_name = service_accounts)]
struct AccountRow {
    id: Uuid,
    name: String,
    client_id: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    last_used_at: Option<DateTime<Utc>>,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = service_account_secrets)]
struct SecretRow {
    id: Uuid,
    service_account_id: Uuid,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    last_used_at: Option<DateTime<Utc>>,
}

/// A program whose secret was right.
#[derive(Debug, Clone)]
pub struct SignedInProgram {
    /// The service account.
    pub id: Uuid,
    /// What its token allows.
    pub permissions: BTreeSet<String>,
    /// The newest revocation when they were read.
    pub revision: i64,
}

impl AuthStore {
    /// Makes a service account with a first secret. A taken name fails with the constraint's name.
    pub async fn service_account_create(
        &self,
        acting: Acting,
        account: &NewServiceAccount,
        secret_hash: &str,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<ServiceAccount, ChangeError> {
        self.database
            .transaction("service_account_create", async |conn| {
                let held = caller_may_on_conn(conn, acting, WRITE, now).await?;
                only_what_is_held(&account.permissions, &held)?;
                account_insert_on_conn(conn, account, secret_hash, now).await?;
                let target = Target::ServiceAccount(account.id);
                let event = Event::done(acting.actor(), AuditAction::ServiceAccountCreate, target);
                audit_insert_on_conn(conn, &event, origin, now).await?;
                account_on_conn(conn, account.id, now).await
            })
            .await
    }

    /// At most `limit` service accounts by name, beginning behind the one of this name.
    pub async fn service_accounts_list(
        &self,
        acting: Acting,
        behind: Option<&str>,
        limit: i64,
        now: DateTime<Utc>,
    ) -> Result<Vec<ServiceAccount>, ChangeError> {
        self.database
            .run("service_accounts_list", async |conn| {
                caller_may_on_conn(conn, acting, WRITE, now).await?;
                let mut query = service_accounts::table.select(AccountRow::as_select()).into_boxed();
                if let Some(name) = behind {
                    query = query.filter(ByCodePoint::new(service_accounts::name).gt(name));
                }
                let rows = query.order(ByCodePoint::new(service_accounts::name).asc()).limit(limit).load(conn).await?;
                whole_on_conn(conn, rows, now).await
            })
            .await
    }

    /// Gives a service account a new secret. The newest one before stays good for `overlap`, older ones end at once. Gives
    /// until when it stays good.
    pub async fn service_account_rotate(
        &self,
        acting: Acting,
        id: Uuid,
        secret_hash: &str,
        overlap: TimeDelta,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<(ServiceAccount, Option<DateTime<Utc>>), ChangeError> {
        self.database
            .transaction("service_account_rotate", async |conn| {
                let held = caller_may_on_conn(conn, acting, WRITE, now).await?;
                account_lock_on_conn(conn, id).await?;
                // Who has the new secret can do all that the account can.
                let given = service_account_permissions_on_conn(conn, id).await?.unwrap_or_default();
                only_what_is_held(&given, &held)?;
                let (until, has_ended) = secret_replace_on_conn(conn, id, secret_hash, overlap, now).await?;
                let target = Target::ServiceAccount(id);
                let event = Event::done(acting.actor(), AuditAction::ServiceAccountSecretRotate, target);
                audit_insert_on_conn(conn, &event, origin, now).await?;
                let account = account_on_conn(conn, id, now).await?;
                if has_ended {
                    // What the old secret was good for ends with it.
                    revoke_on_conn(conn, &[Revoked::ServiceAccount(id)], now).await?;
                }
                Ok((account, until))
            })
            .await
    }

    /// Deletes a service account.
    pub async fn service_account_delete(
        &self,
        acting: Acting,
        id: Uuid,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<(), ChangeError> {
        self.database
            .transaction("service_account_delete", async |conn| {
                caller_may_on_conn(conn, acting, WRITE, now).await?;
                account_lock_on_conn(conn, id).await?;
                diesel::delete(service_accounts::table.find(id)).execute(conn).await?;
                let target = Target::ServiceAccount(id);
                let event = Event::done(acting.actor(), AuditAction::ServiceAccountDelete, target);
                audit_insert_on_conn(conn, &event, origin, now).await?;
                revoke_on_conn(conn, &[Revoked::ServiceAccount(id)], now).await?;
                Ok(())
            })
            .await
    }

    /// The program that a client id and the hash of its secret are of; `None`: there is none. Either way it is in the audit
    /// trail.
    pub async fn service_account_sign_in(
        &self,
        client_id: &str,
        secret_hash: &str,
        refused: &'static str,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<Option<SignedInProgram>, ChangeError> {
        self.database
            .transaction("service_account_sign_in", async |conn| {
                let id: Option<Uuid> = service_accounts::table
                    .filter(service_accounts::client_id.eq(client_id))
                    .select(service_accounts::id)
                    // Before its secrets, as whoever rotates or deletes it.
                    .for_no_key_update()
                    .first(conn)
                    .await
                    .optional()?;
                let used = diesel::update(service_account_secrets::table)
                    .filter(good_secret(now))
                    .filter(service_account_secrets::service_account_id.eq(id.unwrap_or_default()))
                    .filter(service_account_secrets::secret_hash.eq(secret_hash))
                    .set(service_account_secrets::last_used_at.eq(now))
                    .execute(conn)
                    .await?;
                let signed_in = id.filter(|_| used > 0);
                let event = Event {
                    actor: signed_in.map_or(Actor::Anonymous, Actor::ServiceAccount),
                    action: AuditAction::ServiceTokenIssue,
                    target: id.map(Target::ServiceAccount),
                    reason: signed_in.is_none().then_some(refused),
                    changed_fields: Vec::new(),
                };
                audit_insert_on_conn(conn, &event, origin, now).await?;
                let Some(id) = signed_in else { return Ok(None) };
                diesel::update(service_accounts::table.find(id))
                    .set(service_accounts::last_used_at.eq(now))
                    .execute(conn)
                    .await?;
                let revision = newest_revision_on_conn(conn).await?;
                let permissions = service_account_permissions_on_conn(conn, id).await?;
                Ok::<_, ChangeError>(permissions.map(|permissions| SignedInProgram { id, permissions, revision }))
            })
            .await
    }
}

/// What the caller may do; `None` when the account is gone or its tokens of then are void.
pub(super) async fn program_permissions_on_conn(
    conn: &mut AsyncPgConnection,
    program: Program,
) -> Result<Option<BTreeSet<String>>, DatabaseError> {
    let of_account = service_accounts::tokens_revision;
    let good = of_account.is_null().or(of_account.assume_not_null().le(program.revision));
    let found = service_accounts::table.find(program.id).filter(good).select(service_accounts::id);
    let found: Option<Uuid> = found.first(conn).await.optional()?;
    match found {
        Some(id) => service_account_permissions_on_conn(conn, id).await,
        None => Ok(None),
    }
}

/// What a service account may do: what is stored and is still in the catalogue. `None`: there is no such account.
pub(super) async fn service_account_permissions_on_conn(
    conn: &mut AsyncPgConnection,
    id: Uuid,
) -> Result<Option<BTreeSet<String>>, DatabaseError> {
    let found: Option<Uuid> =
        service_accounts::table.find(id).select(service_accounts::id).first(conn).await.optional()?;
    if found.is_none() {
        return Ok(None);
    }
    let stored: Vec<String> = service_account_permissions::table
        .filter(service_account_permissions::service_account_id.eq(id))
        .select(service_account_permissions::permission)
        .load(conn)
        .await?;
    let catalogue = proto::policy::permissions();
    Ok(Some(stored.into_iter().filter(|permission| catalogue.contains(permission)).collect()))
}

type GoodSecret = diesel::dsl::Or<
    diesel::dsl::IsNull<service_account_secrets::expires_at>,
    diesel::dsl::AssumeNotNull<diesel::dsl::Gt<service_account_secrets::expires_at, DateTime<Utc>>>,
>;

/// Secrets that are accepted at a time.
pub(super) fn good_secret(now: DateTime<Utc>) -> GoodSecret {
    service_account_secrets::expires_at.is_null().or(service_account_secrets::expires_at.gt(now).assume_not_null())
}

/// Inserts a service account with a first secret.
pub(super) async fn account_insert_on_conn(
    conn: &mut AsyncPgConnection,
    account: &NewServiceAccount,
    secret_hash: &str,
    now: DateTime<Utc>,
) -> Result<(), ChangeError> {
    diesel::insert_into(service_accounts::table)
        .values((
            service_accounts::id.eq(account.id),
            service_accounts::name.eq(&account.name),
            service_accounts::client_id.eq(&account.client_id),
            service_accounts::created_at.eq(now),
            service_accounts::updated_at.eq(now),
        ))
        .execute(conn)
        .await?;
    permissions_insert_on_conn(conn, account.id, &account.permissions).await?;
    secret_insert_on_conn(conn, account.id, secret_hash, now).await
}

/// Gives a service account permissions.
pub(super) async fn permissions_insert_on_conn(
    conn: &mut AsyncPgConnection,
    id: Uuid,
    permissions: &BTreeSet<String>,
) -> Result<(), ChangeError> {
    let rows = permissions.iter().map(|permission| {
        (service_account_permissions::service_account_id.eq(id), service_account_permissions::permission.eq(permission))
    });
    let rows: Vec<_> = rows.collect();
    diesel::insert_into(service_account_permissions::table).values(rows).execute(conn).await?;
    Ok(())
}

/// Gives a locked service account a new secret. The newest one before stays good for `overlap`, older ones end at once. Gives
/// until when it stays good, and whether one that was good has ended.
pub(super) async fn secret_replace_on_conn(
    conn: &mut AsyncPgConnection,
    id: Uuid,
    secret_hash: &str,
    overlap: TimeDelta,
    now: DateTime<Utc>,
) -> Result<(Option<DateTime<Utc>>, bool), ChangeError> {
    let of_account = service_account_secrets::service_account_id.eq(id);
    let newest: Option<Uuid> = service_account_secrets::table
        .filter(of_account.and(service_account_secrets::expires_at.is_null()))
        .select(service_account_secrets::id)
        .first(conn)
        .await
        .optional()?;
    let kept = newest.filter(|_| overlap > TimeDelta::zero());
    let others = of_account.and(service_account_secrets::id.ne(kept.unwrap_or_default()));
    let good = service_account_secrets::table.filter(others).filter(good_secret(now));
    let ended = diesel::delete(good).execute(conn).await?;
    diesel::delete(service_account_secrets::table.filter(others)).execute(conn).await?;
    let until = kept.map(|_| now + overlap);
    if let Some(kept) = kept {
        diesel::update(service_account_secrets::table.find(kept))
            .set(service_account_secrets::expires_at.eq(until))
            .execute(conn)
            .await?;
    }
    secret_insert_on_conn(conn, id, secret_hash, now).await?;
    diesel::update(service_accounts::table.find(id)).set(service_accounts::updated_at.eq(now)).execute(conn).await?;
    Ok((until, ended > 0))
}

async fn secret_insert_on_conn(
    conn: &mut AsyncPgConnection,
    account: Uuid,
    secret_hash: &str,
    now: DateTime<Utc>,
) -> Result<(), ChangeError> {
    diesel::insert_into(service_account_secrets::table)
        .values((
            service_account_secrets::id.eq(Uuid::now_v7()),
            service_account_secrets::service_account_id.eq(account),
            service_account_secrets::secret_hash.eq(secret_hash),
            service_account_secrets::created_at.eq(now),
        ))
        .execute(conn)
        .await?;
    Ok(())
}

/// Keeps two that change one account apart.
pub(super) async fn account_lock_on_conn(conn: &mut AsyncPgConnection, id: Uuid) -> Result<(), ChangeError> {
    let locked: Option<Uuid> =
        service_accounts::table.find(id).select(service_accounts::id).for_update().first(conn).await.optional()?;
    locked.map(|_| ()).ok_or(ChangeError::ServiceAccountNotFound)
}

async fn account_on_conn(
    conn: &mut AsyncPgConnection,
    id: Uuid,
    now: DateTime<Utc>,
) -> Result<ServiceAccount, ChangeError> {
    let rows = service_accounts::table.find(id).select(AccountRow::as_select()).load(conn).await?;
    whole_on_conn(conn, rows, now).await?.pop().ok_or(ChangeError::ServiceAccountNotFound)
}

/// Adds permissions and secrets.
async fn whole_on_conn(
    conn: &mut AsyncPgConnection,
    rows: Vec<AccountRow>,
    now: DateTime<Utc>,
) -> Result<Vec<ServiceAccount>, ChangeError> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let mut permissions: BTreeMap<Uuid, BTreeSet<String>> = BTreeMap::new();
    let held: Vec<(Uuid, String)> = service_account_permissions::table
        .filter(service_account_permissions::service_account_id.eq_any(&ids))
        .load(conn)
        .await?;
    let catalogue = proto::policy::permissions();
    for (id, permission) in held.into_iter().filter(|(_, permission)| catalogue.contains(permission)) {
        permissions.entry(id).or_default().insert(permission);
    }
    let mut secrets: BTreeMap<Uuid, Vec<Secret>> = BTreeMap::new();
    let good: Vec<SecretRow> = service_account_secrets::table
        .filter(service_account_secrets::service_account_id.eq_any(&ids))
        .filter(good_secret(now))
        .order((service_account_secrets::created_at.desc(), service_account_secrets::id.desc()))
        .select(SecretRow::as_select())
        .load(conn)
        .await?;
    for SecretRow { id, service_account_id, created_at, expires_at, last_used_at } in good {
        let secret = Secret { id, created_at, expires_at, last_used_at };
        secrets.entry(service_account_id).or_default().push(secret);
    }
    let whole = rows.into_iter().map(|row| ServiceAccount {
        permissions: permissions.remove(&row.id).unwrap_or_default(),
        secrets: secrets.remove(&row.id).unwrap_or_default(),
        id: row.id,
        name: row.name,
        client_id: row.client_id,
        last_used_at: row.last_used_at,
        created_at: row.created_at,
        updated_at: row.updated_at,
    });
    Ok(whole.collect())
}
