//! Taking over accounts of another system.

use crate::domain::user::ImportedUser;
use crate::store::ChangeError;
use crate::store::callers::Acting;
use crate::store::user_import::Imported;

use super::account::account_refused;
use super::{FlowError, Flows, Origin, now};

impl Flows {
    /// What is wrong with a hash that is to be taken over: unknown, or dearer than this service computes.
    ///
    /// # Errors
    /// What was expected.
    pub fn importable(&self, password_hash: &str) -> Result<(), String> {
        self.hashing.importable(password_hash).map_err(|error| error.to_string())
    }

    /// Takes over one account, or in a dry run only tries to.
    ///
    /// # Errors
    /// [`FlowError::EmailTaken`], [`FlowError::UsernameTaken`], the role, or the caller may not.
    pub async fn import_user(
        &self,
        acting: Acting,
        user: &ImportedUser,
        dry_run: bool,
        origin: &Origin,
    ) -> Result<Imported, FlowError> {
        let imported = self.store.user_import(acting, user, dry_run, origin, now()).await;
        imported.map_err(|error| match &error {
            ChangeError::Database(inner) if inner.constraint() == Some("users_pkey") => {
                FlowError::Change(ChangeError::UserIdTaken)
            }
            _ => account_refused(error),
        })
    }
}
