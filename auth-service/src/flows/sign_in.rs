//! Signing in. Every way to fail does the work of one hash and gives one answer.

use proto::auth::v1::AuditAction;
use service_kit::database::DatabaseError;
use uuid::Uuid;

use crate::domain::audit::{Actor, Target};
use crate::domain::login_key::fold;
use crate::domain::password::StoredHash;
use crate::domain::throttle::ThrottleKeys;
use crate::domain::user::Credentials;
use crate::store::ChangeError;

use super::unusable_hashes::Unusable;
use super::{Event, FlowError, Flows, NewlySignedIn, Origin, now};

/// The reason of the error, as the audit trail says it too.
pub(super) const CREDENTIALS_INVALID: &str = "CREDENTIALS_INVALID";

/// No login is longer: e-mail addresses have 255 characters at most, of 4 bytes at most.
const LONGEST_LOGIN: usize = 1024;

/// How often the account is read anew when it changed while its password was checked: another sign-in made its hash anew,
/// or the password was changed.
const ATTEMPTS: u32 = 3;

impl Flows {
    /// Begins a session for a login (e-mail or user name) and its password.
    ///
    /// # Errors
    /// [`FlowError::CredentialsRefused`] whatever was wrong with them.
    pub async fn sign_in(&self, login: &str, password: &str, origin: &Origin) -> Result<NewlySignedIn, FlowError> {
        let now = now();
        let ring = self.ring(now)?;
        let (session, refresh) = self.new_session(origin, now)?;
        for _ in 0..ATTEMPTS {
            let (credentials, keys, is_weak) = self.credentials_checked(login, password, origin).await?;
            // A full queue is no reason to refuse the right password: the next sign-in strengthens the hash.
            let new_hash = if is_weak { self.hashing.hash(password).await.ok() } else { None };
            let signed_in = self.store.user_sign_in(&credentials, new_hash.as_deref(), &keys, &session, origin).await;
            if let Some(signed_in) = signed_in.map_err(throttled)? {
                metrics::counter!("sign_ins_total", "outcome" => "ok").increment(1);
                let tokens = self.issue(signed_in.subject, refresh, session.token_expires_at, &ring, now)?;
                return Ok(NewlySignedIn { user: signed_in.user, tokens });
            }
        }
        // The account changes all the time: its owner signs in at many places at once, or resets the password.
        let event = refusal(AuditAction::SignIn, Actor::Anonymous, None);
        self.store.audit_append(&event, origin, now).await?;
        Err(FlowError::CredentialsRefused)
    }

    /// The account, if the password fits and it may sign in; where its failures are counted; whether its hash is weaker than
    /// those made today.
    async fn credentials_checked(
        &self,
        login: &str,
        password: &str,
        origin: &Origin,
    ) -> Result<(Credentials, ThrottleKeys, bool), FlowError> {
        let found = match self.account_meant(login).await {
            // A row that cannot be read must not answer sooner than one that is not there.
            Err(FlowError::Database(error @ DatabaseError::Other(_))) => {
                self.hashing.verify(password, None).await?;
                return Err(error.into());
            }
            found => found?,
        };
        let meant = found.as_ref().map(|credentials| credentials.user.id);
        let keys = ThrottleKeys::of_login(login, origin.source.as_deref());
        // Nobody is hashed for before that; an account and none are held back alike.
        self.store.throttle_check(&keys, now()).await.map_err(throttled)?;
        let stored = found.as_ref().and_then(|credentials| self.usable_hash(credentials));
        let is_weak =
            stored.as_ref().is_some_and(|hash| hash.is_weaker_than(self.hashing.cost()) && hash.reads_all_of(password));
        // Without an account, or with an unusable hash, the pool does the work of one hash all the same.
        let fits = self.hashing.verify(password, stored).await?;
        match found.filter(|credentials| fits && credentials.user.is_active) {
            Some(credentials) => Ok((credentials, keys, is_weak)),
            None => {
                let event = refusal(AuditAction::SignIn, Actor::Anonymous, meant);
                self.store.throttle_failed(&keys, &event, origin, now()).await.map_err(throttled)?;
                metrics::counter!("sign_ins_total", "outcome" => "refused").increment(1);
                Err(FlowError::CredentialsRefused)
            }
        }
    }

    async fn account_meant(&self, login: &str) -> Result<Option<Credentials>, FlowError> {
        // PostgreSQL takes no NUL in a text; no account has one either.
        if login.is_empty() || login.len() > LONGEST_LOGIN || login.contains('\0') {
            return Ok(None);
        }
        Ok(self.store.user_by_login(login, &fold(login)).await?)
    }

    /// The stored hash, if it can be computed at all. Otherwise no password can fit, which an operator must hear of.
    pub(super) fn usable_hash(&self, credentials: &Credentials) -> Option<StoredHash> {
        let user_id = credentials.user.id;
        match StoredHash::parse(&credentials.password_hash) {
            Ok(hash) if self.hashing.may_verify(&hash) => Some(hash),
            Ok(_) => {
                self.unusable_hashes.note(user_id, Unusable::AboveCeiling);
                None
            }
            Err(_) => {
                self.unusable_hashes.note(user_id, Unusable::Malformed);
                None
            }
        }
    }
}

/// Refused credentials, for the audit trail.
pub(super) fn refusal(action: AuditAction, actor: Actor, meant: Option<Uuid>) -> Event {
    let (target, reason) = (meant.map(Target::User), Some(CREDENTIALS_INVALID));
    Event { actor, action, target, reason, changed_fields: Vec::new() }
}

/// An attempt that was not looked at is counted as such.
fn throttled(error: ChangeError) -> FlowError {
    if matches!(error, ChangeError::Throttled(_)) {
        metrics::counter!("sign_ins_total", "outcome" => "throttled").increment(1);
    }
    error.into()
}
