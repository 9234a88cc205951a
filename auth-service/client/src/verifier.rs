//! Offline verification against cached keys.
//!
//! Keys are fetched by one background task ([`Verifier::run`]) only: at an interval, and when a request has seen an
//! unknown kid, though not more often than the floor. A request waits for at most one fetch; a request with a known
//! kid never waits. While fetches fail the cached keys stay.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Validation;
use jsonwebtoken::errors::ErrorKind;
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::claims::{Claims, TOKEN_TYPE};
use crate::keys::{KeyAlgorithm, KeySet, PublicKey};
use crate::principal::Principal;
use crate::revocations::{self, Revocations};
use crate::source::{KeySource, KeySourceError};

/// Longest token that is looked at, in bytes; ours have under 2 KiB.
const LONGEST_TOKEN: usize = 8 * 1024;
/// Most leeway between two clocks that can be configured.
const MOST_LEEWAY: Duration = Duration::from_secs(30);
/// First and longest pause before a failed fetch is tried again.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// What a verifier expects and how it keeps its keys fresh.
#[derive(Debug, Clone)]
pub struct VerifierConfig {
    /// Expected `iss`.
    pub issuer: String,
    /// Expected `aud`.
    pub audience: String,
    /// Tolerated difference of clocks; more than 30 s counts as 30 s.
    pub leeway: Duration,
    /// Pause between two regular fetches.
    pub refresh_interval: Duration,
    /// Least time between two fetches that unknown kids ask for.
    pub unknown_kid_floor: Duration,
    /// Longest time one fetch may take.
    pub fetch_timeout: Duration,
}

impl VerifierConfig {
    /// The defaults: leeway 30 s, a fetch a minute, for unknown kids at most one in 5 s, each at most 3 s.
    pub fn new(issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into(),
            audience: audience.into(),
            leeway: MOST_LEEWAY,
            refresh_interval: Duration::from_secs(60),
            unknown_kid_floor: Duration::from_secs(5),
            fetch_timeout: Duration::from_secs(3),
        }
    }
}

/// Why a token was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token of ours; the text is for the log.
    #[error("invalid token: {0}")]
    Invalid(&'static str),
    /// Properly signed, but its time is over.
    #[error("expired token")]
    Expired,
    /// Properly signed and in its time, and void all the same.
    #[error("revoked token")]
    Revoked,
    /// No published key has this kid.
    #[error("unknown kid")]
    UnknownKey,
    /// No keys have been fetched yet.
    #[error("no keys to verify with")]
    NoKeys,
}

impl TokenError {
    /// Value of the metric's label.
    fn outcome(self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::UnknownKey => "unknown_key",
            Self::NoKeys => "no_keys",
        }
    }
}

/// Verifies access tokens. Cheap to clone; all clones share the keys.
#[derive(Clone)]
pub struct Verifier {
    shared: Arc<Shared>,
    revocations: Option<Revocations>,
}

struct Shared {
    config: VerifierConfig,
    source: Box<dyn KeySource>,
    eddsa: Validation,
    es256: Validation,
    keys: RwLock<Arc<KeySet>>,
    fetches: RwLock<Fetches>,
    /// How many fetches have ended.
    ended: watch::Sender<u64>,
    wanted: Notify,
    ready: watch::Sender<bool>,
}

#[derive(Default)]
struct Fetches {
    started: u64,
    last_start: Option<Instant>,
}

/// All that our header may hold. `crit`, `jwk`, `jku`, `x5u`, `x5c` and whatever else is refused unseen.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    kid: String,
    typ: String,
}

impl Verifier {
    /// A verifier without keys; [`run`](Self::run) fetches them.
    pub fn new(config: VerifierConfig, source: impl KeySource) -> Self {
        let validation = |algorithm: KeyAlgorithm| {
            let mut validation = Validation::new(algorithm.jwt());
            validation.leeway = config.leeway.min(MOST_LEEWAY).as_secs();
            validation.validate_nbf = true;
            validation.set_issuer(&[&config.issuer]);
            validation.set_audience(&[&config.audience]);
            validation.set_required_spec_claims(&["iss", "aud", "sub", "exp", "nbf"]);
            validation
        };
        let (eddsa, es256) = (validation(KeyAlgorithm::EdDsa), validation(KeyAlgorithm::Es256));
        describe_metrics();
        revocations::describe_metrics();
        let shared = Shared {
            config,
            source: Box::new(source),
            eddsa,
            es256,
            keys: RwLock::default(),
            fetches: RwLock::default(),
            ended: watch::Sender::new(0),
            wanted: Notify::new(),
            ready: watch::Sender::new(false),
        };
        Self { shared: Arc::new(shared), revocations: None }
    }

