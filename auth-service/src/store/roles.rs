//! Roles and what they may do.

use std::collections::BTreeSet;

use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use service_kit::database::DatabaseError;

use super::schema::{role_permissions, roles};

/// The system role that may do everything.
pub const ADMIN: &str = "admin";
/// The system role of whoever signs up.
pub const MEMBER: &str = "member";

/// What a role may do: for `admin` everything there is, today and after the next release; for others what is stored and is
/// still in the catalogue, and nothing once the role is inactive. The system roles are always active.
pub(super) async fn role_permissions_on_conn(
    conn: &mut AsyncPgConnection,
    role: &str,
) -> Result<BTreeSet<String>, DatabaseError> {
    let catalogue = proto::policy::permissions();
    if role == ADMIN {
        return Ok(catalogue.clone());
    }
    let stored = role_permissions::table
        .inner_join(roles::table)
        .filter(roles::name.eq(role).and(roles::is_active.or(roles::is_system)))
        .select(role_permissions::permission)
        .load::<String>(conn)
        .await?;
    Ok(stored.into_iter().filter(|permission| catalogue.contains(permission)).collect())
}
