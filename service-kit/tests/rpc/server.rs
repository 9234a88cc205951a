//! The life of a server: bind, health, reflection, drain.

use std::time::{Duration, Instant};

use crate::behaviour::{Behaviour, Running, anywhere, call, connect, get, request, serve, shutdown};
use service_kit::config::{ListenAddresses, TlsArgs};
use service_kit::readiness::Readiness;
use service_kit::server::{ServeError, ServerBuilder};
use service_kit::tasks::Supervisor;
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_client::ServerReflectionClient};

fn ready() -> Result<(), String> {
    Ok(())
}

async fn channel(server: &Running) -> Channel {
    Endpoint::new(format!("http://{}", server.grpc)).unwrap().connect().await.unwrap()
}

pub(crate) async fn check(channel: Channel, service: &str) -> Result<ServingStatus, Code> {
    let request = HealthCheckRequest { service: service.to_owned() };
    let answer = HealthClient::new(channel).check(request).await.map_err(|status| status.code())?;
    Ok(answer.into_inner().status())
}

#[tokio::test(flavor = "multi_thread")]
async fn health_follows_the_latches_both_ways() {
    let server = serve(TlsArgs::default(), shutdown(0, 1000), |builder| builder).await;
    let channel = channel(&server).await;
    for service in ["", "test.v1.BehaviourService"] {
        assert_eq!(check(channel.clone(), service).await, Ok(ServingStatus::NotServing), "{service}");
    }
    assert_eq!(check(channel.clone(), "test.v1.Unknown").await, Err(Code::NotFound));
    assert_eq!(get(server.http, "/livez").await.0, "HTTP/1.1 200 OK");
    let (head, body) = get(server.http, "/readyz").await;
    assert_eq!(head, "HTTP/1.1 503 Service Unavailable");
    assert_eq!(body, r#"{"not_ready":{"database":"not checked yet"},"ready":false}"#);

    let watched = HealthCheckRequest { service: "test.v1.BehaviourService".to_owned() };
    let mut watch = HealthClient::new(channel.clone()).watch(watched).await.unwrap().into_inner();
    let mut next = async || watch.next().await.unwrap().map(|answer| answer.status()).map_err(|status| status.code());
    assert_eq!(next().await, Ok(ServingStatus::NotServing));
    server.readiness.set("database", ready());
    assert_eq!(next().await, Ok(ServingStatus::Serving));
    assert_eq!(check(channel.clone(), "").await, Ok(ServingStatus::Serving));
    assert_eq!(get(server.http, "/readyz").await.0, "HTTP/1.1 200 OK");
    server.readiness.set("database", Err("connection refused"));
    assert_eq!(next().await, Ok(ServingStatus::NotServing));
    assert!(get(server.http, "/readyz").await.1.contains("connection refused"));

    // A watcher does not hold up the end.
    server.stop.cancel();
    assert_eq!(next().await, Err(Code::Unavailable));
    server.served.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_speaks_both_versions() {
    let server = serve(TlsArgs::default(), shutdown(0, 1000), |builder| builder).await;
    let list = MessageRequest::ListServices(String::new());
    let ask = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let mut client = ServerReflectionClient::new(channel(&server).await);
    let mut answers = client.server_reflection_info(tokio_stream::once(ask)).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) = answers.next().await.unwrap().unwrap().message_response
    else {
        panic!("no list")
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    assert!(names.contains(&"test.v1.BehaviourService".to_owned()), "{names:?}");
    assert!(names.contains(&"grpc.health.v1.Health".to_owned()), "{names:?}");

    use tonic_reflection::pb::v1alpha as old;
    let find =
        old::server_reflection_request::MessageRequest::FileContainingSymbol("test.v1.BehaviourService".to_owned());
    let ask = old::ServerReflectionRequest { host: String::new(), message_request: Some(find) };
    let mut client = old::server_reflection_client::ServerReflectionClient::new(channel(&server).await);
    let mut answers = client.server_reflection_info(tokio_stream::once(ask)).await.unwrap().into_inner();
    let answer = answers.next().await.unwrap().unwrap().message_response;
    assert!(matches!(answer, Some(old::server_reflection_response::MessageResponse::FileDescriptorResponse(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_told_with_the_variable() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap();
    let bind = async |addresses: ListenAddresses| {
        let builder = ServerBuilder::new(addresses, TlsArgs::default(), shutdown(0, 0), Readiness::new(&[]))
            .add_service(Behaviour);
        builder.bind().await.err().unwrap().to_string()
    };
    let error = bind(ListenAddresses { grpc: taken, ..anywhere() }).await;
    assert!(
        error.starts_with("LISTEN_ADDR (--listen-addr): cannot listen on 127.0.0.1:") && !error.contains('\n'),
        "{error}"
    );
    let error = bind(ListenAddresses { metrics: taken, ..anywhere() }).await;
    assert!(error.starts_with("METRICS_ADDR (--metrics-addr)") && error.contains("another process"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_calls_finish_ends_streams_and_refuses_newcomers() {
    let server = serve(TlsArgs::default(), shutdown(400, 5000), |builder| builder).await;
    server.readiness.set("database", ready());
    let (mut slow, mut tick) = (connect(server.grpc).await, connect(server.grpc).await);
    let slow = tokio::spawn(async move { call(&mut slow, request("Sleep", "1200", &[])).await });
    let tick = tokio::spawn(async move { call(&mut tick, request("Tick", "", &[])).await });
    tokio::time::sleep(Duration::from_millis(100)).await;

    server.stop.cancel();
    tokio::time::sleep(Duration::from_millis(150)).await;
    // In the propagation pause: not ready, but still taking new connections and calls.
    assert_eq!(get(server.http, "/readyz").await.0, "HTTP/1.1 503 Service Unavailable");
    assert_eq!(check(channel(&server).await, "").await, Ok(ServingStatus::NotServing));
    let late = call(&mut connect(server.grpc).await, request("Echo", "late", &[])).await;
    assert_eq!(late.messages, ["late"]);

    let tick = tick.await.unwrap();
    assert_eq!((tick.code(), tick.error_info().0.as_str(), tick.messages.len()), (Code::Unavailable, "UNAVAILABLE", 2));
    // Draining: the port is free, the metrics are still there.
    assert!(tokio::net::TcpStream::connect(server.grpc).await.is_err());
    assert_eq!(get(server.http, "/livez").await.0, "HTTP/1.1 200 OK");
    let slow = slow.await.unwrap();
    assert_eq!((slow.code(), slow.messages), (Code::Ok, vec!["slept".to_owned()]));
    server.served.await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(server.http).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_has_a_deadline() {
    let server = serve(TlsArgs::default(), shutdown(0, 300), |builder| builder).await;
    let mut connection = connect(server.grpc).await;
    let _call = tokio::spawn(async move { call(&mut connection, request("Sleep", "20000", &[])).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let started = Instant::now();
    server.stop.cancel();
    server.served.await.unwrap().unwrap();
    let took = started.elapsed();
    assert!((Duration::from_millis(250)..Duration::from_secs(3)).contains(&took), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_background_task_ends_the_server_with_its_name() {
    let supervisor = Supervisor::new();
    let ended = supervisor.token();
    supervisor.spawn("other", |stop| async move {
        stop.cancelled().await;
        Ok(())
    });
    supervisor.spawn("flaky", |_| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Err("lost its mind".into())
    });
    let server = serve(TlsArgs::default(), shutdown(60_000, 1000), |builder| builder.supervisor(supervisor)).await;
    let error = server.served.await.unwrap().unwrap_err();
    assert!(matches!(&error, ServeError::Task(_)), "{error}");
    assert_eq!(error.to_string(), "background task flaky failed: lost its mind");
    assert!(ended.is_cancelled());
}
