//! Attacks on a running service that belong to no single feature: forged tokens, keys past their time, a storm, leaks. Which
//! attack is tried where says docs/SECURITY.md.
#![expect(clippy::unwrap_used, reason = "a suite ends the test with a panic")]

mod auth_support;

use std::time::{Duration, Instant, SystemTime};

use auth_support::{Fixture, metrics_page};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use futures_util::stream;
use proto::auth::v1::auth_service_client::AuthServiceClient;
use proto::auth::v1::import_users_request::Part;
use proto::auth::v1::service_account_service_client::ServiceAccountServiceClient;
use proto::auth::v1::token_service_client::TokenServiceClient;
use proto::auth::v1::user_service_client::UserServiceClient;
use proto::auth::v1::*;
use serde_json::{Value, json};
use tests::{PASSWORD, Refusal, assert_refused};
use tonic::Code;
use tonic::transport::Endpoint;

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn decoded(token: &str, index: usize) -> Value {
    let part = URL_SAFE_NO_PAD.decode(token.split('.').nth(index).unwrap()).unwrap();
    serde_json::from_slice(&part).unwrap()
}

/// `header` and `claims`, signed by something.
fn token(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", part(header), part(claims));
    let signature = sign(message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn changed(value: &Value, name: &str, to: Value) -> Value {
    let mut value = value.clone();
    value[name] = to;
    value
}

/// Attack: make a token, or change one.
#[tokio::test]
async fn forged_tokens_are_refused_whatever_they_say_of_themselves() {
    let fixture = Fixture::start().await;
    let good = fixture.sign_up("ann@example.com", "ann", PASSWORD).await.unwrap().tokens.unwrap().access_token;
    fixture.me(&good).await.unwrap();
    let (header, claims) = (decoded(&good, 0), decoded(&good, 1));
    let signature = URL_SAFE_NO_PAD.decode(good.split('.').nth(2).unwrap()).unwrap();
    let request = ListSigningKeysRequest {};
    let keys = TokenServiceClient::new(fixture.server.channel()).list_signing_keys(request).await.unwrap().into_inner();
    let public_key = URL_SAFE_NO_PAD.decode(&keys.keys[0].x).unwrap();

    let hmac_of = |secret: &[u8]| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        move |message: &[u8]| hmac::sign(&key, message).as_ref().to_vec()
    };
    let own = Ed25519KeyPair::generate().unwrap();
    let own_jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(own.public_key().as_ref())});
    let by_us = |message: &[u8]| own.sign(message).as_ref().to_vec();
    let as_it_was = |_: &[u8]| signature.clone();
    let alg = |name: &str| changed(&header, "alg", json!(name));

    let mut forged = vec![
        ("alg none", token(&alg("none"), &claims, |_| Vec::new())),
        ("alg None", token(&alg("None"), &claims, as_it_was)),
        ("HS256 with the public key", token(&alg("HS256"), &claims, hmac_of(&public_key))),
        ("HS256 with the public key in base64", token(&alg("HS256"), &claims, hmac_of(keys.keys[0].x.as_bytes()))),
        ("HS256 with nothing", token(&alg("HS256"), &claims, hmac_of(b""))),
        ("the key's name on another algorithm", token(&alg("ES256"), &claims, as_it_was)),
        ("another signature", token(&header, &claims, by_us)),
        ("crit", token(&changed(&header, "crit", json!(["exp"])), &claims, as_it_was)),
        ("jwk", token(&changed(&header, "jwk", own_jwk.clone()), &claims, by_us)),
        ("jku", token(&changed(&header, "jku", json!("https://attacker.example/keys")), &claims, by_us)),
        ("x5u", token(&changed(&header, "x5u", json!("https://attacker.example/chain")), &claims, by_us)),
        ("typ JWT", token(&changed(&header, "typ", json!("JWT")), &claims, as_it_was)),
        ("two parts", good.rsplit_once('.').unwrap().0.to_owned()),
        ("four parts", format!("{good}.x")),
        ("no signature", format!("{}.", good.rsplit_once('.').unwrap().0)),
    ];
    for kid in ["../../../../dev/null", "/etc/passwd", "x' OR '1'='1", "http://attacker.example/key", "", "\u{0}"] {
        forged.push(("kid", token(&changed(&header, "kid", json!(kid)), &claims, by_us)));
    }
    for (claim, to) in [
        ("role", json!("admin")),
        ("permissions", json!(["users.write"])),
        ("sub", json!("00000000-0000-0000-0000-000000000000")),
        ("exp", json!(4_102_444_800_u64)),
        ("rev", json!(i64::MAX)),
        ("iss", json!("another")),
        ("aud", json!("another")),
    ] {
        forged.push((claim, token(&header, &changed(&claims, claim, to), as_it_was)));
    }
    for (what, forged) in forged {
        let answer = fixture.me(&forged).await;
        let refusal = Refusal::of(&answer.expect_err(what));
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::Unauthenticated, "TOKEN_INVALID"), "{what}");
    }
    fixture.me(&good).await.unwrap();
}

