//! What administrators do with roles. Each statement first asks what the caller may do now, whatever the token says.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use proto::auth::v1::AuditAction;
use uuid::Uuid;

use super::audit::audit_insert_on_conn;
use super::callers::{Acting, caller_may_on_conn};
use super::revocations::{Revoked, revoke_on_conn};
use super::roles::{ADMIN, role_permissions_on_conn};
use super::schema::{role_permissions, roles};
use super::{AuthStore, ChangeError};
use crate::domain::audit::{Event, Origin, Target};
use crate::domain::role::{NewRole, Role, RoleChange};

const READ: &str = "roles.read";
const WRITE: &str = "roles.write";

diesel::postfix_operator!(ByCodePoint, " COLLATE \"C\"", Text, backend: Pg);

#[derive(Queryable, Selectable)]
#[diesel(table_name = roles)]
struct RoleRow {
    id: Uuid,
    name: String,
    display_name: String,
    description: Option<String>,
    is_active: bool,
    is_system: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

#[derive(AsChangeset, Default)]
#[diesel(table_name = roles)]
struct RoleColumns<'a> {
    name: Option<&'a str>,
    display_name: Option<&'a str>,
    description: Option<&'a str>,
    is_active: Option<bool>,
    updated_at: Option<DateTime<Utc>>,
}

