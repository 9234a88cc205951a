//! Failed sign-ins slow down who makes them: per login and source, per account whatever the source, in all replicas alike.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a suite ends the test with a panic")]

mod auth_support;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use auth_support::{CHEAP_HASHES, Fixture};
use futures_util::future::join_all;
use proto::auth::v1::auth_service_client::AuthServiceClient;
use proto::auth::v1::*;
use tests::{AuthServer, PASSWORD, Refusal, assert_refused};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// Failures that are answered at once.
const FREE: usize = 10;

async fn alice(extra: tests::Environment<'_>) -> (Fixture, Tokens) {
    let fixture = Fixture::start_with(extra).await;
    let made = fixture.sign_up("alice@example.com", "alice", PASSWORD).await.unwrap();
    (fixture, made.tokens.unwrap())
}

async fn sign_in_over(channel: Channel, login: &str, password: &str) -> Result<(), Status> {
    let request = SignInRequest { login: login.into(), password: password.into() };
    AuthServiceClient::new(channel).sign_in(request).await.map(|_| ())
}

/// A channel whose calls come from another address of this machine.
fn channel_from(server: &AuthServer, last: u8) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address())).unwrap();
    endpoint.local_address(Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)))).connect_lazy()
}

fn throttled(answer: Result<impl std::fmt::Debug, Status>) -> Duration {
    let refusal = assert_refused(answer, Code::ResourceExhausted, "SIGN_IN_THROTTLED");
    refusal.retry_after.expect("RetryInfo says when")
}

async fn fail_freely(fixture: &Fixture, login: &str) {
    for _ in 0..FREE {
        let answer = fixture.sign_in(login, "wrong").await;
        assert_refused(answer, Code::Unauthenticated, "CREDENTIALS_INVALID");
    }
}

#[tokio::test]
async fn a_known_and_an_unknown_login_are_slowed_down_alike_and_others_are_not() {
    let (fixture, _) = alice(&[]).await;
    fixture.sign_up("bob@example.com", "bob", PASSWORD).await.unwrap();
    for login in ["alice", "nobody"] {
        fail_freely(&fixture, login).await;
        let before = fixture.hashes().await;
        assert!(throttled(fixture.sign_in(login, "wrong").await) <= Duration::from_secs(2));
        // Not even the right password is looked at, under whatever case.
        throttled(fixture.sign_in(&login.to_uppercase(), PASSWORD).await);
        assert_eq!(fixture.hashes().await, before, "nothing is hashed for {login}");
        // The delay grows.
        let mut waits = Vec::new();
        for _ in 0..3 {
            let wait = throttled(fixture.sign_in(login, "wrong").await);
            tokio::time::sleep(wait).await;
            assert_refused(fixture.sign_in(login, "wrong").await, Code::Unauthenticated, "CREDENTIALS_INVALID");
            waits.push(throttled(fixture.sign_in(login, "wrong").await));
        }
        assert!(waits.is_sorted() && waits[2] >= Duration::from_secs(7), "{waits:?}");
    }
    fixture.sign_in("bob", PASSWORD).await.unwrap();
    // The table holds no login.
    let logins = "SELECT count(*) FROM sign_in_throttles WHERE throttle_key ~ '^[0-9a-f]{64}$'";
    assert_eq!(fixture.count(logins).await, fixture.count("SELECT count(*) FROM sign_in_throttles").await);
}

#[tokio::test]
async fn the_right_password_begins_the_count_anew() {
    let (fixture, _) = alice(&[]).await;
    for _ in 0..3 {
        for _ in 0..FREE - 1 {
            assert_refused(fixture.sign_in("alice", "wrong").await, Code::Unauthenticated, "CREDENTIALS_INVALID");
        }
        fixture.sign_in("alice", PASSWORD).await.unwrap();
    }
    assert_eq!(fixture.count("SELECT count(*) FROM sign_in_throttles").await, 0);
}

#[tokio::test]
async fn another_source_waits_for_nobody_and_another_replica_knows() {
    let (fixture, _) = alice(&[]).await;
    let replica = AuthServer::start(&fixture.database, CHEAP_HASHES).await;
    fail_freely(&fixture, "alice").await;
    throttled(sign_in_over(replica.channel(), "alice", PASSWORD).await);
    sign_in_over(channel_from(&replica, 2), "alice", PASSWORD).await.unwrap();
}

/// Attack: guessing from many machines.
#[tokio::test]
async fn a_login_takes_fifty_failures_in_a_row_and_its_owner_can_still_reset() {
    let mails = tempfile::tempdir().unwrap();
    let (fixture, tokens) = alice(&[("MAIL_DIR", mails.path().to_str().unwrap())]).await;
    fixture.sign_in("alice", "wrong").await.unwrap_err();
    fixture.sql("UPDATE sign_in_throttles SET failures = 48 WHERE source = ''").await;
    for last in [2, 3] {
        let answer = sign_in_over(channel_from(&fixture.server, last), "ALICE", "wrong").await;
        assert_refused(answer, Code::Unauthenticated, "CREDENTIALS_INVALID");
    }
    // From now on nobody, from nowhere.
    let wait = throttled(sign_in_over(channel_from(&fixture.server, 4), "alice", PASSWORD).await);
    assert!(wait > Duration::from_secs(23 * 3600), "{wait:?}");
    throttled(fixture.sign_in("alice", PASSWORD).await);
    // The other login does not tell that it is of the same account; a hundred is what both take together.
    let answer = fixture.sign_in("alice@example.com", "wrong").await;
    assert_refused(answer, Code::Unauthenticated, "CREDENTIALS_INVALID");
    // Who is signed in stays so, and is not held back by strangers; a new password by mail ends it.
    fixture.me(&tokens.access_token).await.unwrap();
    let mut client = AuthServiceClient::new(fixture.server.channel());
    let request = RequestPasswordResetRequest { email: "alice@example.com".into() };
    client.request_password_reset(request).await.unwrap();
    let new_password = "another zebra 5 battery staple".to_owned();
    let token = token_in(mails.path()).await;
    client.reset_password(ResetPasswordRequest { token, new_password: new_password.clone() }).await.unwrap();
    fixture.sign_in("alice", &new_password).await.unwrap();
    assert_eq!(fixture.count("SELECT count(*) FROM sign_in_throttles").await, 0);
}

