//! Sessions: refreshing, replaying, expiring, signing out, and whose token still counts.
#![expect(clippy::unwrap_used, reason = "a suite ends the test with a panic")]

mod auth_support;

use std::collections::BTreeSet;

use auth_support::Fixture;
use futures_util::future::join_all;
use proto::auth::v1::auth_service_client::AuthServiceClient;
use proto::auth::v1::token_service_client::TokenServiceClient;
use proto::auth::v1::{GetMeRequest, ListSigningKeysRequest, RefreshTokenRequest, SigningKeyState, Tokens};
use tests::{PASSWORD, assert_refused};
use tonic::{Code, Status};

const OPEN_TOKENS: &str = "SELECT count(*) FROM refresh_tokens WHERE NOT is_revoked";
const OPEN_SESSIONS: &str = "SELECT count(*) FROM sessions WHERE ended_at IS NULL";

async fn alice() -> (Fixture, Tokens) {
    let fixture = Fixture::start().await;
    let tokens = fixture.sign_up("alice@example.com", "alice", PASSWORD).await.unwrap().tokens.unwrap();
    (fixture, tokens)
}

#[track_caller]
fn refresh_refused(answer: Result<Tokens, Status>) {
    assert_refused(answer, Code::Unauthenticated, "REFRESH_TOKEN_INVALID");
}

#[tokio::test]
async fn a_refresh_trades_the_token_for_the_next_one() {
    let (fixture, first) = alice().await;
    let second = fixture.refresh(&first.refresh_token).await.unwrap();
    assert_ne!(second.refresh_token, first.refresh_token);
    assert_ne!(second.access_token, first.access_token);
    assert_eq!((second.token_type.as_str(), second.expires_in), ("Bearer", 900));
    fixture.me(&second.access_token).await.unwrap();
    let third = fixture.refresh(&second.refresh_token).await.unwrap();
    fixture.me(&third.access_token).await.unwrap();
    assert_eq!((fixture.count(OPEN_TOKENS).await, fixture.count(OPEN_SESSIONS).await), (1, 1));
}

#[tokio::test]
async fn a_lost_answer_is_given_again_for_ten_seconds() {
    let (fixture, first) = alice().await;
    let second = fixture.refresh(&first.refresh_token).await.unwrap();
    let again = fixture.refresh(&first.refresh_token).await.unwrap();
    assert_eq!((&again.refresh_token, again.refresh_expires_at), (&second.refresh_token, second.refresh_expires_at));
    fixture.me(&again.access_token).await.unwrap();
    let sealed = fixture.count("SELECT count(*) FROM refresh_tokens WHERE successor_sealed IS NOT NULL").await;
    assert_eq!(sealed, 1);
    let clear = format!(
        "SELECT count(*) FROM refresh_tokens WHERE position('{}'::bytea IN successor_sealed) > 0",
        second.refresh_token
    );
    assert_eq!(fixture.count(&clear).await, 0, "the database alone cannot tell the successor");
    assert!(fixture.refresh(&second.refresh_token).await.is_ok());
}

/// Attack: a stolen token is used after its owner has refreshed.
#[tokio::test]
async fn a_token_used_long_ago_ends_the_session() {
    let (fixture, first) = alice().await;
    let second = fixture.refresh(&first.refresh_token).await.unwrap();
    fixture
        .sql("UPDATE refresh_tokens SET rotated_at = rotated_at - interval '11 seconds' WHERE rotated_at IS NOT NULL")
        .await;
    refresh_refused(fixture.refresh(&first.refresh_token).await);
    refresh_refused(fixture.refresh(&second.refresh_token).await);
    assert_refused(fixture.me(&second.access_token).await, Code::Unauthenticated, "TOKEN_REVOKED");
    assert_eq!((fixture.count(OPEN_TOKENS).await, fixture.count(OPEN_SESSIONS).await), (0, 0));
    let reason: String = fixture.client.query_one("SELECT end_reason FROM sessions", &[]).await.unwrap().get(0);
    assert_eq!(reason, "token_reused");
    fixture.server.wait_for_log(|line| line.contains("a used refresh token came back")).await;
    fixture.sign_in("alice", PASSWORD).await.unwrap();
}

#[tokio::test]
async fn within_the_ten_seconds_only_the_token_right_before_the_current_one_counts() {
    let (fixture, first) = alice().await;
    let second = fixture.refresh(&first.refresh_token).await.unwrap();
    let third = fixture.refresh(&second.refresh_token).await.unwrap();
    assert_eq!(fixture.refresh(&second.refresh_token).await.unwrap().refresh_token, third.refresh_token);
    refresh_refused(fixture.refresh(&first.refresh_token).await);
    refresh_refused(fixture.refresh(&third.refresh_token).await);
}

