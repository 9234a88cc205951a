//! The life of a server: bound, serving, draining, gone.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tower::{Layer, Service};

use super::accept::{LANES, Lanes, Limits, accept};
use super::tls::Reloading;
use super::{ServeError, ServerBuilder};
use crate::methods::MethodTable;
use crate::readiness::Readiness;
use crate::stack::{Authenticated, GrpcRequest, GrpcResponse, StackOptions, stack};
use crate::tasks::Supervisor;

/// Streams (calls) a client may have open on one connection; beyond that it queues or opens another connection.
const MAX_STREAMS: u32 = 100;
/// An idle peer is asked for a sign of life this often, and given this long to answer.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections are closed gracefully at about this age, so that clients spread over new replicas. Each lane has its own age within
/// ±10 %, so that connections opened together do not close together.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(10 * 60);
/// Header lists above this are refused by HTTP/2 itself; tokens take about 1 KiB.
const MAX_HEADERS: u32 = 16 * 1024;
/// Background tasks get this long to end after the drain.
const TASKS_PATIENCE: Duration = Duration::from_secs(5);

/// A server that holds its ports and has not begun to answer.
pub struct BoundServer {
    grpc_addr: SocketAddr,
    metrics_addr: SocketAddr,
    running: Pin<Box<dyn Future<Output = Result<(), ServeError>> + Send>>,
}

impl BoundServer {
    /// Where gRPC is served; the real port when 0 was asked for.
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc_addr
    }

    /// Where `/metrics`, `/livez` and `/readyz` are served.
    pub fn metrics_addr(&self) -> SocketAddr {
        self.metrics_addr
    }

    /// Serves until SIGTERM, SIGINT, the stop token or the failure of a background task; then NOT_SERVING, propagation pause,
    /// GOAWAY, drain with a deadline, end of the background tasks. A second signal cuts the drain short.
    pub async fn serve(self) -> Result<(), ServeError> {
        self.running.await
    }
}

impl<L> ServerBuilder<L> {
    /// Binds both addresses and reads the TLS files; fails before anything is served when one of them is no good.
    pub async fn bind(self) -> Result<BoundServer, ServeError>
    where
        L: Layer<Authenticated>,
        L::Service: Service<GrpcRequest, Response = GrpcResponse, Error: Into<tonic::codegen::StdError>, Future: Send>
            + Clone
            + Send
            + 'static,
    {
        let tls = Reloading::load(&self.tls)?;
        let grpc = listen("LISTEN_ADDR", "--listen-addr", self.addresses.grpc).await?;
        let http = listen("METRICS_ADDR", "--metrics-addr", self.addresses.metrics).await?;
        let local =
            |listener: &TcpListener| listener.local_addr().map_err(|error| ServeError::Server(error.to_string()));
        let (grpc_addr, metrics_addr) = (local(&grpc)?, local(&http)?);

        let health = HealthReporter::new();
        // Before anything is accepted: tonic-health's own first state is SERVING.
        let told = self.readiness.report(&health, &self.services).await;
        let draining = CancellationToken::new();
        let (methods, mut routes) = (methods(&self.descriptor_sets)?, self.routes);
        routes.add_service(HealthServer::new(HealthService::from_health_reporter(health.clone())));
        let reflection = || {
            let builder = tonic_reflection::server::Builder::configure();
            let sets = self.descriptor_sets.iter().chain([&tonic_health::pb::FILE_DESCRIPTOR_SET]);
            sets.fold(builder, |builder, set| builder.register_encoded_file_descriptor_set(set))
        };
        let undecodable = |error: tonic_reflection::server::Error| ServeError::Descriptors(error.to_string());
        routes.add_service(reflection().build_v1().map_err(undecodable)?);
        routes.add_service(reflection().build_v1alpha().map_err(undecodable)?);

        let options = StackOptions {
            methods,
            default_deadline: self.default_deadline,
            principal: self.principal,
            draining: draining.clone(),
        };
        let service = stack(&options, &self.auth, routes.routes());

        let mut lanes = JoinSet::new();
        let mut senders = Vec::new();
        for _ in 0..LANES {
            let (sender, incoming) = tokio::sync::mpsc::channel(16);
            senders.push(sender);
            let incoming = tokio_stream::wrappers::ReceiverStream::new(incoming);
            let incoming = tokio_stream::StreamExt::map(incoming, Ok::<_, std::io::Error>);
            let served = tonic_server().serve_with_incoming_shutdown(
                service.clone(),
                incoming,
                draining.clone().cancelled_owned(),
            );
            lanes.spawn(served);
        }
        let parts = Parts {
            readiness: self.readiness.clone(),
            supervisor: self.supervisor,
            stop: self.stop,
            draining,
            propagation: self.shutdown.shutdown_propagation,
            drain: self.shutdown.shutdown_drain,
        };
        let (services, metrics, readiness) = (self.services, self.metrics, self.readiness);
        let running = async move {
            let own = Supervisor::new();
            if let Some(tls) = tls.clone() {
                own.spawn("tls_reload", move |stop| async move {
                    tls.watch(stop).await;
                    Ok(())
                });
            }
            let latches = readiness.clone();
            own.spawn("health", move |stop| async move {
                latches.drive_health(health, services, told, stop).await;
                Ok(())
            });
            own.spawn("http", move |stop| async move { Ok(crate::http::serve(http, readiness, metrics, stop).await?) });
            let accepting = accept(grpc, tls, Lanes::new(senders), Limits::default(), parts.draining.clone());
            // Before the line that others wait for: they may signal at once.
            let signals = Signals::new()?;
            tracing::info!(%grpc_addr, %metrics_addr, "listening");
            let result = parts.run(signals, &own, accepting, lanes).await;
            own.shutdown(TASKS_PATIENCE).await;
            result
        };
        Ok(BoundServer { grpc_addr, metrics_addr, running: Box::pin(running) })
    }
}

