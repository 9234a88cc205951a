//! Offline verification of access tokens, for any service behind auth-service.
//!
//! | part | does |
//! |---|---|
//! | [`KeySource`] | where public keys come from: [`GrpcKeySource`] asks auth-service; auth-service itself has one in process |
//! | [`Verifier`] | checks a token against cached keys, in microseconds and without the network |
//! | [`Revocations`] | what is void before its time, followed over a stream; [`Verifier::with_revocations`] refuses it |
//! | [`AuthLayer`] | tower layer: access policy of the called RPC, token, [`Principal`] into the request's extensions |
//!
//! Wiring, in a composition root:
//!
//! ```no_run
//! # async fn wire() -> Result<(), Box<dyn std::error::Error>> {
//! use auth_client::{AuthLayer, GrpcKeySource, Verifier, VerifierConfig};
//!
//! let source = GrpcKeySource::connect_lazy("http://auth:50051", Default::default())?;
//! let verifier = Verifier::new(VerifierConfig::new("auth-service", "internal"), source);
//! let stop = tokio_util::sync::CancellationToken::new();
//! tokio::spawn(verifier.clone().run(stop)); // or under the service's own supervisor: without it no key ever arrives
//! let ready = verifier.keys_ready(); // a readiness latch
//! let layer = AuthLayer::new(verifier, "task.v1");
//! # drop((ready, layer)); Ok(()) }
//! ```
//!
//! With a service account that holds `tokens.introspect` the verifier also refuses what was revoked, within a second:
//!
//! ```no_run
//! # fn wire(channel: auth_client::ChannelSource, verifier: auth_client::Verifier) {
//! use auth_client::{Revocations, ServiceCredentials};
//!
//! let credentials = ServiceCredentials { client_id: "task-service".to_owned(), client_secret: "...".to_owned() };
//! let revocations = Revocations::default();
//! let verifier = verifier.with_revocations(revocations.clone()); // the one that goes into the layer
//! let stop = tokio_util::sync::CancellationToken::new();
//! tokio::spawn(revocations.run(channel, credentials, verifier, stop));
//! # }
//! ```
//!
//! When the stream is dead (silent for 15 s, or not there yet) what is known goes on to count: reads go on, and every other RPC
//! is refused with UNAVAILABLE. Which RPC reads says its `idempotency_level` in the proto.
//!
//! Keys stay cached while auth-service is away; nobody is locked out by its restart.

mod claims;
mod keys;
mod layer;
mod principal;
mod refusal;
mod revocations;
mod source;
mod verifier;

pub use claims::{Claims, TOKEN_TYPE};
pub use keys::{KeyAlgorithm, KeyError, PublicKey};
pub use layer::{AuthLayer, AuthService, principal_id};
pub use principal::{Principal, PrincipalKind};
pub use refusal::Refusal;
pub use revocations::{DEAD_AFTER, Revocations, ServiceCredentials};
pub use source::{
    BoxFuture, ChannelOptions, ChannelSource, GrpcKeySource, KeySource, KeySourceError, SourceUrlError, channel_lazy,
};
pub use verifier::{TokenError, Verifier, VerifierConfig};
