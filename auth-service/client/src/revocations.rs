//! Tokens that are void before their time, as auth-service tells (`auth.v1.TokenService/WatchRevocations`).
//!
//! One background task ([`Revocations::run`]) follows the stream. It begins with a snapshot, resumes where it was after a lost
//! connection, and takes a stream that was silent for [`DEAD_AFTER`] for dead. While no stream lives, what is known goes on to
//! count, and [`Revocations::is_live`] says that it may be old.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use proto::auth::v1::token_service_client::TokenServiceClient;
use proto::auth::v1::watch_revocations_response::Event;
use proto::auth::v1::{IssueServiceTokenRequest, PrincipalType, WatchRevocationsRequest, WatchRevocationsResponse};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Request, Status, Streaming};
use uuid::Uuid;

use crate::principal::{Principal, PrincipalKind};
use crate::source::ChannelSource;
use crate::verifier::Verifier;

/// A stream that is silent for so long is dead: auth-service gives a sign of life every five seconds.
pub const DEAD_AFTER: Duration = Duration::from_secs(15);
/// Longest time to get a token, and to open the stream.
const OPEN: Duration = Duration::from_secs(5);
/// How often what has expired is forgotten.
const FORGET: Duration = Duration::from_secs(60);
/// First and longest pause before a lost stream is opened again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// The service account that follows the stream; it needs `tokens.introspect`. `Debug` does not show the secret.
#[derive(Clone)]
pub struct ServiceCredentials {
    /// Its `client_id`.
    pub client_id: String,
    /// One of its secrets.
    pub client_secret: String,
}

impl std::fmt::Debug for ServiceCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceCredentials").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

/// What is revoked. Cheap to clone; all clones share it.
#[derive(Clone, Default)]
pub struct Revocations {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    known: RwLock<Known>,
    heard: RwLock<Option<Instant>>,
}

#[derive(Debug, Clone, Copy)]
struct Void {
    /// Tokens whose issuer did not know of this revision are void. An exact order, where times would have only seconds.
    revision: i64,
    /// When the last of them has expired, in seconds since the Unix epoch.
    forget_at: u64,
}

#[derive(Debug, Default)]
struct Known {
    users: HashMap<Uuid, Void>,
    service_accounts: HashMap<Uuid, Void>,
    sessions: HashMap<Uuid, Void>,
    roles: HashMap<String, Void>,
}

impl Known {
    fn voids(&self, principal: &Principal) -> bool {
        let is_older = |void: Option<&Void>| void.is_some_and(|void| principal.revision < void.revision);
        match principal.kind {
            PrincipalKind::Service => is_older(self.service_accounts.get(&principal.id)),
            PrincipalKind::User => {
                is_older(self.users.get(&principal.id))
                    || is_older(self.roles.get(&principal.role))
                    || principal.session_id.is_some_and(|id| self.sessions.contains_key(&id))
            }
        }
    }

    /// `false`: it could not be understood.
    fn add(&mut self, event: &Event) -> bool {
        match event {
            Event::PrincipalNotBefore(said) => {
                let principal = said.principal.as_ref();
                let id = principal.and_then(|principal| Uuid::parse_str(&principal.id).ok());
                let void = Void { revision: said.version, forget_at: at(said.forget_at.as_ref()) };
                let into = match principal.map(proto::auth::v1::Principal::r#type) {
                    Some(PrincipalType::User) => &mut self.users,
                    Some(PrincipalType::ServiceAccount) => &mut self.service_accounts,
                    _ => return false,
                };
                id.is_some_and(|id| insert(into, id, void))
            }
            Event::SessionEnded(said) => {
                let void = Void { revision: i64::MAX, forget_at: at(said.forget_at.as_ref()) };
                Uuid::parse_str(&said.session_id).is_ok_and(|id| insert(&mut self.sessions, id, void))
            }
            Event::RoleChanged(said) => {
                let void = Void { revision: said.version, forget_at: at(said.forget_at.as_ref()) };
                insert(&mut self.roles, said.role.clone(), void)
            }
            _ => true,
        }
    }

    fn forget(&mut self, now: u64) {
        self.users.retain(|_, void| void.forget_at > now);
        self.service_accounts.retain(|_, void| void.forget_at > now);
        self.sessions.retain(|_, void| void.forget_at > now);
        self.roles.retain(|_, void| void.forget_at > now);
    }