/// Attack: a token whose key was taken out of service, for example because it had leaked.
#[tokio::test]
async fn a_token_of_a_retired_key_is_refused() {
    let fixture = Fixture::start().await;
    let root = fixture.administrator().await.tokens.unwrap().access_token;
    let request = RotateSigningKeyRequest {};
    TokenServiceClient::new(fixture.server.channel_with(&root)).rotate_signing_key(request).await.unwrap();
    fixture.me(&root).await.unwrap();
    let leaked = "UPDATE signing_keys SET retires_at = now() - '1 hour'::interval, expires_at = now() - '1 second'::interval \
        WHERE retires_at IS NOT NULL; UPDATE signing_keys SET activates_at = now() - '1 minute'::interval WHERE retires_at IS NULL";
    fixture.sql(leaked).await;
    let until = Instant::now() + Duration::from_secs(30);
    while fixture.me(&root).await.is_ok() {
        assert!(Instant::now() < until, "the token is still good");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_refused(fixture.me(&root).await, Code::Unauthenticated, "TOKEN_INVALID");
    let fresh = fixture.sign_in("root", PASSWORD).await.unwrap().tokens.unwrap().access_token;
    fixture.me(&fresh).await.unwrap();
}

/// Attack: a token is kept beyond its time. Clocks may differ by 30 seconds.
#[tokio::test]
async fn an_expired_token_is_refused_after_the_leeway() {
    let fixture = Fixture::start_with(&[("ACCESS_TOKEN_TTL", "1s")]).await;
    let token = fixture.sign_up("ann@example.com", "ann", PASSWORD).await.unwrap().tokens.unwrap().access_token;
    let expires = decoded(&token, 1)["exp"].as_u64().unwrap();
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    while now() < expires + 28 {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    fixture.me(&token).await.unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_refused(fixture.me(&token).await, Code::Unauthenticated, "TOKEN_EXPIRED");
}

/// Attack: passwords and messages of any length, to cost memory or time.
#[tokio::test]
async fn long_passwords_and_large_messages_cost_nothing() {
    let fixture = Fixture::start().await;
    let longest = "é".repeat(512);
    fixture.sign_up("ann@example.com", "ann", &longest).await.unwrap();
    fixture.sign_in("ann", &longest).await.unwrap();
    // Nothing is cut off: the last byte counts.
    let other = format!("{}e ", "é".repeat(511));
    assert_refused(fixture.sign_in("ann", &other).await, Code::Unauthenticated, "CREDENTIALS_INVALID");
    let refusal = assert_refused(
        fixture.sign_up("bob@example.com", "bob", &format!("{longest}!")).await,
        Code::InvalidArgument,
        "VALIDATION_FAILED",
    );
    assert_eq!(refusal.fields, ["password"]);
    let before = fixture.hashes().await;
    let huge = "x".repeat(1024 * 1024);
    assert_refused(fixture.sign_in("ann", &huge).await, Code::InvalidArgument, "MESSAGE_TOO_LARGE");
    assert_eq!(fixture.hashes().await, before);
}

/// Attack: five hundred sign-ins at once, to fill the memory or to stall everybody else.
#[tokio::test]
async fn a_storm_of_sign_ins_is_bounded_in_memory_and_stalls_nobody() {
    // The default hashes: 64 MiB each.
    let default = [
        ("PASSWORD_HASH_MEMORY_KIB", "65536"),
        ("PASSWORD_HASH_ITERATIONS", "3"),
        ("PASSWORD_HASH_PARALLELISM", "4"),
        ("DATABASE_MAX_CONNECTIONS", "8"),
    ];
    let fixture = Fixture::start_with(&default).await;
    let made = fixture.sign_up("ann@example.com", "ann", PASSWORD).await.unwrap();
    let token = made.tokens.unwrap().access_token;
    let channels: Vec<_> = (0..25)
        .map(|_| Endpoint::from_shared(format!("http://{}", fixture.server.address())).unwrap().connect_lazy())
        .collect();
    let storm = join_all((0..500).map(|n| {
        let mut client = AuthServiceClient::new(channels[n % channels.len()].clone());
        async move { client.sign_in(SignInRequest { login: "ann".into(), password: PASSWORD.into() }).await }
    }));
    let others = async {
        let mut slowest = Duration::ZERO;
        for _ in 0..20 {
            let begun = Instant::now();
            fixture.me(&token).await.unwrap();
            slowest = slowest.max(begun.elapsed());
        }
        slowest
    };
    let (answers, slowest) = tokio::join!(storm, others);
    let refused: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).map(Refusal::of).collect();
    assert!(refused.len() < 500, "some sign in");
    for refusal in &refused {
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::ResourceExhausted, "HASHING_BUSY"));
        assert!(refusal.retry_after.is_some());
    }
    // All of them hashed one after the other would take a minute and more.
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    let status = std::fs::read_to_string(format!("/proc/{}/status", fixture.server.pid())).unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let peak: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    let threads = metrics_page(&fixture.server).await;
    let threads = threads.lines().find_map(|line| line.strip_prefix("password_hashing_threads ")).unwrap();
    let bound = (threads.parse::<u64>().unwrap() * 64 + 192) * 1024;
    assert!(peak < bound, "{peak} KiB at the peak, expected less than {bound}");
}

