//! The tower stack on a real server: order and effect of each layer, as a client sees them, and what the log and metrics tell.

use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::behaviour::{Running, call, connect, get, raw_request, request, serve, shutdown};
use service_kit::config::{TelemetryArgs, TlsArgs};
use service_kit::stack::Authenticated;
use service_kit::telemetry::{self, Metrics};
use tonic::{Code, Status};
use tower::Service;

/// The log of this process, as JSON lines.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// The line of the RPC with this request id.
    async fn rpc(&self, request_id: &str) -> serde_json::Value {
        for _ in 0..100 {
            let bytes = self.0.lock().unwrap().clone();
            let lines = std::str::from_utf8(&bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap());
            let mut mine =
                lines.filter(|line: &serde_json::Value| line["message"] == "rpc" && line["request_id"] == request_id);
            if let Some(line) = mine.next() {
                assert!(mine.next().is_none(), "two lines for one RPC");
                return line;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("no line for {request_id}");
    }
}

/// Log and metrics are the process's; the tests of this file share them.
fn telemetry() -> &'static (Log, Metrics) {
    static TELEMETRY: OnceLock<(Log, Metrics)> = OnceLock::new();
    TELEMETRY.get_or_init(|| {
        let log = Log::default();
        let writer = log.clone();
        tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_writer(move || writer.clone())
            .with_max_level(tracing::Level::TRACE)
            .init();
        (log, telemetry::init(&TelemetryArgs { rust_log: "info".to_owned(), ..TelemetryArgs::default() }).unwrap())
    })
}

/// Who calls, as the test's authentication layer found out.
#[derive(Clone)]
struct Caller(String);

/// Takes `authorization: token-of-X` for X; `slow` takes two seconds to check; without one the call is refused.
#[derive(Clone)]
struct AuthLayer;

#[derive(Clone)]
struct Auth(Authenticated);

impl tower::Layer<Authenticated> for AuthLayer {
    type Service = Auth;

    fn layer(&self, inner: Authenticated) -> Auth {
        Auth(inner)
    }
}

impl Service<service_kit::stack::GrpcRequest> for Auth {
    type Response = service_kit::stack::GrpcResponse;
    type Error = std::convert::Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: service_kit::stack::GrpcRequest) -> Self::Future {
        let token = request.headers().get("authorization").map(|token| token.to_str().unwrap().to_owned());
        tracing::info!(headers = ?request.headers(), "what a careless layer logs");
        let mut inner = self.0.clone();
        Box::pin(async move {
            match token.as_deref().and_then(|token| token.strip_prefix("token-of-")) {
                None => Ok(Status::unauthenticated("no").into_http()),
                Some("panic") => panic!("on purpose"),
                Some(caller) => {
                    if caller == "slow" {
                        tokio::time::sleep(Duration::from_secs(2)).await;
                    }
                    request.extensions_mut().insert(Caller(caller.to_owned()));
                    inner.call(request).await
                }
            }
        })
    }
}

async fn server() -> Running {
    let metrics = telemetry().1.clone();
    serve(TlsArgs::default(), shutdown(0, 1000), |builder| {
        builder
            .auth_layer(AuthLayer)
            .principal(|extensions| extensions.get::<Caller>().map(|caller| caller.0.clone()))
            .metrics(metrics)
            .default_deadline(Duration::from_millis(800))
    })
    .await
}