impl AuthStore {
    /// Makes a role. A taken name fails with the constraint's name.
    pub async fn role_create(
        &self,
        caller: Acting,
        role: &NewRole,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<Role, ChangeError> {
        self.database
            .transaction("role_create", async |conn| {
                let held = caller_may_on_conn(conn, caller, WRITE, now).await?;
                only_what_is_held(&role.permissions, &held)?;
                diesel::insert_into(roles::table)
                    .values((
                        roles::id.eq(role.id),
                        roles::name.eq(role.name.as_str()),
                        roles::display_name.eq(&role.display_name),
                        roles::description.eq(&role.description),
                        roles::is_active.eq(true),
                        roles::is_system.eq(false),
                        roles::created_at.eq(now),
                        roles::updated_at.eq(now),
                    ))
                    .execute(conn)
                    .await?;
                permissions_set_on_conn(conn, role.id, &role.permissions, now).await?;
                let event = Event::done(caller.actor(), AuditAction::RoleCreate, Target::Role(role.id));
                audit_insert_on_conn(conn, &event, origin, now).await?;
                role_on_conn(conn, role.id).await
            })
            .await
    }

    /// One role.
    pub async fn role_get(&self, caller: Acting, id: Uuid, now: DateTime<Utc>) -> Result<Role, ChangeError> {
        self.database
            .run("role_get", async |conn| {
                caller_may_on_conn(conn, caller, READ, now).await?;
                role_on_conn(conn, id).await
            })
            .await
    }

    /// At most `limit` roles by name, beginning behind the one of this name.
    pub async fn roles_list(
        &self,
        caller: Acting,
        behind: Option<&str>,
        limit: i64,
        now: DateTime<Utc>,
    ) -> Result<Vec<Role>, ChangeError> {
        self.database
            .run("roles_list", async |conn| {
                caller_may_on_conn(conn, caller, READ, now).await?;
                let mut query = roles::table.select(RoleRow::as_select()).into_boxed();
                if let Some(name) = behind {
                    query = query.filter(ByCodePoint::new(roles::name).gt(name));
                }
                let rows = query.order(ByCodePoint::new(roles::name).asc()).limit(limit).load(conn).await?;
                with_permissions_on_conn(conn, rows).await
            })
            .await
    }

    /// Changes a role. A taken name fails with the constraint's name.
    pub async fn role_update(
        &self,
        caller: Acting,
        id: Uuid,
        change: &RoleChange,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<Role, ChangeError> {
        self.database
            .transaction("role_update", async |conn| {
                // First the row, then the question: whoever waits for it may have lost the permission meanwhile.
                let before = role_lock_on_conn(conn, id).await?;
                let held = caller_may_on_conn(conn, caller, WRITE, now).await?;
                let (columns, changed) = differences(&before, change, now);
                let is_fixed = changed.iter().any(|field| ["name", "is_active"].contains(field))
                    || (before.name == ADMIN && changed.contains(&"permissions"));
                if before.is_system && is_fixed {
                    return Err(ChangeError::RoleIsSystem);
                }
                if changed.is_empty() {
                    return Ok(before);
                }
                if let Some(wanted) = change.permissions.as_ref().filter(|_| changed.contains(&"permissions")) {
                    only_what_is_held(wanted, &held)?;
                    permissions_set_on_conn(conn, id, wanted, now).await?;
                }
                if changed.contains(&"is_active") && change.is_active == Some(true) {
                    // Its holders get all of it.
                    only_what_is_held(change.permissions.as_ref().unwrap_or(&before.permissions), &held)?;
                }
                diesel::update(roles::table.find(id)).set(columns).execute(conn).await?;
                let event = Event::done(caller.actor(), AuditAction::RoleUpdate, Target::Role(id));
                audit_insert_on_conn(conn, &event.changing(&changed), origin, now).await?;
                let after = role_on_conn(conn, id).await?;
                if changed.iter().any(|field| ["name", "permissions", "is_active"].contains(field)) {
                    // Tokens name the role as it was called when they were issued.
                    let names = BTreeSet::from([before.name, after.name.clone()]);
                    let revoked: Vec<_> = names.into_iter().map(Revoked::Role).collect();
                    revoke_on_conn(conn, &revoked, now).await?;
                }
                Ok(after)
            })
            .await
    }

    /// Deletes a role that nobody has; otherwise the foreign key of the accounts refuses.
    pub async fn role_delete(
        &self,
        caller: Acting,
        id: Uuid,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<(), ChangeError> {
        self.database
            .transaction("role_delete", async |conn| {
                let role = role_lock_on_conn(conn, id).await?;
                caller_may_on_conn(conn, caller, WRITE, now).await?;
                if role.is_system {
                    return Err(ChangeError::RoleIsSystem);
                }
                diesel::delete(roles::table.find(id)).execute(conn).await?;
                let event = Event::done(caller.actor(), AuditAction::RoleDelete, Target::Role(id));
                audit_insert_on_conn(conn, &event, origin, now).await?;
                Ok(())
            })
            .await
    }
}

/// Nobody gives a permission that they do not hold.
pub(super) fn only_what_is_held(wanted: &BTreeSet<String>, held: &BTreeSet<String>) -> Result<(), ChangeError> {
    match wanted.difference(held).next() {
        Some(beyond) => Err(ChangeError::PermissionMissing(beyond.clone())),
        None => Ok(()),
    }
}

/// A role that may be given by somebody who holds these permissions: it is active, and holds no others. It stays so until the
/// end of the transaction.
pub(super) async fn assignable_role_on_conn(
    conn: &mut AsyncPgConnection,
    name: &str,
    held: &BTreeSet<String>,
) -> Result<Uuid, ChangeError> {
    let found: Option<(Uuid, bool)> = roles::table
        .filter(roles::name.eq(name))
        .select((roles::id, roles::is_active.or(roles::is_system)))
        .for_share()
        .first(conn)
        .await
        .optional()?;
    let (id, is_assignable) = found.ok_or(ChangeError::RoleNotFound)?;
    if !is_assignable {
        return Err(ChangeError::RoleInactive);
    }
    only_what_is_held(&role_permissions_on_conn(conn, name).await?, held)?;
    Ok(id)
}

/// What really changes: the columns, and the names for the audit trail.
fn differences<'c>(before: &Role, change: &'c RoleChange, now: DateTime<Utc>) -> (RoleColumns<'c>, Vec<&'static str>) {
    let name = change.name.as_ref().map(|name| name.as_str()).filter(|name| *name != before.name);
    let display_name = change.display_name.as_deref().filter(|name| *name != before.display_name);
    let description = change.description.as_deref().filter(|text| *text != before.description);
    let is_active = change.is_active.filter(|is_active| *is_active != before.is_active);
    let permissions = change.permissions.as_ref().filter(|permissions| **permissions != before.permissions);
    let changed = [
        ("name", name.is_some()),
        ("display_name", display_name.is_some()),
        ("description", description.is_some()),
        ("permissions", permissions.is_some()),
        ("is_active", is_active.is_some()),
    ];
    let changed = changed.into_iter().filter(|(_, changes)| *changes).map(|(field, _)| field).collect();
    (RoleColumns { name, display_name, description, is_active, updated_at: Some(now) }, changed)
}

async fn permissions_set_on_conn(
    conn: &mut AsyncPgConnection,
    role_id: Uuid,
    wanted: &BTreeSet<String>,
    now: DateTime<Utc>,
) -> Result<(), ChangeError> {
    diesel::delete(role_permissions::table.filter(role_permissions::role_id.eq(role_id))).execute(conn).await?;
    let rows: Vec<_> = wanted
        .iter()
        .map(|permission| {
            (
                role_permissions::role_id.eq(role_id),
                role_permissions::permission.eq(permission),
                role_permissions::created_at.eq(now),
            )
        })
        .collect();
    diesel::insert_into(role_permissions::table).values(rows).execute(conn).await?;
    Ok(())
}

async fn role_lock_on_conn(conn: &mut AsyncPgConnection, id: Uuid) -> Result<Role, ChangeError> {
    let locked: Option<Uuid> = roles::table.find(id).select(roles::id).for_update().first(conn).await.optional()?;
    locked.ok_or(ChangeError::RoleNotFound)?;
    role_on_conn(conn, id).await
}

async fn role_on_conn(conn: &mut AsyncPgConnection, id: Uuid) -> Result<Role, ChangeError> {
    let row: Option<RoleRow> = roles::table.find(id).select(RoleRow::as_select()).first(conn).await.optional()?;
    let found = with_permissions_on_conn(conn, row.into_iter().collect()).await?;
    found.into_iter().next().ok_or(ChangeError::RoleNotFound)
}

/// The roles with their permissions: `admin` holds all there are, today and after the next release.
async fn with_permissions_on_conn(conn: &mut AsyncPgConnection, rows: Vec<RoleRow>) -> Result<Vec<Role>, ChangeError> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let stored: Vec<(Uuid, String)> = role_permissions::table
        .filter(role_permissions::role_id.eq_any(ids))
        .select((role_permissions::role_id, role_permissions::permission))
        .load(conn)
        .await?;
    let catalogue = proto::policy::permissions();
    let mut held: BTreeMap<Uuid, BTreeSet<String>> = BTreeMap::new();
    for (role_id, permission) in stored.into_iter().filter(|(_, permission)| catalogue.contains(permission)) {
        held.entry(role_id).or_default().insert(permission);
    }
    let role = |row: RoleRow| Role {
        permissions: if row.name == ADMIN { catalogue.clone() } else { held.remove(&row.id).unwrap_or_default() },
        id: row.id,
        name: row.name,
        display_name: row.display_name,
        description: row.description.unwrap_or_default(),
        is_system: row.is_system,
        is_active: row.is_active || row.is_system,
        created_at: row.created_at,
        updated_at: row.updated_at,
    };
    Ok(rows.into_iter().map(role).collect())
}