/// Attack: read the logs, the metrics or the audit trail.
#[tokio::test]
async fn imports_deletions_and_secrets_leave_no_trace_in_logs_metrics_and_audit() {
    let mut fixture = Fixture::start().await;
    let root = fixture.administrator().await.tokens.unwrap().access_token;
    let ann = fixture.sign_up("ann@example.com", "ann-the-user", PASSWORD).await.unwrap();
    let tokens = ann.tokens.unwrap();
    let hash = "$2b$04$8S5Hx81jyuHa4dovy2ouI.L/gUq80zEf.har/TaZR8HWVozG6woJG";
    let user = |name: &str, hash: &str| {
        Part::User(ImportedUser {
            email: format!("{name}@example.com"),
            username: name.into(),
            password_hash: hash.into(),
            ..Default::default()
        })
    };
    let parts = [Part::Options(ImportOptions::default()), user("imported", hash), user("unreadable", "plain secret")];
    let messages: Vec<_> = parts.into_iter().map(|part| ImportUsersRequest { part: Some(part) }).collect();
    let mut users = UserServiceClient::new(fixture.server.channel_with(&root));
    let mut answers = users.import_users(stream::iter(messages)).await.unwrap().into_inner();
    while answers.message().await.unwrap().is_some() {}
    let request = CreateServiceAccountRequest { name: "robot".into(), permissions: vec!["audit.read".into()] };
    let mut accounts = ServiceAccountServiceClient::new(fixture.server.channel_with(&root));
    let made = accounts.create_service_account(request).await.unwrap().into_inner();
    let request =
        IssueServiceTokenRequest { client_id: made.client_id.clone(), client_secret: made.client_secret.clone() };
    let issued = TokenServiceClient::new(fixture.server.channel()).issue_service_token(request).await.unwrap();
    let service_token = issued.into_inner().access_token;
    for password in ["wrong password 1", PASSWORD] {
        let mut me = AuthServiceClient::new(fixture.server.channel_with(&tokens.access_token));
        let _first_is_refused = me.delete_me(DeleteMeRequest { password: password.into() }).await;
    }
    fixture.sign_in("nobody@example.com", "wrong password 2").await.unwrap_err();

    let metrics = metrics_page(&fixture.server).await;
    let query = "SELECT coalesce(string_agg(audit_events::text, ' '), '') FROM audit_events";
    let audit: String = fixture.client.query_one(query, &[]).await.unwrap().get(0);
    fixture.server.terminate().await;
    let logs = fixture.server.logs().join("\n");
    assert!(logs.contains("DeleteMe") && audit.contains("ACCOUNT_DELETE"));
    let secrets = [
        PASSWORD,
        "wrong password",
        "plain secret",
        "@example.com",
        "ann-the-user",
        hash,
        "har/TaZR8HWVozG6woJG",
        &made.client_secret,
        &service_token,
        &tokens.access_token,
        &tokens.refresh_token,
        &root,
        &STANDARD.encode(PASSWORD),
    ];
    for secret in secrets {
        for (place, text) in [("the logs", &logs), ("the metrics", &metrics), ("the audit trail", &audit)] {
            assert!(!text.contains(secret), "{secret:?} stands in {place}");
        }
    }
}