const ME: (&str, &str) = ("authorization", "token-of-u-42");

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_answered_logged_and_counted() {
    let server = server().await;
    let mut connection = connect(server.grpc).await;
    let answer = call(&mut connection, request("Echo", "hello", &[ME, ("x-request-id", "id-1")])).await;
    assert_eq!((answer.code(), answer.messages), (Code::Ok, vec!["hello".to_owned()]));
    assert_eq!(answer.headers["x-request-id"], "id-1");

    let line = telemetry().0.rpc("id-1").await;
    assert_eq!((&line["service"], &line["method"]), (&"test.v1.BehaviourService".into(), &"Echo".into()));
    assert_eq!((&line["code"], &line["principal"]), (&"OK".into(), &"u-42".into()));
    assert!(line["duration_ms"].as_f64().unwrap() < 800.0);
    let log = String::from_utf8(telemetry().0.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("what a careless layer logs") && !log.contains("token-of-u-42"), "a token is in the log");

    let (head, text) = get(server.http, "/metrics").await;
    assert_eq!(head, "HTTP/1.1 200 OK");
    let counted = r#"grpc_server_requests_total{service="test.v1.BehaviourService",method="Echo",code="OK"} "#;
    assert!(text.contains(counted), "{text}");
    let bucket =
        r#"grpc_server_request_duration_seconds_bucket{service="test.v1.BehaviourService",method="Echo",le="0.001"}"#;
    assert!(text.contains(bucket), "{text}");

    // A malformed id is replaced; the peer is known to handlers.
    let answer = call(&mut connection, request("Peer", "", &[ME, ("x-request-id", "no spaces please")])).await;
    assert_eq!(answer.headers["x-request-id"].len(), 36);
    assert!(answer.messages[0].starts_with("127.0.0.1:"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_layers_stand_in_their_order() {
    let server = server().await;
    let mut connection = connect(server.grpc).await;
    let log = &telemetry().0;

    // Header rules stand above authentication: with two tokens nobody is asked which one counts.
    let two = [ME, ("authorization", "token-of-other"), ("x-request-id", "order-1")];
    let answer = call(&mut connection, request("Echo", "x", &two)).await;
    assert_eq!(
        (answer.code(), answer.error_info()),
        (Code::Unauthenticated, ("AUTHORIZATION_AMBIGUOUS".into(), "test.v1".into()))
    );
    assert_eq!(answer.headers["x-request-id"], "order-1");

    // Authentication stands above the handlers, details and log above authentication.
    let answer = call(&mut connection, request("Panic", "x", &[("x-request-id", "order-2")])).await;
    assert_eq!((answer.code(), answer.error_info().0.as_str()), (Code::Unauthenticated, "UNAUTHENTICATED"));
    assert_eq!(log.rpc("order-2").await["code"], "UNAUTHENTICATED");

    // The deadline covers authentication.
    let started = Instant::now();
    let answer =
        call(&mut connection, request("Echo", "x", &[("authorization", "token-of-slow"), ("x-request-id", "order-3")]))
            .await;
    assert_eq!((answer.code(), answer.error_info().0.as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(log.rpc("order-3").await["code"], "DEADLINE_EXCEEDED");

    // A panic, in a handler or in the authentication layer, is that call's own.
    for (method, token, id) in [("Panic", "token-of-u", "order-4"), ("Echo", "token-of-panic", "order-5")] {
        let answer =
            call(&mut connection, request(method, "x", &[("authorization", token), ("x-request-id", id)])).await;
        assert_eq!((answer.code(), answer.error_info()), (Code::Internal, ("INTERNAL".into(), "test.v1".into())));
        assert_eq!(log.rpc(id).await["code"], "INTERNAL");
    }
    let answer = call(&mut connection, request("Echo", "still here", &[ME])).await;
    assert_eq!(answer.messages, ["still here"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_of_clients_answer_deadline_exceeded() {
    let server = server().await;
    let mut connection = connect(server.grpc).await;
    // Not CANCELLED, which tonic's own timer on the same header answers.
    for timeout in ["5m", "50m", "300m"] {
        let answer = call(&mut connection, request("Sleep", "2000", &[ME, ("grpc-timeout", timeout)])).await;
        assert_eq!((answer.code(), answer.error_info().1.as_str()), (Code::DeadlineExceeded, "test.v1"), "{timeout}");
    }
    // Handlers see the deadline; the service's own is the upper bound of what a client may ask for.
    for (timeout, at_most, at_least) in [("400m", 400, 300), ("1H", 800, 700)] {
        let answer = call(&mut connection, request("Deadline", "", &[ME, ("grpc-timeout", timeout)])).await;
        let left: u128 = answer.messages[0].parse().unwrap();
        assert!((at_least..=at_most).contains(&left), "{timeout}: {left}");
    }
    // Streams have no deadline but the client's own.
    let started = Instant::now();
    let answer = call(&mut connection, request("Tick", "", &[ME, ("grpc-timeout", "1500m")])).await;
    assert_eq!((answer.code(), answer.messages.len()), (Code::DeadlineExceeded, 2));
    assert!(started.elapsed() > Duration::from_millis(1400), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_error_carries_a_reason_and_a_domain() {
    let server = server().await;
    let mut connection = connect(server.grpc).await;
    let info = |reason: &str| (reason.to_owned(), "test.v1".to_owned());

    let answer = call(&mut connection, request("Bare", "", &[ME])).await;
    assert_eq!(
        (answer.code(), answer.error_info(), answer.status.message()),
        (Code::NotFound, info("NOT_FOUND"), "bare")
    );
    let answer = call(&mut connection, request("Nope", "", &[ME])).await;
    assert_eq!((answer.code(), answer.error_info()), (Code::Unimplemented, info("NOT_IMPLEMENTED")));
    let answer = call(&mut connection, raw_request("/other.v1.Unknown/Nope", b"", &[ME])).await;
    assert_eq!((answer.code(), answer.error_info().1.as_str()), (Code::Unimplemented, "other.v1"));
    let answer = call(&mut connection, raw_request("/test.v1.BehaviourService/Echo", b"\x0a\xff", &[ME])).await;
    assert_eq!((answer.code(), answer.error_info()), (Code::InvalidArgument, info("MALFORMED_MESSAGE")));
    let answer = call(&mut connection, request("Echo", &"x".repeat(2000), &[ME])).await;
    assert_eq!((answer.code(), answer.error_info()), (Code::InvalidArgument, info("MESSAGE_TOO_LARGE")));
    let answer = call(&mut connection, request("StreamPanic", "", &[ME])).await;
    assert_eq!((answer.code(), answer.error_info()), (Code::Internal, info("INTERNAL")));

    // Paths that are no RPC share one label.
    for index in 0..20 {
        call(&mut connection, raw_request(&format!("/x.v1.Y/Z{index}"), b"", &[ME])).await;
    }
    let text = get(server.http, "/metrics").await.1;
    assert!(
        text.contains(r#"{service="unknown",method="unknown",code="UNIMPLEMENTED"}"#) && !text.contains("Z1"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_is_logged_as_cancelled() {
    let server = server().await;
    let mut connection = connect(server.grpc).await;
    connection.ready().await.unwrap();
    let call = connection.send_request(request("Sleep", "700", &[ME, ("x-request-id", "gone-1")]));
    assert!(tokio::time::timeout(Duration::from_millis(200), call).await.is_err());
    assert_eq!(telemetry().0.rpc("gone-1").await["code"], "CANCELLED");
}
