//! TLS of the gRPC server: reload, mutual TLS, and files that are no good.

use std::path::Path;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use service_kit::config::TlsArgs;
use service_kit::readiness::Readiness;
use service_kit::server::ServerBuilder;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::behaviour::{Behaviour, Running, anywhere, serve, shutdown};
use crate::server::check;

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Certificate and key for `localhost` (or a client), PEM.
fn issue(authority: &CertifiedIssuer<'static, KeyPair>, purpose: ExtendedKeyUsagePurpose) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.extended_key_usages = vec![purpose];
    (params.signed_by(&key, authority).unwrap().pem(), key.serialize_pem())
}

fn tls_args(directory: &Path, client_ca: bool) -> TlsArgs {
    TlsArgs {
        tls_cert_file: Some(directory.join("tls.crt")),
        tls_key_file: Some(directory.join("tls.key")),
        tls_client_ca_file: client_ca.then(|| directory.join("ca.crt")),
    }
}

fn install(directory: &Path, (certificate, key): &(String, String)) {
    std::fs::write(directory.join("tls.crt"), certificate).unwrap();
    std::fs::write(directory.join("tls.key"), key).unwrap();
}

/// Whether a client that trusts `authority` and shows `identity` gets an answer.
async fn answers(
    server: &Running,
    authority: &CertifiedIssuer<'static, KeyPair>,
    identity: Option<&(String, String)>,
) -> bool {
    let tls = ClientTlsConfig::new().domain_name("localhost").ca_certificate(Certificate::from_pem(authority.pem()));
    let tls =
        identity.into_iter().fold(tls, |tls, (certificate, key)| tls.identity(Identity::from_pem(certificate, key)));
    let endpoint = Endpoint::new(format!("https://localhost:{}", server.grpc.port())).unwrap().tls_config(tls).unwrap();
    match endpoint.connect().await {
        Ok(channel) => check(channel, "").await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_takes_up_new_files_and_survives_broken_ones() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (authority(), authority());
    install(directory.path(), &issue(&old, ExtendedKeyUsagePurpose::ServerAuth));
    let server = serve(tls_args(directory.path(), false), shutdown(0, 1000), |builder| builder).await;
    assert!(answers(&server, &old, None).await);
    assert!(!answers(&server, &new, None).await);

    // A key that does not fit, then nothing at all: the old certificate stays.
    std::fs::write(directory.path().join("tls.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(answers(&server, &old, None).await);
    std::fs::remove_file(directory.path().join("tls.key")).unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(answers(&server, &old, None).await);

    install(directory.path(), &issue(&new, ExtendedKeyUsagePurpose::ServerAuth));
    let until = Instant::now() + Duration::from_secs(10);
    while !answers(&server, &new, None).await {
        assert!(Instant::now() < until, "the new certificate is not served");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mutual_tls_asks_for_a_certificate_of_the_right_authority() {
    let directory = tempfile::tempdir().unwrap();
    let (servers, clients, strangers) = (authority(), authority(), authority());
    install(directory.path(), &issue(&servers, ExtendedKeyUsagePurpose::ServerAuth));
    std::fs::write(directory.path().join("ca.crt"), clients.pem()).unwrap();
    let server = serve(tls_args(directory.path(), true), shutdown(0, 1000), |builder| builder).await;
    let client = |of| issue(of, ExtendedKeyUsagePurpose::ClientAuth);
    assert!(answers(&server, &servers, Some(&client(&clients))).await);
    assert!(!answers(&server, &servers, Some(&client(&strangers))).await);
    assert!(!answers(&server, &servers, None).await);
    // Plain text on a TLS port is no way in.
    assert!(
        Endpoint::new(format!("http://{}", server.grpc)).unwrap().connect().await.is_err() || {
            let mut client =
                HealthClient::new(Endpoint::new(format!("http://{}", server.grpc)).unwrap().connect_lazy());
            client.check(HealthCheckRequest::default()).await.is_err()
        }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_tls_files_stop_the_start_with_the_variable() {
    let directory = tempfile::tempdir().unwrap();
    let bind = async |tls: TlsArgs| {
        let builder = ServerBuilder::new(anywhere(), tls, shutdown(0, 0), Readiness::new(&[])).add_service(Behaviour);
        builder.bind().await.err().unwrap().to_string()
    };
    let error = bind(tls_args(directory.path(), false)).await;
    assert!(error.starts_with("TLS_CERT_FILE: ") && error.contains("cannot be read"), "{error}");
    install(directory.path(), &("no certificate".to_owned(), "no key".to_owned()));
    assert!(bind(tls_args(directory.path(), false)).await.starts_with("TLS_CERT_FILE: "));
    let (certificate, _) = issue(&authority(), ExtendedKeyUsagePurpose::ServerAuth);
    install(directory.path(), &(certificate.clone(), "no key".to_owned()));
    assert!(bind(tls_args(directory.path(), false)).await.starts_with("TLS_KEY_FILE: "));
    install(directory.path(), &(certificate, KeyPair::generate().unwrap().serialize_pem()));
    assert!(bind(tls_args(directory.path(), false)).await.contains("do not fit together"));
    assert!(bind(tls_args(directory.path(), true)).await.starts_with("TLS_CLIENT_CA_FILE: "));
}