/// The old system let two refreshes of one token both succeed, each with a successor of its own.
#[tokio::test]
async fn thirty_two_refreshes_at_once_make_one_successor() {
    let fixture = Fixture::start_with(&[("DATABASE_MAX_CONNECTIONS", "16")]).await;
    let new = fixture.sign_up("alice@example.com", "alice", PASSWORD).await.unwrap();
    let mut current = new.tokens.unwrap().refresh_token;
    // Channels that are connected, and rounds in which the service's own connections are open: only then do they meet.
    let channels: Vec<_> = (0..32).map(|_| fixture.server.channel()).collect();
    for round in 0..10 {
        let refreshes = channels.iter().map(|channel| {
            let request = RefreshTokenRequest { refresh_token: current.clone() };
            let mut client = AuthServiceClient::new(channel.clone());
            async move {
                client.refresh_token(request).await.map(|answer| answer.into_inner().tokens.unwrap().refresh_token)
            }
        });
        let successors: BTreeSet<_> = join_all(refreshes).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(successors.len(), 1, "round {round}");
        assert_eq!((fixture.count(OPEN_TOKENS).await, fixture.count(OPEN_SESSIONS).await), (1, 1), "round {round}");
        current = successors.into_iter().next().unwrap();
    }
    assert_eq!(fixture.count("SELECT count(*) FROM refresh_tokens").await, 11);
}

#[tokio::test]
async fn sessions_end_when_idle_and_in_any_case() {
    let fixture = Fixture::start_with(&[("REFRESH_TOKEN_TTL", "1h"), ("SESSION_TTL", "90m")]).await;
    let first = fixture.sign_up("alice@example.com", "alice", PASSWORD).await.unwrap().tokens.unwrap();
    fixture.sql("UPDATE sessions SET expires_at = now() + interval '30 minutes'").await;
    let second = fixture.refresh(&first.refresh_token).await.unwrap();
    let left = second.refresh_expires_at.unwrap().seconds
        - i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()).unwrap();
    assert!((1700..=1801).contains(&left), "no token outlives its session: {left}");
    fixture.sql("UPDATE refresh_tokens SET expires_at = now() - interval '1 second' WHERE NOT is_revoked").await;
    refresh_refused(fixture.refresh(&second.refresh_token).await);

    let other = fixture.sign_in("alice", PASSWORD).await.unwrap().tokens.unwrap();
    fixture.sql("UPDATE sessions SET expires_at = now() - interval '1 second'").await;
    refresh_refused(fixture.refresh(&other.refresh_token).await);
    assert_refused(fixture.me(&other.access_token).await, Code::Unauthenticated, "TOKEN_REVOKED");
}

#[tokio::test]
async fn texts_that_are_no_tokens_get_the_same_answer() {
    let (fixture, tokens) = alice().await;
    for text in
        ["", "nonsense", "\u{0}", &tokens.access_token, &format!("{} ", tokens.refresh_token), &"x".repeat(10_000)]
    {
        refresh_refused(fixture.refresh(text).await);
    }
    assert!(fixture.refresh(&tokens.refresh_token).await.is_ok());
}

/// In the old system a deactivated user's tokens went on working.
#[tokio::test]
async fn a_deactivated_or_deleted_users_tokens_stop_working() {
    let (fixture, tokens) = alice().await;
    fixture.sql("UPDATE users SET is_active = false").await;
    assert_refused(fixture.me(&tokens.access_token).await, Code::Unauthenticated, "TOKEN_REVOKED");
    refresh_refused(fixture.refresh(&tokens.refresh_token).await);
    fixture.sql("UPDATE users SET is_active = true").await;
    fixture.me(&tokens.access_token).await.unwrap();
    let next = fixture.refresh(&tokens.refresh_token).await.unwrap();
    fixture.sql("DELETE FROM users").await;
    assert_refused(fixture.me(&next.access_token).await, Code::Unauthenticated, "TOKEN_REVOKED");
    refresh_refused(fixture.refresh(&next.refresh_token).await);
}

#[tokio::test]
async fn signing_out_ends_one_session_and_can_be_repeated() {
    let (fixture, phone) = alice().await;
    let laptop = fixture.sign_in("alice", PASSWORD).await.unwrap().tokens.unwrap();
    for _ in 0..3 {
        fixture.sign_out(&phone.refresh_token).await.unwrap();
    }
    fixture.sign_out("nonsense").await.unwrap();
    fixture.sign_out("").await.unwrap();
    refresh_refused(fixture.refresh(&phone.refresh_token).await);
    assert_refused(fixture.me(&phone.access_token).await, Code::Unauthenticated, "TOKEN_REVOKED");
    fixture.me(&laptop.access_token).await.unwrap();

    let next = fixture.refresh(&laptop.refresh_token).await.unwrap();
    fixture.sign_out(&laptop.refresh_token).await.unwrap();
    refresh_refused(fixture.refresh(&next.refresh_token).await);
    assert_eq!(fixture.count(OPEN_SESSIONS).await, 0);
    let ended = fixture.count("SELECT count(*) FROM sessions WHERE end_reason = 'signed_out'").await;
    assert_eq!(ended, 2);
}

