//! The layer as a server puts it in front of its handlers, and the source that asks over the network.

use std::convert::Infallible;

use crate::support::*;
use auth_client::{
    AuthLayer, ChannelOptions, GrpcKeySource, KeySource as _, Principal, Verifier, VerifierConfig, principal_id,
};
use http::{Request, Response};
use proto::auth::v1::token_service_server::{TokenService, TokenServiceServer};
use proto::auth::v1::{ListSigningKeysRequest, ListSigningKeysResponse, SigningKey};
use serde_json::json;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use tower::{Layer as _, ServiceExt as _};

const GET_TASK: &str = "/task.v1.TaskService/GetTask";
const PURGE: &str = "/task.v1.OwnershipService/PurgeUserTasks";

/// The status the layer answered with, or the id of the principal that the handler saw.
async fn call(layer: &AuthLayer, path: &str, authorization: &[&str]) -> Result<Option<String>, Status> {
    let handler = tower::service_fn(|request: Request<()>| async move {
        let mut response = Response::new(tonic::body::Body::default());
        response
            .extensions_mut()
            .insert((principal_id(request.extensions()), request.extensions().get::<Principal>().cloned()));
        Ok::<_, Infallible>(response)
    });
    let mut request = Request::builder().uri(format!("http://server{path}"));
    for value in authorization {
        request = request.header("authorization", *value);
    }
    let response = layer.layer(handler).oneshot(request.body(()).unwrap()).await.unwrap();
    match response.extensions().get::<(Option<String>, Option<Principal>)>() {
        Some((id, _)) => Ok(id.clone()),
        None => Err(Status::from_header_map(response.headers()).unwrap()),
    }
}

fn reason(status: &Status) -> (Code, String, String) {
    let info = status.get_details_error_info().unwrap();
    (status.code(), info.reason, info.domain)
}

async fn layer_with(key: &Signer) -> AuthLayer {
    AuthLayer::new(verifier(Published::of(vec![key.public("k1")])).await, "task.v1")
}

#[tokio::test]
async fn policy_decides_what_a_call_needs() {
    let key = Signer::ed();
    let layer = layer_with(&key).await;
    let bearer = format!("Bearer {}", key.token(&header("k1"), &claims()));
    let mighty = format!("bEaReR {}", key.token(&header("k1"), &claims_with(json!({"permissions": ["tasks.write"]}))));

    assert_eq!(call(&layer, GET_TASK, &[&bearer]).await.unwrap().as_deref(), Some(USER));
    assert_eq!(call(&layer, PURGE, &[&mighty]).await.unwrap().as_deref(), Some(USER));

    let denied = call(&layer, PURGE, &[&bearer]).await.unwrap_err();
    assert_eq!(reason(&denied), (Code::PermissionDenied, "PERMISSION_MISSING".into(), "task.v1".into()));
    assert_eq!(denied.get_details_error_info().unwrap().metadata["permission"], "tasks.write");
}

#[tokio::test]
async fn public_calls_health_and_reflection_pass_whatever_the_token() {
    let layer = layer_with(&Signer::ed()).await;
    for path in [
        "/auth.v1.AuthService/SignIn",
        "/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/somebody.else.v1.Service/Method",
    ] {
        for authorization in [&[][..], &["Bearer nonsense"], &["Bearer a", "Bearer b"]] {
            assert_eq!(call(&layer, path, authorization).await.unwrap(), None, "{path}");
        }
    }
}

#[tokio::test]
async fn methods_of_ours_without_a_policy_never_reach_the_server() {
    let key = Signer::ed();
    let layer = layer_with(&key).await;
    let bearer = format!("Bearer {}", key.token(&header("k1"), &claims()));
    for path in [
        "/task.v1.TaskService/Nope",
        "/auth.v1.AuthService/signin",
        "/task.v1.TaskService/GetTask/",
        "/task.v1.Other/GetTask",
    ] {
        let status = call(&layer, path, &[&bearer]).await.unwrap_err();
        assert_eq!(reason(&status), (Code::Unimplemented, "NOT_IMPLEMENTED".into(), "task.v1".into()), "{path}");
    }
}

#[tokio::test]
async fn exactly_one_bearer_token_is_expected() {
    let key = Signer::ed();
    let layer = layer_with(&key).await;
    let token = key.token(&header("k1"), &claims());
    let (bearer, basic) = (format!("Bearer {token}"), format!("Basic {token}"));
    let (bearer, basic) = (bearer.as_str(), basic.as_str());
    let wrong: [&[&str]; 7] =
        [&[], &[&token], &["Bearer"], &["Bearer "], &[basic], &[bearer, bearer], &[bearer, "Bearer x"]];
    for authorization in wrong {
        let status = call(&layer, GET_TASK, authorization).await.unwrap_err();
        assert_eq!(reason(&status), (Code::Unauthenticated, "TOKEN_MISSING".into(), "task.v1".into()));
    }
}