/// What the life of a server turns on.
struct Parts {
    readiness: Readiness,
    supervisor: Supervisor,
    stop: CancellationToken,
    draining: CancellationToken,
    propagation: Duration,
    drain: Duration,
}

impl Parts {
    async fn run(
        self,
        mut signals: Signals,
        own: &Supervisor,
        accepting: impl Future<Output = ()> + Send + 'static,
        mut lanes: JoinSet<Result<(), tonic::transport::Error>>,
    ) -> Result<(), ServeError> {
        let accepting = tokio::spawn(accepting);
        let outcome = tokio::select! {
            name = signals.next() => {
                tracing::info!(signal = name, "shutting down");
                Ok(())
            }
            () = self.stop.cancelled() => Ok(()),
            failure = self.supervisor.failed() => Err(failure.into()),
            failure = own.failed() => Err(failure.into()),
            lane = lanes.join_next() => Err(ServeError::Server(format!("a lane ended: {lane:?}"))),
        };
        self.readiness.stop();
        // A failed process has no time to be polite; callers see the connection end and go elsewhere.
        if outcome.is_ok() && !self.propagation.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(self.propagation) => {}
                _ = signals.next() => {}
            }
        }
        let started = Instant::now();
        self.draining.cancel();
        let _ = accepting.await;
        let drained = async { while lanes.join_next().await.is_some() {} };
        let drained = tokio::select! {
            drained = tokio::time::timeout(self.drain, drained) => drained.is_ok(),
            _ = signals.next() => false,
        };
        let tasks_ended = self.supervisor.shutdown(TASKS_PATIENCE).await;
        let drain_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        if drained && tasks_ended {
            tracing::info!(drain_ms, "stopped");
        } else {
            tracing::warn!(drain_ms, drained, tasks_ended, "stopped with work still open");
        }
        outcome
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, ServeError> {
        let of =
            |kind| signal(kind).map_err(|error| ServeError::Server(format!("signals cannot be received: {error}")));
        Ok(Self { terminate: of(SignalKind::terminate())?, interrupt: of(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

async fn listen(variable: &'static str, flag: &'static str, address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|error| {
        let reason = match error.kind() {
            std::io::ErrorKind::AddrInUse => "another process listens there; choose another port or stop it".to_owned(),
            std::io::ErrorKind::PermissionDenied => "not allowed; ports below 1024 need a privilege".to_owned(),
            std::io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
            _ => error.to_string(),
        };
        ServeError::Bind { variable, flag, address, reason }
    })
}

fn methods(sets: &[&'static [u8]]) -> Result<MethodTable, ServeError> {
    let own = [
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let sets: Vec<&[u8]> = sets.iter().copied().chain(own).collect();
    MethodTable::from_descriptor_sets(&sets).map_err(|error| ServeError::Descriptors(error.to_string()))
}

fn tonic_server() -> Server {
    // Up to 10 % either way, in thousandths.
    let per_mille = 900 + u32::try_from(crate::jitter_below(201)).unwrap_or_default();
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_header_list_size(MAX_HEADERS)
        .max_connection_age(MAX_CONNECTION_AGE * per_mille / 1000)
}