#[tokio::test]
async fn a_refresh_and_a_sign_out_at_once_leave_nothing_open() {
    let (fixture, _) = alice().await;
    for _ in 0..10 {
        let tokens = fixture.sign_in("alice", PASSWORD).await.unwrap().tokens.unwrap();
        let (_, signed_out) =
            tokio::join!(fixture.refresh(&tokens.refresh_token), fixture.sign_out(&tokens.refresh_token));
        signed_out.unwrap();
    }
    let orphans = "SELECT count(*) FROM refresh_tokens t JOIN sessions s ON s.id = t.session_id WHERE s.ended_at IS NOT NULL AND NOT t.is_revoked";
    assert_eq!((fixture.count(orphans).await, fixture.count(OPEN_SESSIONS).await), (0, 1));
}

#[tokio::test]
async fn tokens_that_are_not_ours_are_refused() {
    let (fixture, tokens) = alice().await;
    let anonymous = AuthServiceClient::new(fixture.server.channel()).get_me(GetMeRequest {}).await;
    assert_refused(anonymous, Code::Unauthenticated, "TOKEN_MISSING");
    let (message, signature) = tokens.access_token.rsplit_once('.').unwrap();
    let reversed: String = signature.chars().rev().collect();
    for token in ["nonsense", &tokens.refresh_token, &format!("{message}."), &format!("{message}.{reversed}")] {
        assert_refused(fixture.me(token).await, Code::Unauthenticated, "TOKEN_INVALID");
    }
    // Two services alike in all but their keys.
    let (other, _) = alice().await;
    assert_refused(other.me(&tokens.access_token).await, Code::Unauthenticated, "TOKEN_INVALID");
}

#[tokio::test]
async fn the_published_keys_are_jwks_without_private_parts() {
    let (fixture, _) = alice().await;
    let answer = TokenServiceClient::new(fixture.server.channel()).list_signing_keys(ListSigningKeysRequest {}).await;
    let keys = answer.unwrap().into_inner().keys;
    assert_eq!(keys.len(), 1);
    let key = &keys[0];
    assert_eq!(
        (key.kty.as_str(), key.crv.as_str(), key.alg.as_str(), key.r#use.as_str()),
        ("OKP", "Ed25519", "EdDSA", "sig")
    );
    assert_eq!((key.x.len(), key.y.len(), key.state()), (43, 0, SigningKeyState::Active));
    let sealed = fixture.count("SELECT count(*) FROM signing_keys WHERE length(private_key_sealed) > 32").await;
    assert_eq!(sealed, 1);
}

#[tokio::test]
async fn a_database_that_goes_and_comes_back() {
    let (fixture, tokens) = alice().await;
    let server = tests::Postgres::shared().await.address().superuser_url("postgres");
    let server = local_pair::postgres::connect(&server).await.unwrap();
    let allow = async |allowed: bool| {
        let name = fixture.database.name();
        server.batch_execute(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {allowed}")).await.unwrap();
    };
    allow(false).await;
    let others = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1";
    server.query(others, &[&fixture.database.name()]).await.unwrap();
    assert_refused(fixture.sign_in("alice", PASSWORD).await, Code::Unavailable, "DATABASE_UNAVAILABLE");
    assert_refused(fixture.refresh(&tokens.refresh_token).await, Code::Unavailable, "DATABASE_UNAVAILABLE");
    assert_refused(fixture.me(&tokens.access_token).await, Code::Unavailable, "DATABASE_UNAVAILABLE");
    let mut keys = TokenServiceClient::new(fixture.server.channel());
    let listed = keys.list_signing_keys(ListSigningKeysRequest {}).await.unwrap().into_inner().keys;
    assert_eq!(listed.len(), 1, "other services go on verifying");
    fixture.server.wait_for_log(|line| line.contains("not ready") && line.contains("\"latch\":\"database\"")).await;

    allow(true).await;
    let mut patience = 100;
    while !local_pair::health::is_serving(fixture.server.address()).await {
        patience -= 1;
        assert!(patience > 0, "the service does not come back:\n{}", fixture.server.logs().join("\n"));
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    fixture.refresh(&tokens.refresh_token).await.unwrap();
}
