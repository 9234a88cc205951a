//! Service accounts and their tokens, introspection, and the rotation of signing keys.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::domain::access_token::{self, AccessToken, Subject};
use crate::domain::opaque_token::OpaqueToken;
use crate::domain::service_account::{NewServiceAccount, ServiceAccount};
use crate::domain::signing_key::{ACTIVATE_IN, AFTER_LAST_TOKEN, StoredKey};
use crate::store::ChangeError;
use crate::store::callers::Acting;
use crate::store::introspection::Said;
use crate::store::signing_keys::{KeyRotation, KeyStoreError};

use super::sign_in::CREDENTIALS_INVALID;
use super::{FlowError, Flows, Origin, delta, now};

/// No client id is longer.
const LONGEST_CLIENT_ID: usize = 64;

/// A token of a program.
pub struct ProgramToken {
    /// Whose.
    pub id: Uuid,
    /// The JWT.
    pub access: AccessToken,
    /// Its life in whole seconds.
    pub ttl_seconds: i32,
    /// What it allows.
    pub permissions: BTreeSet<String>,
}

impl Flows {
    /// Makes a service account; gives its secret, which is stored nowhere.
    ///
    /// # Errors
    /// A taken name, or the caller may not.
    pub async fn create_service_account(
        &self,
        acting: Acting,
        account: &NewServiceAccount,
        origin: &Origin,
    ) -> Result<(ServiceAccount, OpaqueToken), FlowError> {
        let secret = OpaqueToken::generate()?;
        let made = self.store.service_account_create(acting, account, &secret.hash(), origin, now()).await;
        Ok((made.map_err(name_refused)?, secret))
    }

    /// A page of service accounts by name.
    ///
    /// # Errors
    /// The database, or the caller may not.
    pub async fn list_service_accounts(
        &self,
        acting: Acting,
        behind: Option<&str>,
        limit: i64,
    ) -> Result<Vec<ServiceAccount>, FlowError> {
        Ok(self.store.service_accounts_list(acting, behind, limit, now()).await?)
    }

    /// Gives a service account a new secret; gives that, and until when the one before stays good.
    ///
    /// # Errors
    /// No such service account, or the caller may not.
    pub async fn rotate_secret(
        &self,
        acting: Acting,
        id: Uuid,
        overlap: TimeDelta,
        origin: &Origin,
    ) -> Result<(ServiceAccount, OpaqueToken, Option<DateTime<Utc>>), FlowError> {
        let secret = OpaqueToken::generate()?;
        let rotated = self.store.service_account_rotate(acting, id, &secret.hash(), overlap, origin, now()).await;
        let (account, until) = rotated?;
        Ok((account, secret, until))
    }

    /// Deletes a service account.
    ///
    /// # Errors
    /// No such service account, or the caller may not.
    pub async fn delete_service_account(&self, acting: Acting, id: Uuid, origin: &Origin) -> Result<(), FlowError> {
        Ok(self.store.service_account_delete(acting, id, origin, now()).await?)
    }

    /// Issues a token to a program. The secret has 256 random bits, so a fast hash is enough, and there is no use in guessing.
    ///
    /// # Errors
    /// [`FlowError::CredentialsRefused`] whatever was wrong.
    pub async fn issue_service_token(
        &self,
        client_id: &str,
        secret: &OpaqueToken,
        origin: &Origin,
    ) -> Result<ProgramToken, FlowError> {
        let now = now();
        let ring = self.ring(now)?;
        // PostgreSQL takes no NUL in a text; no account has such an id either.
        let is_possible = client_id.len() <= LONGEST_CLIENT_ID && !client_id.contains('\0');
        let client_id = if is_possible { client_id } else { "" };
        let hash = secret.hash();
        let program = self.store.service_account_sign_in(client_id, &hash, CREDENTIALS_INVALID, origin, now).await?;
        let program = program.ok_or(FlowError::CredentialsRefused)?;
        let permissions = program.permissions.clone();
        let subject = Subject {
            id: program.id,
            session_id: None,
            role: String::new(),
            permissions: program.permissions,
            revision: program.revision,
        };
        let access = access_token::issue(subject, &self.settings, &ring, now, None)?;
        let ttl_seconds = i32::try_from(self.settings.access_ttl.as_secs()).unwrap_or(i32::MAX);
        Ok(ProgramToken { id: program.id, access, ttl_seconds, permissions })
    }

    /// Whether a token that verified is still good; `None` is one that did not.
    ///
    /// # Errors
    /// The database, or the caller may not.
    pub async fn token_is_good(&self, acting: Acting, said: Option<Said<'_>>) -> Result<bool, FlowError> {
        Ok(self.store.token_is_good(acting, said, now()).await?)
    }

    /// Whether the caller may follow the revocations now.
    ///
    /// # Errors
    /// The database, or the caller may not.
    pub async fn may_watch(&self, acting: Acting) -> Result<(), FlowError> {
        // What no token says is not good: only the asker is checked.
        self.store.token_is_good(acting, None, now()).await?;
        Ok(())
    }

    /// Makes a new signing key.
    ///
    /// # Errors
    /// The database, a stored key that does not open, or the caller may not.
    pub async fn rotate_signing_key(&self, acting: Acting, origin: &Origin) -> Result<StoredKey, FlowError> {
        let rotation = KeyRotation {
            sealing: &self.sealing,
            algorithm: self.signing_algorithm,
            overlap: ACTIVATE_IN,
            token_life: delta(self.settings.access_ttl) + AFTER_LAST_TOKEN,
        };
        let rotated = self.store.signing_key_rotate(Some(acting), &rotation, origin, now()).await;
        rotated.map_err(|error| match error {
            KeyStoreError::Change(error) => error.into(),
            KeyStoreError::Database(error) => error.into(),
            KeyStoreError::Crypto(error) => error.into(),
            KeyStoreError::Ring(error) => FlowError::StoredKeys(error),
        })
    }
}

/// What a constraint that refused means.
fn name_refused(error: ChangeError) -> ChangeError {
    match &error {
        ChangeError::Database(inner) if inner.constraint() == Some("service_accounts_name_key") => {
            ChangeError::ServiceAccountNameTaken
        }
        _ => error,
    }
}