    fn len(&self) -> usize {
        self.users.len() + self.service_accounts.len() + self.sessions.len() + self.roles.len()
    }
}

/// The later word counts, whatever the order.
fn insert<K: std::hash::Hash + Eq>(into: &mut HashMap<K, Void>, key: K, void: Void) -> bool {
    let kept = into.entry(key).or_insert(void);
    kept.revision = kept.revision.max(void.revision);
    kept.forget_at = kept.forget_at.max(void.forget_at);
    true
}

fn at(time: Option<&prost_types::Timestamp>) -> u64 {
    time.and_then(|time| u64::try_from(time.seconds).ok()).unwrap_or_default()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Where the stream is.
#[derive(Default)]
struct Place {
    /// The last revision that was worked in.
    revision: i64,
    /// The snapshot that is under way.
    snapshot: Option<Known>,
    /// How many messages came.
    messages: u64,
    /// When what has expired was last forgotten.
    forgotten_at: Option<Instant>,
}

impl Revocations {
    /// Whether a verified token is void.
    pub fn voids(&self, principal: &Principal) -> bool {
        self.shared.known.read().unwrap_or_else(PoisonError::into_inner).voids(principal)
    }

    /// Whether all that was revoked until a moment ago is known.
    pub fn is_live(&self) -> bool {
        self.silence().is_some_and(|silence| silence < DEAD_AFTER)
    }

    /// For how long nothing was heard; `None`: never yet.
    pub fn silence(&self) -> Option<Duration> {
        self.shared.heard.read().unwrap_or_else(PoisonError::into_inner).map(|heard| heard.elapsed())
    }

    /// Follows the stream until `stop`. Must run exactly once, owned and watched by the service. News of the signing keys go
    /// to the verifier.
    pub async fn run(
        self,
        channel: ChannelSource,
        credentials: ServiceCredentials,
        verifier: Verifier,
        stop: CancellationToken,
    ) {
        let mut place = Place::default();
        let mut failures = 0_u32;
        loop {
            let before = place.messages;
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                ended = self.follow(&channel, &credentials, &verifier, &mut place) => ended,
            };
            place.snapshot = None;
            let status = match ended {
                // The stream ends with its token: the next one goes on at once, unless tokens are expired from the start.
                Err(status) if reason(&status).as_deref() == Some("TOKEN_EXPIRED") && place.messages > before => {
                    failures = 0;
                    continue;
                }
                Err(status) => *status,
                Ok(()) => Status::unavailable("the stream ended"),
            };
            if status.code() == Code::OutOfRange {
                place = Place::default();
            }
            failures = if place.messages > before { 1 } else { failures.saturating_add(1) };
            metrics::counter!("auth_revocation_streams_lost_total").increment(1);
            tracing::warn!(code = ?status.code(), message = status.message(), "the stream of revocations was lost");
            let pause = PAUSES.1.min(PAUSES.0 * 2_u32.saturating_pow((failures - 1).min(8)));
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause) => {}
            }
        }
    }

    async fn follow(
        &self,
        channel: &ChannelSource,
        credentials: &ServiceCredentials,
        verifier: &Verifier,
        place: &mut Place,
    ) -> Result<(), Box<Status>> {
        let mut client = TokenServiceClient::new(channel());
        let opened = timeout(OPEN, open(&mut client, credentials, place.revision)).await;
        let mut stream = opened.unwrap_or_else(|_| Err(Box::new(Status::deadline_exceeded("no stream in time"))))?;
        loop {
            let message = timeout(DEAD_AFTER, stream.message()).await;
            let message = message.map_err(|_| Box::new(Status::unavailable("the stream went silent")))?;
            let Some(message) = message.map_err(Box::new)? else { return Ok(()) };
            self.take(message, verifier, place);
            place.messages += 1;
        }
    }

    fn take(&self, message: WatchRevocationsResponse, verifier: &Verifier, place: &mut Place) {
        let WatchRevocationsResponse { revision, event, .. } = message;
        // An event that a newer auth-service has added says nothing to us.
        match event.unwrap_or(Event::Heartbeat(Default::default())) {
            Event::SnapshotStarted(_) => place.snapshot = Some(Known::default()),
            Event::SnapshotCompleted(_) => {
                if let Some(snapshot) = place.snapshot.take() {
                    *self.shared.known.write().unwrap_or_else(PoisonError::into_inner) = snapshot;
                }
            }
            event => {
                if matches!(event, Event::SigningKeysChanged(_)) {
                    verifier.fetch_soon();
                }
                let now = seconds(SystemTime::now());
                let is_understood = match &mut place.snapshot {
                    Some(snapshot) => snapshot.add(&event),
                    None => {
                        let mut known = self.shared.known.write().unwrap_or_else(PoisonError::into_inner);
                        if place.forgotten_at.is_none_or(|at| at.elapsed() >= FORGET) {
                            place.forgotten_at = Some(Instant::now());
                            known.forget(now);
                        }
                        known.add(&event)
                    }
                };
                if !is_understood {
                    tracing::warn!(revision, "a revocation could not be understood; update this service");
                }
            }
        }
        if place.snapshot.is_none() {
            place.revision = place.revision.max(revision);
            *self.shared.heard.write().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            let known = self.shared.known.read().unwrap_or_else(PoisonError::into_inner).len();
            metrics::gauge!("auth_revocations_known").set(u32::try_from(known).unwrap_or(u32::MAX));
        }
    }
}

