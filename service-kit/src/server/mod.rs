//! Bind, serve, drain.
//!
//! ```no_run
//! # use service_kit::{config, readiness::Readiness, server::ServerBuilder};
//! # async fn start(listen: config::ListenArgs<50051, 9464>, tls: config::TlsArgs, shutdown: config::ShutdownArgs) -> Result<(), service_kit::server::ServeError> {
//! let readiness = Readiness::new(&["database", "schema", "keys"]);
//! ServerBuilder::new(listen, tls, shutdown, readiness)
//!     // .descriptor_set(proto::DESCRIPTOR_SET)
//!     // .add_service(ThingServiceServer::new(handler).max_decoding_message_size(service_kit::server::MESSAGE_LIMIT))
//!     // .auth_layer(auth_client_layer)
//!     .serve()
//!     .await
//! # }
//! ```

mod accept;
mod run;
mod tls;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::{Routes, RoutesBuilder};
use tower::layer::util::Identity;
use tower::{Layer, Service};

use crate::config::{ListenAddresses, ShutdownArgs, TlsArgs};
use crate::readiness::Readiness;
use crate::stack::{Authenticated, DEFAULT_DEADLINE, GrpcRequest, GrpcResponse, PrincipalOf};
use crate::tasks::{Supervisor, TaskFailure};
use crate::telemetry::Metrics;

pub use run::BoundServer;

/// See [`TlsArgs::check`].
pub(crate) fn check_tls(args: &TlsArgs) -> Result<(), ServeError> {
    tls::Reloading::load(args).map(|_| ())
}

/// Largest request message a service accepts unless a method needs more: pass it to `max_decoding_message_size` of each generated
/// server (tonic's own default is 4 MiB).
pub const MESSAGE_LIMIT: usize = 64 * 1024;

/// Why serving could not start or ended: one line; exit code 1, or 2 for [`ServeError::Tls`], which is configuration.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address cannot be bound.
    #[error("{variable} ({flag}): cannot listen on {address}: {reason}")]
    Bind {
        /// The environment variable.
        variable: &'static str,
        /// Its flag.
        flag: &'static str,
        /// The address asked for.
        address: SocketAddr,
        /// What is in the way and what to do.
        reason: String,
    },
    /// A TLS file cannot be used.
    #[error("{0}")]
    Tls(String),
    /// A descriptor set cannot be decoded.
    #[error("a descriptor set does not decode: {0}")]
    Descriptors(String),
    /// A background task ended.
    #[error(transparent)]
    Task(#[from] TaskFailure),
    /// The server itself broke.
    #[error("the server failed: {0}")]
    Server(String),
}

/// Collects what is to be served.
pub struct ServerBuilder<L = Identity> {
    addresses: ListenAddresses,
    tls: TlsArgs,
    shutdown: ShutdownArgs,
    readiness: Readiness,
    routes: RoutesBuilder,
    services: Vec<String>,
    descriptor_sets: Vec<&'static [u8]>,
    auth: L,
    principal: PrincipalOf,
    metrics: Option<Metrics>,
    supervisor: Supervisor,
    stop: CancellationToken,
    default_deadline: Duration,
}

impl ServerBuilder {
    /// Nothing to serve yet but health, reflection and the HTTP side.
    pub fn new(
        addresses: impl Into<ListenAddresses>,
        tls: TlsArgs,
        shutdown: ShutdownArgs,
        readiness: Readiness,
    ) -> Self {
        Self {
            addresses: addresses.into(),
            tls,
            shutdown,
            readiness,
            routes: Routes::builder(),
            services: Vec::new(),
            descriptor_sets: Vec::new(),
            auth: Identity::new(),
            principal: |_| None,
            metrics: None,
            supervisor: Supervisor::new(),
            stop: CancellationToken::new(),
            default_deadline: DEFAULT_DEADLINE,
        }
    }
}

impl<L> ServerBuilder<L> {
    /// Adds a generated server; health reports it under its full name.
    #[must_use]
    pub fn add_service<S>(mut self, service: S) -> Self
    where
        S: Service<http::Request<Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
        S::Response: axum::response::IntoResponse,
        S::Future: Send + 'static,
    {
        self.services.push(S::NAME.to_owned());
        self.routes.add_service(service);
        self
    }

    /// Adds an encoded `FileDescriptorSet` (with imports) for reflection and the method table. Health and reflection are there.
    #[must_use]
    pub fn descriptor_set(mut self, encoded: &'static [u8]) -> Self {
        self.descriptor_sets.push(encoded);
        self
    }

    /// Sets the authentication layer. It sees every RPC, health and reflection included, and lets those pass that it need not check.
    #[must_use]
    pub fn auth_layer<M>(self, auth: M) -> ServerBuilder<M>
    where
        M: Layer<Authenticated>,
    {
        ServerBuilder {
            addresses: self.addresses,
            tls: self.tls,
            shutdown: self.shutdown,
            readiness: self.readiness,
            routes: self.routes,
            services: self.services,
            descriptor_sets: self.descriptor_sets,
            auth,
            principal: self.principal,
            metrics: self.metrics,
            supervisor: self.supervisor,
            stop: self.stop,
            default_deadline: self.default_deadline,
        }
    }

    /// Says how to read the principal's id from a request's extensions, for the log line.
    #[must_use]
    pub fn principal(mut self, principal: PrincipalOf) -> Self {
        self.principal = principal;
        self
    }

    /// Serves these metrics under `/metrics`.
    #[must_use]
    pub fn metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Watches these background tasks: a failure drains the server and becomes its error; after a drain they are ended.
    #[must_use]
    pub fn supervisor(mut self, supervisor: Supervisor) -> Self {
        self.supervisor = supervisor;
        self
    }

    /// Also shuts down when this token is cancelled (SIGTERM and SIGINT always do).
    #[must_use]
    pub fn stop_token(mut self, stop: CancellationToken) -> Self {
        self.stop = stop;
        self
    }

    /// Deadline of unary calls without `grpc-timeout`, and the longest a client may ask for; 30 seconds unless set.
    #[must_use]
    pub fn default_deadline(mut self, deadline: Duration) -> Self {
        self.default_deadline = deadline;
        self
    }

    /// Binds both addresses and serves until told to stop: [`ServerBuilder::bind`] and [`BoundServer::serve`] in one.
    pub async fn serve(self) -> Result<(), ServeError>
    where
        L: Layer<Authenticated>,
        L::Service: Service<GrpcRequest, Response = GrpcResponse, Error: Into<tonic::codegen::StdError>, Future: Send>
            + Clone
            + Send
            + 'static,
    {
        self.bind().await?.serve().await
    }
}