#[tokio::test]
async fn refusals_carry_their_reasons() {
    let key = Signer::ed();
    let layer = layer_with(&key).await;
    let expired = key.token(&header("k1"), &claims_with(json!({"exp": now() - 100})));
    for (token, name) in [
        ("a.b.c".to_owned(), "TOKEN_INVALID"),
        (expired, "TOKEN_EXPIRED"),
        (Signer::ed().token(&header("k2"), &claims()), "TOKEN_INVALID"),
    ] {
        let status = call(&layer, GET_TASK, &[&format!("Bearer {token}")]).await.unwrap_err();
        assert_eq!(reason(&status), (Code::Unauthenticated, name.into(), "task.v1".into()));
        assert!(!status.message().contains(&token));
    }
}

#[tokio::test(start_paused = true)]
async fn without_keys_callers_are_told_to_come_back() {
    let verifier = Verifier::new(VerifierConfig::new("auth-service", "internal"), Published::default());
    tokio::spawn(verifier.clone().run(tokio_util::sync::CancellationToken::new()));
    let bearer = format!("Bearer {}", Signer::ed().token(&header("k1"), &claims()));
    for (domain, name) in [("task.v1", "AUTH_UNAVAILABLE"), ("auth.v1", "KEYS_UNAVAILABLE")] {
        let status = call(&AuthLayer::new(verifier.clone(), domain), GET_TASK, &[&bearer]).await.unwrap_err();
        assert_eq!(reason(&status), (Code::Unavailable, name.into(), domain.into()));
        assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
    }
}

struct Keys(Vec<SigningKey>);

#[tonic::async_trait]
impl TokenService for Keys {
    async fn list_signing_keys(
        &self,
        _: tonic::Request<ListSigningKeysRequest>,
    ) -> Result<tonic::Response<ListSigningKeysResponse>, Status> {
        Ok(tonic::Response::new(ListSigningKeysResponse { keys: self.0.clone() }))
    }
}

#[tokio::test]
async fn the_grpc_source_reads_jwks_and_leaves_out_what_it_does_not_know() {
    use base64::Engine as _;
    let text = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let (ed, ec) = (Signer::ed(), Signer::ec());
    let point = ec.public_bytes();
    let jwk = |kid: &str, kty: &str, crv: &str, alg: &str, x: String, y: String| SigningKey {
        kid: kid.into(),
        kty: kty.into(),
        crv: crv.into(),
        alg: alg.into(),
        r#use: "sig".into(),
        x,
        y,
        ..SigningKey::default()
    };
    let keys = Keys(vec![
        jwk("ed", "OKP", "Ed25519", "EdDSA", text(&ed.public_bytes()), String::new()),
        jwk("ec", "EC", "P-256", "ES256", text(&point[1..33]), text(&point[33..])),
        jwk("short", "OKP", "Ed25519", "EdDSA", text(b"short"), String::new()),
        jwk("rsa", "RSA", "", "RS256", String::new(), String::new()),
        jwk("confused", "OKP", "Ed25519", "ES256", text(&ed.public_bytes()), String::new()),
    ]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(
        tonic::transport::Server::builder().add_service(TokenServiceServer::new(keys)).serve_with_incoming(incoming),
    );

    let source = GrpcKeySource::connect_lazy(&url, Default::default()).unwrap();
    let mut kids: Vec<_> = source.signing_keys().await.unwrap().iter().map(|key| key.kid().to_owned()).collect();
    kids.sort();
    assert_eq!(kids, ["ec", "ed"]);
}

#[tokio::test]
async fn the_grpc_source_speaks_tls_and_trusts_whom_it_is_told_to() {
    use tonic::transport::{Identity, Server, ServerTlsConfig};
    let certified = rcgen::generate_simple_self_signed(["auth.test".to_owned()]).unwrap();
    let identity = Identity::from_pem(certified.cert.pem(), certified.signing_key.serialize_pem());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let mut server = Server::builder().tls_config(ServerTlsConfig::new().identity(identity)).unwrap();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(server.add_service(TokenServiceServer::new(Keys(Vec::new()))).serve_with_incoming(incoming));

    let trusting = |pem: String, name: &str| ChannelOptions {
        ca_pem: Some(pem.into_bytes()),
        server_name: Some(name.to_owned()),
        ..ChannelOptions::default()
    };
    let keys = async |options| GrpcKeySource::connect_lazy(&url, options).unwrap().signing_keys().await;
    assert!(keys(trusting(certified.cert.pem(), "auth.test")).await.is_ok());
    assert!(keys(trusting(certified.cert.pem(), "other.test")).await.is_err(), "another name");
    let stranger = rcgen::generate_simple_self_signed(["auth.test".to_owned()]).unwrap();
    assert!(keys(trusting(stranger.cert.pem(), "auth.test")).await.is_err(), "another authority");
}

#[tokio::test]
async fn urls_that_cannot_work_are_refused_at_start() {
    for bad in ["", "auth", "auth:50051", "ftp://auth:1", "http://", "/path"] {
        assert!(GrpcKeySource::connect_lazy(bad, Default::default()).is_err(), "{bad}");
    }
    // With authorities of its own, so that the test does not depend on the system's.
    let options = ChannelOptions { ca_pem: Some(Vec::new()), ..ChannelOptions::default() };
    for good in ["http://127.0.0.1:1", "https://auth.example.com"] {
        assert!(GrpcKeySource::connect_lazy(good, options.clone()).is_ok(), "{good}");
    }
}