/// The token of the only mail: the longest word in it.
async fn token_in(directory: &std::path::Path) -> String {
    for _ in 0..100 {
        let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        if let Some(file) = files.into_iter().find(|file| file.extension().is_some_and(|kind| kind == "eml")) {
            let mail = std::fs::read_to_string(file).unwrap();
            let plain = mail.split("text/plain").nth(1).unwrap().split("\r\n--").next().unwrap().to_owned();
            return plain.split_whitespace().find(|word| word.len() == 43).unwrap().to_owned();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("no mail came");
}

/// Attack: many guesses at once, so that they are all let in before the first has failed.
#[tokio::test]
async fn many_guesses_at_once_learn_no_more_than_one_after_the_other() {
    let (fixture, _) = alice(&[]).await;
    // The next failure blocks for a minute: longer than all of them take.
    fixture.sign_in("alice", "wrong").await.unwrap_err();
    fixture.sql("UPDATE sign_in_throttles SET failures = 15 WHERE source <> ''").await;
    let channel = fixture.server.channel();
    let guesses: Vec<String> = (0..50).map(|n| format!("guess {n}")).collect();
    let answers = join_all(guesses.iter().map(|guess| sign_in_over(channel.clone(), "alice", guess))).await;
    let refusals: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).map(Refusal::of).collect();
    let told = refusals.iter().filter(|refusal| refusal.reason == "CREDENTIALS_INVALID").count();
    let withheld = refusals.iter().filter(|refusal| refusal.reason == "SIGN_IN_THROTTLED").count();
    assert_eq!((told, withheld), (1, 49), "{refusals:?}");
}

/// Attack: as before, and one of the guesses is right.
#[tokio::test]
async fn a_right_guess_is_not_told_when_others_have_failed_meanwhile() {
    // A hash that takes its time.
    let slow = [("PASSWORD_HASH_MEMORY_KIB", "262144"), ("PASSWORD_HASH_ITERATIONS", "16")];
    let (fixture, _) = alice(&slow).await;
    fixture.sign_in("alice", "wrong").await.unwrap_err();
    let block = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        fixture.sql("UPDATE sign_in_throttles SET blocked_until = now() + '1 minute'::interval").await;
    };
    let before = fixture.hashes().await;
    let (answer, ()) = tokio::join!(fixture.sign_in("alice", PASSWORD), block);
    throttled(answer);
    assert_eq!(fixture.hashes().await, before + 1, "the password was checked");
}

#[tokio::test]
async fn passwords_said_once_more_are_counted_too() {
    let (fixture, tokens) = alice(&[]).await;
    let mut client = AuthServiceClient::new(fixture.server.channel_with(&tokens.access_token));
    for n in 0..FREE {
        let answer = if n % 2 == 0 {
            let new_password = "another zebra 5 battery staple".into();
            let request = ChangePasswordRequest { current_password: "wrong".into(), new_password };
            client.change_password(request).await.map(|_| ())
        } else {
            client.delete_me(DeleteMeRequest { password: "wrong".into() }).await.map(|_| ())
        };
        assert_refused(answer, Code::Unauthenticated, "CREDENTIALS_INVALID");
    }
    let hashes = fixture.hashes().await;
    throttled(client.delete_me(DeleteMeRequest { password: PASSWORD.into() }).await);
    assert_eq!(fixture.hashes().await, hashes);
    assert_eq!(fixture.count("SELECT count(*) FROM users").await, 1);
}

#[tokio::test]
async fn counts_and_other_old_rows_are_forgotten() {
    let (fixture, tokens) = alice(&[]).await;
    fixture.sign_in("nobody", "wrong").await.unwrap_err();
    fixture.sign_in("alice", PASSWORD).await.unwrap();
    // Two revocations that void nothing any more: the newest stays, since revisions go on from there.
    for _ in 0..2 {
        let session = fixture.sign_in("alice", PASSWORD).await.unwrap().tokens.unwrap();
        fixture.sign_out(&session.refresh_token).await.unwrap();
    }
    fixture.sql("DELETE FROM sessions WHERE ended_at IS NOT NULL").await;
    let old = "UPDATE revocations SET forget_at = now() - '1 second'::interval;
        UPDATE sign_in_throttles SET expires_at = now() - '1 second'::interval;
        UPDATE sessions SET expires_at = now() - '31 days'::interval WHERE created_at = (SELECT max(created_at) FROM sessions)";
    fixture.sql(old).await;
    for _ in 0..300 {
        let left = "SELECT (SELECT count(*) FROM sign_in_throttles) * 100 \
            + (SELECT count(*) FROM sessions) * 10 + (SELECT count(*) FROM revocations)";
        if fixture.count(left).await == 11 {
            assert_eq!(fixture.count("SELECT count(*) FROM refresh_tokens").await, 1);
            fixture.me(&tokens.access_token).await.unwrap();
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("nothing was deleted");
}
