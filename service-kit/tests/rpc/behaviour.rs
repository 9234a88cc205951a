//! A gRPC service with every kind of behaviour, a way to serve it, and raw clients.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use prost_types::{
    DescriptorProto, FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto,
};
use service_kit::config::{ListenAddresses, ShutdownArgs, TlsArgs};
use service_kit::readiness::Readiness;
use service_kit::server::{ServeError, ServerBuilder};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, ServerStreamingService, UnaryService};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

/// The behaviour is the method's name.
#[derive(Clone)]
pub(crate) struct Behaviour;

impl NamedService for Behaviour {
    const NAME: &'static str = "test.v1.BehaviourService";
}

/// Unary methods. The request is a string, the answer is one too.
struct Unary(String);

impl UnaryService<String> for Unary {
    type Response = String;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<String>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<String>) -> Self::Future {
        let method = self.0.clone();
        Box::pin(async move {
            match method.as_str() {
                "Echo" => Ok(tonic::Response::new(request.into_inner())),
                "Peer" => Ok(tonic::Response::new(request.remote_addr().unwrap().to_string())),
                "Panic" => panic!("on purpose"),
                "Bare" => Err(Status::not_found("bare")),
                "Deadline" => {
                    let left = service_kit::deadline::remaining(Duration::from_secs(1000));
                    Ok(tonic::Response::new(left.as_millis().to_string()))
                }
                _ => {
                    tokio::time::sleep(Duration::from_millis(request.into_inner().parse().unwrap())).await;
                    Ok(tonic::Response::new("slept".to_owned()))
                }
            }
        })
    }
}

/// Server streams: `Tick` never ends, `StreamPanic` panics after one message.
struct Stream(String);

impl ServerStreamingService<String> for Stream {
    type Response = String;
    type ResponseStream = Pin<Box<dyn tokio_stream::Stream<Item = Result<String, Status>> + Send>>;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, _request: tonic::Request<String>) -> Self::Future {
        let panics = self.0 == "StreamPanic";
        Box::pin(async move {
            let first = tokio_stream::once(Ok("first".to_owned()));
            let rest = tokio_stream::once(()).map(move |()| {
                assert!(!panics, "on purpose");
                Ok("second".to_owned())
            });
            let stream: Self::ResponseStream = Box::pin(first.chain(rest).chain(tokio_stream::pending()));
            Ok(tonic::Response::new(stream))
        })
    }
}

impl tower::Service<Request<Body>> for Behaviour {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = request.uri().path().rsplit('/').next().unwrap().to_owned();
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<String, String>::default()).max_decoding_message_size(1024);
            Ok(match method.as_str() {
                "Tick" | "StreamPanic" => grpc.server_streaming(Stream(method), request).await,
                "Echo" | "Peer" | "Panic" | "Bare" | "Deadline" | "Sleep" => grpc.unary(Unary(method), request).await,
                _ => Status::unimplemented("").into_http(),
            })
        })
    }
}

/// The descriptor set of [`Behaviour`].
pub(crate) fn descriptor_set() -> &'static [u8] {
    let method = |name: &str, streaming| MethodDescriptorProto {
        name: Some(name.to_owned()),
        input_type: Some(".test.v1.Nothing".to_owned()),
        output_type: Some(".test.v1.Nothing".to_owned()),
        server_streaming: Some(streaming),
        ..Default::default()
    };
    let unary = ["Echo", "Peer", "Panic", "Bare", "Deadline", "Sleep"].map(|name| method(name, false));
    let streams = ["Tick", "StreamPanic"].map(|name| method(name, true));
    let file = FileDescriptorProto {
        name: Some("test/v1/behaviour.proto".to_owned()),
        package: Some("test.v1".to_owned()),
        message_type: vec![DescriptorProto { name: Some("Nothing".to_owned()), ..Default::default() }],
        service: vec![ServiceDescriptorProto {
            name: Some("BehaviourService".to_owned()),
            method: unary.into_iter().chain(streams).collect(),
            ..Default::default()
        }],
        syntax: Some("proto3".to_owned()),
        ..Default::default()
    };
    FileDescriptorSet { file: vec![file] }.encode_to_vec().leak()
}

