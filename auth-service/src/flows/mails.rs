//! What is done by mail: a new password for who forgot the old one, and showing that an address is one's own.

use std::sync::Arc;
use std::time::Duration;

use service_kit::database::DatabaseError;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;

use crate::domain::account::LONGEST_EMAIL;
use crate::domain::opaque_token::OpaqueToken;
use crate::domain::password::check_new_password;
use crate::store::ChangeError;
use crate::store::callers::Caller;

use super::{FlowError, Flows, Origin, now};

/// An answer about an address comes no sooner, so that its time does not tell whether there is an account: with one there is
/// more to write.
const ANSWER_AFTER: Duration = Duration::from_millis(100);
/// Requests that are worked on at a time; callers beyond that come back later.
pub const RESET_ASKS: usize = 64;
/// Longest time for one.
const ASK: Duration = Duration::from_secs(30);

impl Flows {
    /// Has a mail sent to whoever wants a new password, if there is an active account with the address; the answer does not
    /// tell.
    ///
    /// # Errors
    /// The database.
    pub async fn password_reset_ask(&self, email: &str, origin: &Origin) -> Result<(), FlowError> {
        let answer_at = Instant::now() + ANSWER_AFTER;
        // Nobody's. What is no address by today's rules may be that of an account from before them.
        let is_possible = email.len() <= 4 * LONGEST_EMAIL && !email.contains('\0');
        let outcome = is_possible.then(|| self.password_reset_ask_begin(email.to_owned(), origin.clone()));
        let outcome = outcome.transpose()?;
        sleep_until(answer_at).await;
        // What takes longer, because many ask for one account, goes on without its caller.
        match outcome.map(|mut outcome| outcome.try_recv()) {
            Some(Ok(Err(error))) => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn password_reset_ask_begin(
        &self,
        email: String,
        origin: Origin,
    ) -> Result<oneshot::Receiver<Result<(), ChangeError>>, FlowError> {
        let permit = Arc::clone(&self.reset_asks).try_acquire_owned().map_err(|_| FlowError::RateLimited)?;
        let (done, outcome) = oneshot::channel();
        let store = self.store.clone();
        self.supervisor.spawn_once("password_reset_ask", |_| async move {
            let asked = timeout(ASK, store.password_reset_ask(&email, &origin, now())).await;
            let asked = asked.unwrap_or(Err(ChangeError::Database(DatabaseError::Timeout)));
            if let Err(Err(error)) = done.send(asked) {
                tracing::warn!(%error, "a request for a new password failed after its answer");
            }
            drop(permit);
            Ok(())
        });
        Ok(outcome)
    }

    /// Sets a new password with the token from a mail, and ends all sessions. Gives whose account it is.
    ///
    /// # Errors
    /// [`crate::store::ChangeError::MailTokenInvalid`], [`FlowError::NewPassword`].
    pub async fn password_reset(
        &self,
        token: &OpaqueToken,
        new_password: &str,
        origin: &Origin,
    ) -> Result<Uuid, FlowError> {
        let user = self.store.reset_token_find(&token.hash(), now()).await?;
        check_new_password(new_password, &user.email, &user.username)?;
        // Only who has a good token makes us hash.
        let hash = self.hashing.hash(new_password).await?;
        Ok(self.store.password_reset(&token.hash(), &hash, origin, now()).await?)
    }

    /// Has a mail sent to the caller's address, unless that is verified.
    ///
    /// # Errors
    /// The database; [`FlowError::CallerGone`].
    pub async fn email_verification_ask(&self, caller: Caller, origin: &Origin) -> Result<(), FlowError> {
        Ok(self.store.email_verification_ask(caller, origin, now()).await?)
    }

    /// Marks an address as verified with the token from a mail to it. Gives whose account it is.
    ///
    /// # Errors
    /// [`crate::store::ChangeError::MailTokenInvalid`]
    pub async fn email_verify(&self, token: &OpaqueToken, origin: &Origin) -> Result<Uuid, FlowError> {
        Ok(self.store.email_verify(&token.hash(), origin, now()).await?)
    }
}
