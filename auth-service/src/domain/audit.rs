//! The audit trail: who did what, on whom, from where, and how it ended. Never a secret, an address or a value in it.

use chrono::{DateTime, Utc};
use proto::auth::v1::{AuditAction, AuditTargetType, PrincipalType};
use uuid::Uuid;

/// From where a call comes.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// The client's `user-agent`, shortened.
    pub user_agent: Option<String>,
    /// Its address.
    pub source: Option<String>,
    /// The id of the call, which the logs carry too.
    pub request_id: Option<String>,
}

/// Who acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// Without a token, or with credentials that were refused.
    Anonymous,
    /// A person.
    User(Uuid),
    /// A program.
    ServiceAccount(Uuid),
    /// The service itself, or an operator on its command line.
    System,
}

/// On what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// An account.
    User(Uuid),
    /// A session.
    Session(Uuid),
    /// A role.
    Role(Uuid),
    /// A service account.
    ServiceAccount(Uuid),
    /// A signing key, by its kid.
    SigningKey(String),
}

/// What happened.
#[derive(Debug, Clone)]
pub struct Event {
    /// Who did it.
    pub actor: Actor,
    /// What.
    pub action: AuditAction,
    /// On what; `None` where that is unknown, as for a sign-in with an unknown name.
    pub target: Option<Target>,
    /// Why it was refused; `None`: it was done.
    pub reason: Option<&'static str>,
    /// Names of the fields that changed, never their values.
    pub changed_fields: Vec<&'static str>,
}

impl Event {
    /// Something that was done.
    pub fn done(actor: Actor, action: AuditAction, target: Target) -> Self {
        Self { actor, action, target: Some(target), reason: None, changed_fields: Vec::new() }
    }

    /// With the fields that it changed.
    #[must_use]
    pub fn changing(mut self, fields: &[&'static str]) -> Self {
        self.changed_fields = fields.to_vec();
        self
    }
}

impl Actor {
    /// Type and id, as stored.
    pub fn stored(self) -> (PrincipalType, Option<Uuid>) {
        match self {
            Self::Anonymous => (PrincipalType::Anonymous, None),
            Self::User(id) => (PrincipalType::User, Some(id)),
            Self::ServiceAccount(id) => (PrincipalType::ServiceAccount, Some(id)),
            Self::System => (PrincipalType::System, None),
        }
    }
}

impl Target {
    /// Type and id, as stored.
    pub fn stored(&self) -> (AuditTargetType, String) {
        match self {
            Self::User(id) => (AuditTargetType::User, id.to_string()),
            Self::Session(id) => (AuditTargetType::Session, id.to_string()),
            Self::Role(id) => (AuditTargetType::Role, id.to_string()),
            Self::ServiceAccount(id) => (AuditTargetType::ServiceAccount, id.to_string()),
            Self::SigningKey(kid) => (AuditTargetType::SigningKey, kid.clone()),
        }
    }
}

/// An event as it is kept.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Its id; made in the order of time.
    pub id: Uuid,
    /// When.
    pub occurred_at: DateTime<Utc>,
    /// What kind of actor.
    pub actor_type: PrincipalType,
    /// Which, for users and service accounts.
    pub actor_id: Option<Uuid>,
    /// What was done.
    pub action: AuditAction,
    /// On what.
    pub target: Option<(AuditTargetType, String)>,
    /// Why it was refused.
    pub reason: Option<String>,
    /// From where.
    pub origin: Origin,
    /// What changed.
    pub changed_fields: Vec<String>,
}

/// Which events a list shows: those that fit every part that is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Done by this user or service account.
    pub actor_id: Option<Uuid>,
    /// Done on this.
    pub target_id: Option<String>,
    /// Done on things of this kind.
    pub target_type: Option<AuditTargetType>,
    /// One of these; empty: any.
    pub actions: Vec<AuditAction>,
    /// Refused, or done.
    pub refused: Option<bool>,
    /// From this address.
    pub source: Option<String>,
    /// In this call.
    pub request_id: Option<String>,
    /// At this time or later.
    pub after: Option<DateTime<Utc>>,
    /// Before this time.
    pub before: Option<DateTime<Utc>>,
}