async fn open(
    client: &mut TokenServiceClient<tonic::transport::Channel>,
    credentials: &ServiceCredentials,
    after_revision: i64,
) -> Result<Streaming<WatchRevocationsResponse>, Box<Status>> {
    let ServiceCredentials { client_id, client_secret } = credentials.clone();
    let issued = client.issue_service_token(IssueServiceTokenRequest { client_id, client_secret }).await;
    let token = issued.map_err(Box::new)?.into_inner().access_token;
    let mut request = Request::new(WatchRevocationsRequest { after_revision });
    let value = format!("Bearer {token}").parse::<MetadataValue<Ascii>>();
    let mut value = value.map_err(|_| Box::new(Status::internal("the token cannot be sent")))?;
    value.set_sensitive(true);
    request.metadata_mut().insert("authorization", value);
    Ok(client.watch_revocations(request).await.map_err(Box::new)?.into_inner())
}

fn reason(status: &Status) -> Option<String> {
    use tonic_types::StatusExt as _;
    status.get_details_error_info().map(|info| info.reason)
}

/// Help texts, for the recorder that stands by now.
pub(crate) fn describe_metrics() {
    metrics::describe_counter!(
        "auth_revocation_streams_lost_total",
        "Streams of revocations that were lost or refused"
    );
    metrics::describe_gauge!("auth_revocations_known", "Users, sessions, roles and service accounts with void tokens");
    metrics::describe_gauge!(
        "auth_revocations_live",
        "1 while revocations arrive; 0 when the stream has been dead for 15 s: writes are refused"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn principal(revision: i64) -> Principal {
        Principal {
            id: Uuid::from_u128(1),
            kind: PrincipalKind::User,
            session_id: Some(Uuid::from_u128(2)),
            role: "auditor".to_owned(),
            permissions: BTreeSet::new(),
            token_id: String::new(),
            revision,
            issued_at: SystemTime::UNIX_EPOCH,
            expires_at: SystemTime::UNIX_EPOCH,
        }
    }

    fn void(revision: i64) -> Void {
        Void { revision, forget_at: 2_000 }
    }

    #[test]
    fn what_voids_a_token() {
        let mut known = Known::default();
        assert!(!known.voids(&principal(1_000)));
        insert(&mut known.users, Uuid::from_u128(1), void(1_001));
        assert!(known.voids(&principal(1_000)) && !known.voids(&principal(1_001)));
        // A service account is none of the users, whatever its id.
        let program = Principal { kind: PrincipalKind::Service, session_id: None, ..principal(1_000) };
        assert!(!known.voids(&program));
        insert(&mut known.roles, "auditor".to_owned(), void(1_005));
        assert!(known.voids(&principal(1_004)) && !known.voids(&principal(1_005)));
        insert(&mut known.sessions, Uuid::from_u128(2), void(i64::MAX));
        assert!(known.voids(&principal(2_000)));
        known.forget(1_999);
        assert_eq!(known.len(), 3);
        known.forget(2_000);
        assert_eq!(known.len(), 0);
    }

    #[test]
    fn an_older_word_that_comes_later_takes_nothing_back() {
        let mut known = Known::default();
        insert(&mut known.users, Uuid::from_u128(1), void(1_010));
        insert(&mut known.users, Uuid::from_u128(1), void(1_001));
        assert!(known.voids(&principal(1_009)));
    }
}
