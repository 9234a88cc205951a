//! What administrators do with accounts, and reading the audit trail.

use uuid::Uuid;

use crate::domain::audit::{AuditFilter, Recorded};
use crate::domain::page::TimeCursor;
use crate::domain::user::{User, UserCounts};
use crate::domain::user_list::{UserCursor, UserQuery};
use crate::store::accounts::AccountChange;
use crate::store::callers::Acting;

use super::account::account_refused;
use super::{FlowError, Flows, Origin, now};

impl Flows {
    /// Several accounts in the order of their ids, or the place of the first that is missing.
    ///
    /// # Errors
    /// The database, or the caller may not.
    pub async fn get_users(&self, caller: Acting, ids: &[Uuid]) -> Result<Result<Vec<User>, usize>, FlowError> {
        Ok(self.store.users_get(caller, ids, now()).await?)
    }

    /// Changes an account.
    ///
    /// # Errors
    /// [`FlowError::EmailTaken`], [`FlowError::UsernameTaken`], no such account, or the caller may not.
    pub async fn update_user(
        &self,
        caller: Acting,
        id: Uuid,
        change: &AccountChange,
        origin: &Origin,
    ) -> Result<User, FlowError> {
        self.store.user_update(caller, id, change, origin, now()).await.map_err(account_refused)
    }

    /// Activates or deactivates an account.
    ///
    /// # Errors
    /// No such account, the last administrator, or the caller may not.
    pub async fn set_user_active(
        &self,
        caller: Acting,
        id: Uuid,
        is_active: bool,
        origin: &Origin,
    ) -> Result<User, FlowError> {
        Ok(self.store.user_set_active(caller, id, is_active, origin, now()).await?)
    }

    /// Gives an account another role.
    ///
    /// # Errors
    /// No such account or role, the last administrator, or the caller may not.
    pub async fn assign_role(&self, caller: Acting, id: Uuid, role: &str, origin: &Origin) -> Result<User, FlowError> {
        Ok(self.store.user_assign_role(caller, id, role, origin, now()).await?)
    }

    /// Deletes an account, and has its tasks deleted soon after.
    ///
    /// # Errors
    /// No such account, the last administrator, or the caller may not.
    pub async fn delete_user(&self, caller: Acting, id: Uuid, origin: &Origin) -> Result<(), FlowError> {
        Ok(self.store.user_delete(caller, id, origin, now()).await?)
    }

    /// A page of accounts.
    ///
    /// # Errors
    /// The database, or the caller may not.
    pub async fn list_users(
        &self,
        caller: Acting,
        query: &UserQuery,
        behind: Option<&UserCursor>,
        limit: i64,
    ) -> Result<Vec<User>, FlowError> {
        Ok(self.store.users_list(caller, query, behind, limit, now()).await?)
    }

    /// Counts accounts.
    ///
    /// # Errors
    /// The database, or the caller may not.
    pub async fn count_users(&self, caller: Acting) -> Result<UserCounts, FlowError> {
        Ok(self.store.users_count(caller, now()).await?)
    }

    /// A page of the audit trail.
    ///
    /// # Errors
    /// The database, or the caller may not.
    pub async fn list_audit_events(
        &self,
        caller: Acting,
        filter: &AuditFilter,
        behind: Option<TimeCursor>,
        limit: i64,
    ) -> Result<Vec<Recorded>, FlowError> {
        let behind = behind.map(|cursor| (cursor.time, cursor.id));
        Ok(self.store.audit_list(caller, filter, behind, limit, now()).await?)
    }
}
