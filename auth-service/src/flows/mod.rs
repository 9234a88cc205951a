//! What the calls do: rules from `domain`, rows from `store`, hashes from the pool, tokens from the keys. No gRPC here.

mod account;
mod administration;
mod import;
mod mails;
mod refresh;
mod roles;
mod sign_in;
mod sign_up;
mod tokens;
mod unusable_hashes;

use std::sync::Arc;

use auth_client::KeyAlgorithm;
use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use service_kit::database::DatabaseError;
use service_kit::tasks::Supervisor;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::domain::access_token::{self, AccessToken, NoSigningKey, Subject, TokenSettings};
use crate::domain::audit::{Event, Origin};
use crate::domain::password::{HashingBusy, HashingPool, PasswordProblem};
use crate::domain::refresh_token::RefreshToken;
use crate::domain::sealing::{CryptoFailure, SealingKey};
use crate::domain::signing_key::{KeyRing, KeyRingError};
use crate::domain::user::User;
use crate::keys::Keys;
use crate::store::callers::Caller;
use crate::store::sessions::NewSession;
use crate::store::{AuthStore, ChangeError};

pub use mails::RESET_ASKS;
pub use sign_up::{SignUp, name_taken};
pub use tokens::ProgramToken;
pub use unusable_hashes::UnusableHashes;

/// Why a call could not do its work. The first three are the caller's to know; the rest is told in general words.
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    /// Login and password do not fit, or the account may not sign in.
    #[error("credentials refused")]
    CredentialsRefused,
    /// The refresh token does not count.
    #[error("refresh token refused")]
    RefreshTokenRefused,
    /// The token was good once; its session or user is gone.
    #[error("the caller's session or account is gone")]
    CallerGone,
    /// This installation takes no new accounts.
    #[error("sign-up is closed")]
    SignUpClosed,
    /// Another account has the e-mail address.
    #[error("e-mail taken")]
    EmailTaken,
    /// Another account has the user name.
    #[error("user name taken")]
    UsernameTaken,
    /// Too many at a time.
    #[error("too many calls of this kind at a time")]
    RateLimited,
    /// The new password breaks a rule.
    #[error(transparent)]
    NewPassword(#[from] PasswordProblem),
    /// The change was not made.
    #[error(transparent)]
    Change(ChangeError),
    /// The hashing threads have too much to do.
    #[error(transparent)]
    Hashing(#[from] HashingBusy),
    /// Nothing to sign with.
    #[error(transparent)]
    Keys(#[from] NoSigningKey),
    /// The stored signing keys do not open.
    #[error(transparent)]
    StoredKeys(KeyRingError),
    /// The cryptographic library.
    #[error(transparent)]
    Crypto(#[from] CryptoFailure),
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<ChangeError> for FlowError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::CallerGone => Self::CallerGone,
            ChangeError::Database(error) => Self::Database(error),
            other => Self::Change(other),
        }
    }
}

/// What the flows work with. Cheap to clone.
#[derive(Clone)]
pub struct Flows {
    /// The rows.
    pub store: AuthStore,
    /// The hashes.
    pub hashing: HashingPool,
    /// The keys.
    pub keys: Keys,
    /// What seals new keys.
    pub sealing: Arc<SealingKey>,
    /// What kind of key is made next.
    pub signing_algorithm: KeyAlgorithm,
    /// Who issues tokens and how long they last.
    pub settings: Arc<TokenSettings>,
    /// Owns what goes on after its answer.
    pub supervisor: Supervisor,
    /// Places for requests for a new password.
    pub reset_asks: Arc<Semaphore>,
    /// Whether strangers may sign up.
    pub sign_up_open: bool,
    /// What operators have been told of hashes that no password fits.
    pub unusable_hashes: UnusableHashes,
}

/// The tokens of a session.
pub struct IssuedTokens {
    /// The JWT.
    pub access: AccessToken,
    /// Its life in whole seconds.
    pub access_ttl_seconds: i32,
    /// The refresh token.
    pub refresh: RefreshToken,
    /// When that ends if it is not used.
    pub refresh_expires_at: DateTime<Utc>,
}

/// An account that has just begun a session.
pub struct NewlySignedIn {
    /// The account.
    pub user: User,
    /// Its tokens.
    pub tokens: IssuedTokens,
}

/// The time of a call: PostgreSQL keeps microseconds.
fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}

impl Flows {
    /// The caller's own account.
    ///
    /// # Errors
    /// [`FlowError::CallerGone`] when the account is inactive or deleted or the session has ended.
    pub async fn me(&self, caller: Caller) -> Result<User, FlowError> {
        self.store.user_of_session(caller, now()).await?.ok_or(FlowError::CallerGone)
    }

    /// Ends the session of a refresh token; gives whose it was. Unknown tokens are no error.
    ///
    /// # Errors
    /// The database.
    pub async fn sign_out(&self, token: &RefreshToken, origin: &Origin) -> Result<Option<Uuid>, FlowError> {
        Ok(self.store.session_end_by_token(&token.hash(), origin, now()).await?)
    }

    /// The keys to sign with. Asked before anything expensive or lasting is done.
    fn ring(&self, now: DateTime<Utc>) -> Result<Arc<KeyRing>, NoSigningKey> {
        let ring = self.keys.ring();
        ring.signing(now).is_some().then_some(()).ok_or(NoSigningKey)?;
        Ok(ring)
    }

    /// A session that begins now, and its refresh token.
    fn new_session(&self, origin: &Origin, now: DateTime<Utc>) -> Result<(NewSession, RefreshToken), CryptoFailure> {
        let token = RefreshToken::generate()?;
        let expires_at = now + delta(self.settings.session_ttl);
        let session = NewSession {
            id: Uuid::now_v7(),
            now,
            expires_at,
            access_ends_at: now + delta(self.settings.access_ttl),
            token_hash: token.hash(),
            token_expires_at: expires_at.min(now + delta(self.settings.refresh_ttl)),
            user_agent: origin.user_agent.clone(),
            source_address: origin.source.clone(),
        };
        Ok((session, token))
    }

    fn issue(
        &self,
        subject: Subject,
        refresh: RefreshToken,
        refresh_expires_at: DateTime<Utc>,
        ring: &KeyRing,
        now: DateTime<Utc>,
    ) -> Result<IssuedTokens, NoSigningKey> {
        let access = access_token::issue(subject, &self.settings, ring, now, Some(refresh_expires_at))?;
        let access_ttl_seconds = i32::try_from(access.expires_at.timestamp() - now.timestamp()).unwrap_or(i32::MAX);
        Ok(IssuedTokens { access, access_ttl_seconds, refresh, refresh_expires_at })
    }
}

/// Configured durations are bounded; longer ones would end at chrono's own bound.
pub fn delta(duration: std::time::Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}
