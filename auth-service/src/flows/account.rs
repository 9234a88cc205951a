//! One's own account and sessions.

use proto::auth::v1::AuditAction;
use uuid::Uuid;

use crate::domain::page::TimeCursor;
use crate::domain::password::check_new_password;
use crate::domain::throttle::ThrottleKeys;
use crate::domain::user::{Credentials, User};
use crate::store::ChangeError;
use crate::store::accounts::AccountChange;
use crate::store::callers::Caller;
use crate::store::sessions::LivingSession;

use super::sign_in::refusal;
use super::sign_up::name_taken;
use super::{FlowError, Flows, Origin, now};

/// How often the password is checked once more when the stored hash changed meanwhile: a sign-in made it anew.
const ATTEMPTS: u32 = 3;

impl Flows {
    /// Changes the caller's e-mail address or user name.
    ///
    /// # Errors
    /// [`FlowError::EmailTaken`], [`FlowError::UsernameTaken`].
    pub async fn update_me(&self, caller: Caller, change: &AccountChange, origin: &Origin) -> Result<User, FlowError> {
        self.store.account_update_own(caller, change, origin, now()).await.map_err(account_refused)
    }

    /// Gives the caller's account a new password and ends all its sessions.
    ///
    /// # Errors
    /// [`FlowError::CredentialsRefused`] when the current password is wrong, [`FlowError::NewPassword`].
    pub async fn change_password(
        &self,
        caller: Caller,
        current: &str,
        new: &str,
        origin: &Origin,
    ) -> Result<(), FlowError> {
        for _ in 0..ATTEMPTS {
            let account = self.own_credentials(caller).await?;
            check_new_password(new, &account.user.email, &account.user.username)?;
            self.own_password_check(caller, &account, current, AuditAction::PasswordChange, origin).await?;
            let hash = self.hashing.hash(new).await?;
            match self.store.password_change(caller, &account.password_hash, &hash, origin, now()).await {
                Err(ChangeError::Stale) => {}
                done => return Ok(done?),
            }
        }
        Err(FlowError::CredentialsRefused)
    }

    /// Deletes the caller's account.
    ///
    /// # Errors
    /// [`FlowError::CredentialsRefused`] when the password is wrong; the last administrator.
    pub async fn delete_me(&self, caller: Caller, password: &str, origin: &Origin) -> Result<(), FlowError> {
        for _ in 0..ATTEMPTS {
            let account = self.own_credentials(caller).await?;
            self.own_password_check(caller, &account, password, AuditAction::AccountDelete, origin).await?;
            match self.store.account_delete_own(caller, &account.password_hash, origin, now()).await {
                Err(ChangeError::Stale) => {}
                done => return Ok(done?),
            }
        }
        Err(FlowError::CredentialsRefused)
    }

    async fn own_credentials(&self, caller: Caller) -> Result<Credentials, FlowError> {
        let (user, password_hash) = self.store.account_own(caller, now()).await?;
        Ok(Credentials { user, password_hash, email_key: None, username_key: None })
    }

    /// Goes on when the password is that of the caller's account.
    async fn own_password_check(
        &self,
        caller: Caller,
        account: &Credentials,
        password: &str,
        action: AuditAction,
        origin: &Origin,
    ) -> Result<(), FlowError> {
        let keys = ThrottleKeys::of_account(caller.user_id, origin.source.as_deref());
        self.store.throttle_check(&keys, now()).await?;
        if self.hashing.verify(password, self.usable_hash(account)).await? {
            // Others may have failed meanwhile: what they did not learn nobody does.
            return Ok(self.store.throttle_check(&keys, now()).await?);
        }
        let event = refusal(action, caller.actor(), Some(caller.user_id));
        self.store.throttle_failed(&keys, &event, origin, now()).await?;
        Err(FlowError::CredentialsRefused)
    }

    /// Ends all sessions of the caller. Gives how many.
    ///
    /// # Errors
    /// The database; [`FlowError::CallerGone`].
    pub async fn sign_out_all(&self, caller: Caller, origin: &Origin) -> Result<usize, FlowError> {
        Ok(self.store.sessions_end_of_caller(caller, origin, now()).await?)
    }

    /// Ends one session of the caller.
    ///
    /// # Errors
    /// [`ChangeError::SessionNotFound`]
    pub async fn revoke_session(&self, caller: Caller, id: Uuid, origin: &Origin) -> Result<(), FlowError> {
        Ok(self.store.session_end_of_caller(caller, id, origin, now()).await?)
    }

    /// The caller's sessions that can still be refreshed.
    ///
    /// # Errors
    /// The database; [`FlowError::CallerGone`].
    pub async fn list_sessions(
        &self,
        caller: Caller,
        behind: Option<TimeCursor>,
        limit: i64,
    ) -> Result<Vec<LivingSession>, FlowError> {
        let behind = behind.map(|cursor| (cursor.time, cursor.id));
        Ok(self.store.sessions_list(caller, behind, limit, now()).await?)
    }
}

/// A constraint that refused says which name is taken.
pub(super) fn account_refused(error: ChangeError) -> FlowError {
    match error {
        ChangeError::Database(error) => name_taken(error),
        other => other.into(),
    }
}
