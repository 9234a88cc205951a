//! What administrators do with roles.

use uuid::Uuid;

use crate::domain::role::{NewRole, Role, RoleChange};
use crate::store::ChangeError;
use crate::store::callers::Acting;

use super::{FlowError, Flows, Origin, now};

impl Flows {
    /// Makes a role.
    ///
    /// # Errors
    /// A taken name, or the caller may not.
    pub async fn create_role(&self, caller: Acting, role: &NewRole, origin: &Origin) -> Result<Role, FlowError> {
        Ok(self.store.role_create(caller, role, origin, now()).await.map_err(role_refused)?)
    }

    /// One role.
    ///
    /// # Errors
    /// No such role, or the caller may not.
    pub async fn get_role(&self, caller: Acting, id: Uuid) -> Result<Role, FlowError> {
        Ok(self.store.role_get(caller, id, now()).await?)
    }

    /// A page of roles by name.
    ///
    /// # Errors
    /// The database, or the caller may not.
    pub async fn list_roles(&self, caller: Acting, behind: Option<&str>, limit: i64) -> Result<Vec<Role>, FlowError> {
        Ok(self.store.roles_list(caller, behind, limit, now()).await?)
    }

    /// Changes a role.
    ///
    /// # Errors
    /// No such role, a system role, a taken name, or the caller may not.
    pub async fn update_role(
        &self,
        caller: Acting,
        id: Uuid,
        change: &RoleChange,
        origin: &Origin,
    ) -> Result<Role, FlowError> {
        Ok(self.store.role_update(caller, id, change, origin, now()).await.map_err(role_refused)?)
    }

    /// Deletes a role that nobody has.
    ///
    /// # Errors
    /// No such role, a system role, one that is in use, or the caller may not.
    pub async fn delete_role(&self, caller: Acting, id: Uuid, origin: &Origin) -> Result<(), FlowError> {
        Ok(self.store.role_delete(caller, id, origin, now()).await.map_err(role_refused)?)
    }
}

/// What a constraint that refused means.
fn role_refused(error: ChangeError) -> ChangeError {
    match &error {
        ChangeError::Database(inner) => match inner.constraint() {
            Some("roles_name_key") => ChangeError::RoleNameTaken,
            Some("fk_users_role_id") => ChangeError::RoleInUse,
            _ => error,
        },
        _ => error,
    }
}