    /// This verifier, which also refuses what is revoked.
    #[must_use]
    pub fn with_revocations(self, revocations: Revocations) -> Self {
        Self { revocations: Some(revocations), ..self }
    }

    /// Whether all that is revoked is known, or nobody asked for it to be.
    pub(crate) fn revocations_are_live(&self) -> bool {
        self.revocations.as_ref().is_none_or(Revocations::is_live)
    }

    /// Has the keys fetched without waiting for it, unless that was done a moment ago.
    pub fn fetch_soon(&self) {
        self.shared.wanted.notify_one();
    }

    /// Keeps the keys fresh until `stop`. Must run exactly once per verifier, owned and watched by the service.
    pub async fn run(self, stop: CancellationToken) {
        let mut failures = 0_u32;
        loop {
            let fetched = tokio::select! {
                () = stop.cancelled() => return,
                fetched = self.shared.fetch() => fetched,
            };
            failures = if fetched { 0 } else { failures.saturating_add(1) };
            let pause = self.shared.pause_after(failures);
            let regular = tokio::time::sleep(pause);
            tokio::pin!(regular);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = &mut regular => break,
                    () = self.shared.wanted.notified() => if self.shared.may_fetch() { break },
                }
            }
        }
    }

    /// `true` from the first successful fetch on: a readiness latch.
    pub fn keys_ready(&self) -> watch::Receiver<bool> {
        self.shared.ready.subscribe()
    }

    /// Verifies a token; waits for at most one fetch when its kid is unknown.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub async fn verify(&self, token: &str) -> Result<Principal, TokenError> {
        let mut verified = self.shared.verify(token);
        if let Err(TokenError::UnknownKey | TokenError::NoKeys) = verified
            && self.shared.fetched_again().await
        {
            verified = self.shared.verify(token);
        }
        let verified = verified.and_then(|principal| self.unrevoked(principal));
        let outcome = verified.as_ref().map_or_else(|error| error.outcome(), |_| "ok");
        metrics::counter!("auth_token_verifications_total", "outcome" => outcome).increment(1);
        verified
    }

    /// Verifies a token against the keys at hand, never waiting.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn verify_cached(&self, token: &str) -> Result<Principal, TokenError> {
        self.shared.verify(token).and_then(|principal| self.unrevoked(principal))
    }

    fn unrevoked(&self, principal: Principal) -> Result<Principal, TokenError> {
        match &self.revocations {
            Some(revocations) if revocations.voids(&principal) => Err(TokenError::Revoked),
            _ => Ok(principal),
        }
    }
}