/// A running server.
pub(crate) struct Running {
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) readiness: Readiness,
    pub(crate) stop: CancellationToken,
    pub(crate) served: tokio::task::JoinHandle<Result<(), ServeError>>,
}

pub(crate) fn anywhere() -> ListenAddresses {
    ListenAddresses { grpc: ([127, 0, 0, 1], 0).into(), metrics: ([127, 0, 0, 1], 0).into() }
}

pub(crate) fn shutdown(propagation_ms: u64, drain_ms: u64) -> ShutdownArgs {
    ShutdownArgs {
        shutdown_propagation: Duration::from_millis(propagation_ms),
        shutdown_drain: Duration::from_millis(drain_ms),
    }
}

/// Serves [`Behaviour`] on free ports with what `adapt` adds.
pub(crate) async fn serve<L>(
    tls: TlsArgs,
    shutdown: ShutdownArgs,
    adapt: impl FnOnce(ServerBuilder) -> ServerBuilder<L>,
) -> Running
where
    L: tower::Layer<service_kit::stack::Authenticated>,
    L::Service: tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static,
{
    let readiness = Readiness::new(&["database"]);
    let stop = CancellationToken::new();
    let builder = ServerBuilder::new(anywhere(), tls, shutdown, readiness.clone())
        .descriptor_set(descriptor_set())
        .add_service(Behaviour)
        .stop_token(stop.clone());
    let bound = adapt(builder).bind().await.unwrap();
    let (grpc, http) = (bound.grpc_addr(), bound.metrics_addr());
    Running { grpc, http, readiness, stop, served: tokio::spawn(bound.serve()) }
}

/// An HTTP/2 connection without any help of tonic's client.
pub(crate) type Connection = http2::SendRequest<Full<Bytes>>;

pub(crate) async fn connect(address: SocketAddr) -> Connection {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// What a call came to.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) headers: HeaderMap,
    pub(crate) status: Status,
    /// The messages, each as its own bytes after the 5 bytes of its frame.
    pub(crate) messages: Vec<String>,
}

impl Answer {
    pub(crate) fn code(&self) -> Code {
        self.status.code()
    }

    /// Reason and domain of the status.
    pub(crate) fn error_info(&self) -> (String, String) {
        let info = tonic_types::StatusExt::get_details_error_info(&self.status).expect("no ErrorInfo");
        (info.reason, info.domain)
    }
}

/// A request of [`Behaviour`]'s `method` with `message` and these headers.
pub(crate) fn request(method: &str, message: &str, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let message = message.to_owned().encode_to_vec();
    raw_request(&format!("/test.v1.BehaviourService/{method}"), &message, headers)
}

pub(crate) fn raw_request(path: &str, message: &[u8], headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend(message);
    let mut builder =
        Request::post(format!("http://test{path}")).header("content-type", "application/grpc").header("te", "trailers");
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(Full::from(framed)).unwrap()
}

/// Sends the request and waits for the status.
pub(crate) async fn call(connection: &mut Connection, request: Request<Full<Bytes>>) -> Answer {
    connection.ready().await.unwrap();
    let response = connection.send_request(request).await.unwrap();
    let (parts, mut body) = response.into_parts();
    let (mut bytes, mut trailers) = (Vec::new(), HeaderMap::new());
    while let Some(frame) = body.frame().await {
        match frame.unwrap().into_data() {
            Ok(data) => bytes.extend(data),
            Err(frame) => trailers = frame.into_trailers().unwrap(),
        }
    }
    let status =
        Status::from_header_map(&trailers).or_else(|| Status::from_header_map(&parts.headers)).expect("no grpc-status");
    let mut messages = Vec::new();
    let mut rest = bytes.as_slice();
    while rest.len() >= 5 {
        let length = u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
        messages.push(String::decode(&rest[5..5 + length]).unwrap());
        rest = &rest[5 + length..];
    }
    Answer { headers: parts.headers, status, messages }
}

/// Status line and body of an HTTP/1.1 GET.
pub(crate) async fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}
