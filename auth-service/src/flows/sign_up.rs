//! Signing up.

use service_kit::database::DatabaseError;
use uuid::Uuid;

use crate::domain::account::{Email, Username};
use crate::domain::user::NewUser;

use super::{FlowError, Flows, NewlySignedIn, Origin, now};

/// A new account, checked.
pub struct SignUp {
    /// Its address.
    pub email: Email,
    /// Its name.
    pub username: Username,
    /// Its password, which keeps the rules.
    pub password: zeroize::Zeroizing<String>,
}

impl Flows {
    /// Makes an account with the role `member` and begins its first session.
    ///
    /// # Errors
    /// [`FlowError::SignUpClosed`], [`FlowError::EmailTaken`], [`FlowError::UsernameTaken`].
    pub async fn sign_up(&self, wanted: SignUp, origin: &Origin) -> Result<NewlySignedIn, FlowError> {
        let now = now();
        if !self.sign_up_open {
            return Err(FlowError::SignUpClosed);
        }
        let ring = self.ring(now)?;
        let SignUp { email, username, password } = wanted;
        let user = NewUser { id: Uuid::now_v7(), email, username };
        // Before the expensive hash; of two that race past here, a constraint stops the second.
        match self.store.user_names_taken(&user).await? {
            (true, _) => return Err(FlowError::EmailTaken),
            (_, true) => return Err(FlowError::UsernameTaken),
            (false, false) => {}
        }
        let hash = self.hashing.hash(&password).await?;
        let (session, refresh) = self.new_session(origin, now)?;
        let signed_in = self.store.user_create(&user, &hash, &session, origin).await.map_err(name_taken)?;
        let tokens = self.issue(signed_in.subject, refresh, session.token_expires_at, &ring, now)?;
        Ok(NewlySignedIn { user: signed_in.user, tokens })
    }
}

/// What a refused insert of an account means, by the constraint that refused it. The only table of these names: `admin
/// bootstrap` reads it as well.
pub fn name_taken(error: DatabaseError) -> FlowError {
    match error.constraint() {
        // The spelling, then the spelling ignoring case.
        Some("users_email_key" | "users_email_key_key") => FlowError::EmailTaken,
        Some("users_username_key" | "users_username_key_key") => FlowError::UsernameTaken,
        _ => error.into(),
    }
}
