//! Signing keys: either algorithm, from one to the other, and a successor by age made once by several replicas.
#![expect(clippy::unwrap_used, reason = "a suite ends the test with a panic")]

mod auth_support;

use std::time::{Duration, Instant};

use auth_support::{CHEAP_HASHES, Fixture};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proto::auth::v1::token_service_client::TokenServiceClient;
use proto::auth::v1::*;
use tests::{AuthServer, PASSWORD, Service, run_program};

async fn keys(server: &AuthServer) -> Vec<SigningKey> {
    let answer = TokenServiceClient::new(server.channel()).list_signing_keys(ListSigningKeysRequest {}).await;
    answer.unwrap().into_inner().keys
}

/// `alg` and `kid` of a token.
fn header(token: &str) -> (String, String) {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    let header: serde_json::Value = serde_json::from_slice(&header).unwrap();
    let text = |name: &str| header[name].as_str().unwrap().to_owned();
    (text("alg"), text("kid"))
}

#[tokio::test]
async fn es256_signs_is_published_and_verifies() {
    let fixture = Fixture::start_with(&[("SIGNING_ALGORITHM", "ES256")]).await;
    let tokens = fixture.sign_up("ann@example.com", "ann", PASSWORD).await.unwrap().tokens.unwrap();
    let (alg, kid) = header(&tokens.access_token);
    assert_eq!(alg, "ES256");
    fixture.me(&tokens.access_token).await.unwrap();
    let [key] = keys(&fixture.server).await.try_into().unwrap();
    assert_eq!((key.kty.as_str(), key.crv.as_str(), key.alg.as_str(), &key.kid), ("EC", "P-256", "ES256", &kid));
    for coordinate in [key.x, key.y] {
        assert_eq!(URL_SAFE_NO_PAD.decode(coordinate).unwrap().len(), 32);
    }
}

#[tokio::test]
async fn one_algorithm_follows_the_other_and_tokens_of_both_are_good() {
    let fixture = Fixture::start().await;
    let old = fixture.sign_up("ann@example.com", "ann", PASSWORD).await.unwrap().tokens.unwrap().access_token;
    assert_eq!(header(&old).0, "EdDSA");
    let url = fixture.database.runtime_url();
    let key = "YW5vdGhlciBrZXkgb2YgMzIgYnl0ZXMgaXMgbm90IGU=";
    let environment = [("DATABASE_URL", url.as_str()), ("KEY_ENCRYPTION_KEY", key), ("SIGNING_ALGORITHM", "ES256")];
    let wrong = run_program(Service::Auth, &["keys", "rotate"], &environment, "").await;
    assert_ne!(wrong.code, 0, "another KEY_ENCRYPTION_KEY changes nothing: {wrong:#?}");
    let environment =
        [("DATABASE_URL", url.as_str()), ("KEY_ENCRYPTION_KEY", tests::KEY_ENCRYPTION_KEY), environment[2]];
    let run = run_program(Service::Auth, &["keys", "rotate", "--activate-in", "0s"], &environment, "").await;
    assert_eq!(run.code, 0, "{run:#?}");
    let until = Instant::now() + Duration::from_secs(30);
    let new = loop {
        let token = fixture.sign_in("ann", PASSWORD).await.unwrap().tokens.unwrap().access_token;
        if header(&token).0 == "ES256" {
            break token;
        }
        assert!(Instant::now() < until, "the service never took up the new key");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    fixture.me(&old).await.unwrap();
    fixture.me(&new).await.unwrap();

    // They have leaked: tokens of both are void as soon as the service has heard of it.
    let run = run_program(Service::Auth, &["keys", "rotate", "--withdraw"], &environment, "").await;
    assert_eq!(run.code, 0, "{run:#?}");
    let until = Instant::now() + Duration::from_secs(30);
    while fixture.me(&old).await.is_ok() || fixture.me(&new).await.is_ok() {
        assert!(Instant::now() < until, "tokens of withdrawn keys are still good");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let token = fixture.sign_in("ann", PASSWORD).await.unwrap().tokens.unwrap().access_token;
    fixture.me(&token).await.unwrap();
}

#[tokio::test]
async fn several_replicas_make_one_successor_of_an_old_key() {
    let fixture = Fixture::start_with(&[("SIGNING_KEY_MAX_AGE", "1h")]).await;
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(
            AuthServer::start(&fixture.database, &[CHEAP_HASHES, &[("SIGNING_KEY_MAX_AGE", "1h")]].concat()).await,
        );
    }
    let token = fixture.sign_up("ann@example.com", "ann", PASSWORD).await.unwrap().tokens.unwrap().access_token;
    fixture.sql("UPDATE signing_keys SET activates_at = now() - '2 hours'::interval").await;
    let until = Instant::now() + Duration::from_secs(40);
    while fixture.count("SELECT count(*) FROM signing_keys").await == 1 {
        assert!(Instant::now() < until, "no key was made");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // Every replica looks every ten seconds.
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(fixture.count("SELECT count(*) FROM signing_keys").await, 2);
    assert_eq!(
        fixture.count("SELECT count(*) FROM signing_keys WHERE retires_at > now() + '4 min'::interval").await,
        1
    );
    let events = "SELECT count(*) FROM audit_events WHERE action = 'SIGNING_KEY_ROTATE' AND actor_type = 'SYSTEM'";
    assert_eq!(fixture.count(events).await, 1);
    for replica in &replicas {
        assert_eq!(keys(replica).await.len(), 2, "published before it signs");
    }
    fixture.me(&token).await.unwrap();
}

#[tokio::test]
async fn settings_of_keys_are_checked() {
    for (variable, value) in
        [("SIGNING_ALGORITHM", "HS256"), ("SIGNING_ALGORITHM", "none"), ("SIGNING_KEY_MAX_AGE", "1m")]
    {
        let environment = [
            ("DATABASE_URL", "postgres://role@localhost/auth"),
            ("TASK_SERVICE_URL", "http://task:50052"),
            ("KEY_ENCRYPTION_KEY", tests::KEY_ENCRYPTION_KEY),
            (variable, value),
        ];
        let run = run_program(Service::Auth, &["config", "check"], &environment, "").await;
        if run.code != 2 || !run.stderr.contains(variable) {
            panic!("{run:#?}");
        }
    }
}