impl Shared {
    fn verify(&self, token: &str) -> Result<Principal, TokenError> {
        let header = header_of(token)?;
        let keys = Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner));
        if keys.is_empty() {
            return Err(TokenError::NoKeys);
        }
        let key = keys.get(&header.kid).ok_or(TokenError::UnknownKey)?;
        if header.alg != key.algorithm().name() {
            return Err(TokenError::Invalid("the alg is not the key's"));
        }
        let claims = self.claims_of(token, key)?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if claims.iat > now.as_secs() + self.eddsa.leeway {
            return Err(TokenError::Invalid("issued in the future"));
        }
        Principal::try_from(claims)
    }

    /// Signature first, then issuer, audience and times.
    fn claims_of(&self, token: &str, key: &PublicKey) -> Result<Claims, TokenError> {
        let validation = match key.algorithm() {
            KeyAlgorithm::EdDsa => &self.eddsa,
            KeyAlgorithm::Es256 => &self.es256,
        };
        match jsonwebtoken::decode::<Claims>(token, key.decoding_key(), validation) {
            Ok(data) => Ok(data.claims),
            Err(error) => Err(match error.kind() {
                ErrorKind::ExpiredSignature => TokenError::Expired,
                ErrorKind::ImmatureSignature => TokenError::Invalid("not valid yet"),
                ErrorKind::InvalidSignature => TokenError::Invalid("bad signature"),
                ErrorKind::InvalidIssuer => TokenError::Invalid("another issuer"),
                ErrorKind::InvalidAudience => TokenError::Invalid("another audience"),
                _ => TokenError::Invalid("malformed claims"),
            }),
        }
    }

    /// Whether a fetch ended well since the caller looked: joins one that is under way, or asks for one unless the
    /// last is younger than the floor.
    async fn fetched_again(&self) -> bool {
        let mut ended = self.ended.subscribe();
        let awaited = {
            let fetches = self.fetches.read().unwrap_or_else(PoisonError::into_inner);
            if fetches.started > *ended.borrow_and_update() {
                fetches.started
            } else if self.too_early(&fetches) {
                return false;
            } else {
                self.wanted.notify_one();
                fetches.started + 1
            }
        };
        let patience = self.config.fetch_timeout + Duration::from_millis(500);
        matches!(tokio::time::timeout(patience, ended.wait_for(|ended| *ended >= awaited)).await, Ok(Ok(_)))
    }

    fn may_fetch(&self) -> bool {
        !self.too_early(&self.fetches.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn too_early(&self, fetches: &Fetches) -> bool {
        fetches.last_start.is_some_and(|start| start.elapsed() < self.config.unknown_kid_floor)
    }

    fn pause_after(&self, failures: u32) -> Duration {
        match failures {
            0 => self.config.refresh_interval,
            failures => RETRY_PAUSES.1.min(RETRY_PAUSES.0 * 2_u32.saturating_pow((failures - 1).min(8))),
        }
    }

    /// One fetch; `false` when the cached keys had to stay.
    async fn fetch(&self) -> bool {
        {
            let mut fetches = self.fetches.write().unwrap_or_else(PoisonError::into_inner);
            fetches.started += 1;
            fetches.last_start = Some(Instant::now());
        }
        let fetched = tokio::time::timeout(self.config.fetch_timeout, self.source.signing_keys()).await;
        let good = match fetched {
            Ok(Ok(keys)) if !keys.is_empty() => {
                self.adopt(KeySet::new(keys));
                true
            }
            Ok(Ok(_)) => self.complain(None, "the list of signing keys is empty"),
            Ok(Err(error)) => self.complain(Some(&error), "the signing keys cannot be fetched"),
            Err(_) => self.complain(None, "the signing keys did not come in time"),
        };
        metrics::counter!("auth_key_fetches_total", "outcome" => if good { "ok" } else { "error" }).increment(1);
        self.ended.send_modify(|ended| *ended += 1);
        good
    }

    fn adopt(&self, keys: KeySet) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        metrics::gauge!("auth_keys_cached").set(u32::try_from(keys.len()).unwrap_or(u32::MAX));
        metrics::gauge!("auth_keys_fetched_timestamp_seconds").set(now.as_secs_f64());
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        self.ready.send_replace(true);
    }

    fn complain(&self, error: Option<&KeySourceError>, what: &'static str) -> bool {
        let error = error.map(|error| error as &(dyn std::error::Error + 'static));
        tracing::warn!(error, cached = *self.ready.borrow(), "{what}; those at hand stay");
        false
    }
}

/// Help texts, for the recorder that stands by now.
fn describe_metrics() {
    metrics::describe_counter!("auth_token_verifications_total", "Access tokens checked, by outcome");
    metrics::describe_counter!("auth_key_fetches_total", "Fetches of the signing keys, by outcome");
    metrics::describe_gauge!("auth_keys_cached", "Signing keys at hand");
    metrics::describe_gauge!(
        "auth_keys_fetched_timestamp_seconds",
        "When the signing keys were last fetched; their age is the time since"
    );
}

fn header_of(token: &str) -> Result<Header, TokenError> {
    if token.len() > LONGEST_TOKEN {
        return Err(TokenError::Invalid("too long"));
    }
    let (header, _) = token.split_once('.').ok_or(TokenError::Invalid("not a JWT"))?;
    let json = URL_SAFE_NO_PAD.decode(header).map_err(|_| TokenError::Invalid("the header is not base64url"))?;
    let header: Header = serde_json::from_slice(&json)
        .map_err(|_| TokenError::Invalid("the header has not exactly alg, kid and typ"))?;
    if header.typ != TOKEN_TYPE {
        return Err(TokenError::Invalid("the typ is not at+jwt"));
    }
    Ok(header)
}
