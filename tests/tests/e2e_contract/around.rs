//! What stands beside the RPCs: health, reflection, and the HTTP side.

use std::collections::BTreeSet;

use prost::Message as _;
use proto::descriptor_pool;
use tests::{Pair, Refusal, http_get};
use tokio_stream::once;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// What every server has besides its own package.
const STANDARD: [&str; 3] =
    ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

/// The full names of the services of a package.
fn services(package: &str) -> BTreeSet<String> {
    let ours = descriptor_pool().services().filter(|service| service.package_name() == package);
    ours.map(|service| service.full_name().to_owned()).collect()
}

/// Both servers with their packages.
fn servers(pair: &Pair) -> [(Channel, &'static str, &'static str); 2] {
    [(pair.auth.channel(), "auth.v1", "task.v1"), (pair.task.channel(), "task.v1", "auth.v1")]
}

#[tokio::test]
async fn health_serves_for_the_server_and_each_of_its_services() {
    let pair = Pair::start().await;
    for (channel, package, other) in servers(&pair) {
        let mut health = HealthClient::new(channel);
        for service in services(package).into_iter().chain([String::new()]) {
            let answer = health.check(HealthCheckRequest { service: service.clone() }).await;
            let status = answer.unwrap_or_else(|status| panic!("{package}: {service:?}: {status:?}")).into_inner();
            assert_eq!(status.status(), ServingStatus::Serving, "{package}: {service:?}");
        }
        for service in services(other).into_iter().chain(["no.such.Service".to_owned()]) {
            let answer = health.check(HealthCheckRequest { service: service.clone() }).await;
            assert_eq!(answer.unwrap_err().code(), Code::NotFound, "{package} knows nothing of {service}");
        }
    }
}

/// Generates a test for one version of reflection: same messages, other package.
macro_rules! reflection {
    ($name:ident, $version:ident) => {
        #[tokio::test]
        async fn $name() {
            use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
            use tonic_reflection::pb::$version::{ServerReflectionRequest, ServerReflectionResponse};

            async fn ask(channel: Channel, question: MessageRequest) -> Result<MessageResponse, Status> {
                let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
                let answers = ServerReflectionClient::new(channel).server_reflection_info(once(request)).await;
                let answer: ServerReflectionResponse = answers?.into_inner().message().await?.unwrap();
                Ok(answer.message_response.unwrap())
            }

            let pair = Pair::start().await;
            for (channel, package, other) in servers(&pair) {
                let answer = ask(channel.clone(), MessageRequest::ListServices(String::new())).await.unwrap();
                let MessageResponse::ListServicesResponse(listed) = answer else { panic!("{package}: {answer:?}") };
                let listed: BTreeSet<_> = listed.service.into_iter().map(|service| service.name).collect();
                let own = services(package);
                for service in own.iter() {
                    assert!(listed.contains(service), "{package}: add {service} and its descriptor set to the server");
                    let answer =
                        ask(channel.clone(), MessageRequest::FileContainingSymbol(service.clone())).await.unwrap();
                    let MessageResponse::FileDescriptorResponse(files) = answer else {
                        panic!("{service}: {answer:?}")
                    };
                    for file in files.file_descriptor_proto {
                        prost_types::FileDescriptorProto::decode(file.as_slice()).unwrap();
                    }
                }
                let known = |name: &&String| own.contains(*name) || STANDARD.contains(&name.as_str());
                let foreign: Vec<_> = listed.iter().filter(|name| !known(name)).collect();
                assert!(foreign.is_empty(), "{package} must list its own services only: {foreign:?}");
                let symbol = services(other).into_iter().next().unwrap();
                let answer = ask(channel, MessageRequest::FileContainingSymbol(symbol.clone())).await;
                // tonic ends the stream with the error where the protocol would also let it be a message.
                let unknown = match &answer {
                    Ok(answer) => matches!(answer, MessageResponse::ErrorResponse(_)),
                    Err(status) => status.code() == Code::NotFound,
                };
                assert!(unknown, "{package} describes {symbol}: {answer:?}");
            }
        }
    };
}

reflection!(reflection_v1_lists_the_services_of_the_package, v1);
reflection!(reflection_v1alpha_lists_the_services_of_the_package, v1alpha);

#[tokio::test]
async fn an_rpc_of_the_other_package_is_unimplemented() {
    let pair = Pair::start().await;
    let root = pair.administrator().await;
    let authorization = crate::call::bearer(root.access_token());
    for (channel, package, path) in [
        (pair.auth.channel(), "task.v1", "/task.v1.TaskService/GetTask"),
        (pair.task.channel(), "auth.v1", "/auth.v1.AuthService/GetMe"),
        (pair.task.channel(), "task.v1", "/task.v1.TaskService/NoSuchRpc"),
        (pair.auth.channel(), "no.such", "/no.such.Service/Rpc"),
    ] {
        let answer = crate::call::call(channel, path, false, &[], &[("authorization", &authorization)]).await;
        let refusal = Refusal::of(&answer.unwrap_err());
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::Unimplemented, "NOT_IMPLEMENTED"), "{path}");
        assert_eq!(refusal.domain, package, "{path}");
    }
}

/// Status line and body of a GET.
#[tokio::test]
async fn the_http_side_answers() {
    let pair = Pair::start().await;
    for (name, address) in [("auth", pair.auth.metrics_address()), ("task", pair.task.metrics_address())] {
        assert_eq!(http_get(address, "/livez").await.0, 200, "{name} /livez");
        let (code, body) = http_get(address, "/readyz").await;
        assert_eq!(code, 200, "{name} /readyz: {body}");
        let readiness: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(readiness["ready"], true, "{name} /readyz: {body}");
        assert_eq!(http_get(address, "/nonsense").await.0, 404, "{name}");
        // A call first, so that there is something to count.
        let channel = if name == "auth" { pair.auth.channel() } else { pair.task.channel() };
        let path = if name == "auth" { "/auth.v1.AuthService/GetMe" } else { "/task.v1.TaskService/GetTask" };
        crate::call::call(channel, path, false, &[], &[]).await.unwrap_err();
        let (code, metrics) = http_get(address, "/metrics").await;
        assert_eq!(code, 200, "{name} /metrics");
        let counted = metrics.lines().any(|line| !line.starts_with('#') && line.contains("UNAUTHENTICATED"));
        assert!(counted, "{name} /metrics counts no refused call:\n{metrics}");
        for line in metrics.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let value = line.rsplit(' ').next().unwrap();
            assert!(value.parse::<f64>().is_ok(), "{name} /metrics: no sample: {line}");
        }
    }
}
