//! Users of the old system after adoption: their passwords, their sessions, their odd names.

mod auth_support;

use auth_support::{CHEAP_HASHES, Fixture};
use tests::legacy::fixture;
use tests::{PASSWORD, Service, TestDatabase, assert_refused, run_migrate};
use tonic::Code;

const CAROL: &str = "Carol-Pa55word!";
const CAROL_HASH: &str =
    "$argon2id$v=19$m=65536,t=3,p=4$unU4LmttirdJ189xB/EiaQ$eCrCpkR8Qg65HJzzNMI4IF6l69BRGjclZU9br0T/cpo";

/// The incident database with `extra` rows, adopted.
async fn adopted(extra: &str) -> Fixture {
    let database = TestDatabase::from_sql(&format!("{}\n{extra}", fixture("legacy/incident"))).await;
    let run = run_migrate(Service::Auth, &database.migrator_url(), &["up"]).await;
    assert_eq!(run.code, 0, "{run:#?}");
    database.grant().await;
    Fixture { client: database.client().await, server: tests::AuthServer::start(&database, &[]).await, database }
}

/// `INSERT` of a user with carol's password.
fn user(id: u8, email: &str, username: &str, created: &str) -> String {
    format!(
        "INSERT INTO users (id, email, username, password_hash, is_active, email_verified, created_at, updated_at) VALUES \
         ('0b5d0c1e-3f57-4f0a-9a55-0a4f3d8f6d{id:02}', '{email}', '{username}', '{CAROL_HASH}', true, true, '{created}', '{created}');"
    )
}

#[tokio::test]
async fn old_passwords_sign_in_and_their_hashes_stay() {
    let fixture = adopted("").await;
    for login in ["carol@example.com", "carol", "CAROL@example.com"] {
        let user = fixture.sign_in(login, CAROL).await.unwrap().user.unwrap();
        assert_eq!(
            (user.email.as_str(), user.role.as_str(), user.email_verified),
            ("carol@example.com", "member", true)
        );
        assert_eq!(user.updated_at.unwrap().seconds, 1_749_547_800, "a sign-in is no change");
    }
    let kept = fixture
        .count(&format!("SELECT count(*) FROM users WHERE username = 'carol' AND password_hash = '{CAROL_HASH}'"))
        .await;
    assert_eq!(kept, 1, "parameters as strong as ours are left alone");
    assert_refused(fixture.sign_in("carol", "carol-pa55word!").await, Code::Unauthenticated, "CREDENTIALS_INVALID");
    // Deactivated, with the right password; and the administrator whose password nobody has.
    assert_refused(fixture.sign_in("dave", CAROL).await, Code::Unauthenticated, "CREDENTIALS_INVALID");
    assert_refused(fixture.sign_in("admin", CAROL).await, Code::Unauthenticated, "CREDENTIALS_INVALID");
}

#[tokio::test]
async fn old_refresh_tokens_go_on_and_revoked_ones_do_not() {
    let fixture = adopted("UPDATE refresh_tokens SET expires_at = now() + interval '3 days';").await;
    let next = fixture.refresh("legacy-refresh-1").await.unwrap();
    assert_eq!(fixture.me(&next.access_token).await.unwrap().user.unwrap().username, "carol");
    fixture.refresh(&next.refresh_token).await.unwrap();
    assert_refused(fixture.refresh("legacy-refresh-2").await, Code::Unauthenticated, "REFRESH_TOKEN_INVALID");
}

#[tokio::test]
async fn names_that_differ_by_case_only_both_sign_in() {
    let extra = [
        user(1, "Bob@example.com", "Bob", "2025-01-01 00:00:00+00"),
        user(2, "bob@example.com", "bob", "2025-02-01 00:00:00+00"),
        user(3, "RENÉ@example.com", "RENÉ", "2025-03-01 00:00:00+00"),
        user(4, "rené@example.com", "rené", "2025-04-01 00:00:00+00"),
        user(5, "Ольга@example.com", "Ольга", "2025-05-01 00:00:00+00"),
        user(6, "kate@example.com", "carol@example.com", "2025-06-01 00:00:00+00"),
    ];
    let fixture = adopted(&extra.concat()).await;
    for (login, email) in [
        ("Bob@example.com", "Bob@example.com"),
        ("bob@example.com", "bob@example.com"),
        ("BOB@example.com", "Bob@example.com"),
        ("bob", "bob@example.com"),
        ("bOB", "Bob@example.com"),
        ("RENÉ", "RENÉ@example.com"),
        ("rené", "rené@example.com"),
        ("René", "RENÉ@example.com"),
        ("RENE\u{301}@EXAMPLE.com", "RENÉ@example.com"),
        ("ольга", "Ольга@example.com"),
        ("ОЛЬГА@example.com", "Ольга@example.com"),
        ("carol@example.com", "carol@example.com"),
    ] {
        assert_eq!(fixture.sign_in(login, CAROL).await.unwrap().user.unwrap().email, email, "{login}");
    }
    // The older of two has the key; the younger is kept without.
    let keyless = fixture
        .count(
            "SELECT count(*) FROM users WHERE email_key IS NULL AND email IN ('bob@example.com', 'rené@example.com')",
        )
        .await;
    assert_eq!((keyless, fixture.count("SELECT count(*) FROM users WHERE email_key IS NULL").await), (2, 2));
    for email in ["BOB@example.com", "bob@example.com", "René@example.com"] {
        assert_refused(fixture.sign_up(email, "fresh", PASSWORD).await, Code::AlreadyExists, "EMAIL_TAKEN");
    }
    let again = run_migrate(Service::Auth, &fixture.database.migrator_url(), &["up"]).await;
    assert_eq!(again.code, 0, "{again:#?}");
    assert_eq!(fixture.count("SELECT count(*) FROM users WHERE email_key IS NULL").await, 2);
}

#[tokio::test]
async fn a_weak_hash_is_made_anew_at_the_next_sign_in_only() {
    let cost = [CHEAP_HASHES, &[]].concat();
    let weak =
        tests::run_program(Service::Auth, &["admin", "hash-password"], &cost, CAROL).await.stdout.trim().to_owned();
    let fixture = adopted(&format!("UPDATE users SET password_hash = '{weak}' WHERE username = 'carol';")).await;
    assert_refused(fixture.sign_in("carol", "wrong").await, Code::Unauthenticated, "CREDENTIALS_INVALID");
    let stored = async || -> String {
        fixture.client.query_one("SELECT password_hash FROM users WHERE username = 'carol'", &[]).await.unwrap().get(0)
    };
    assert_eq!(stored().await, weak);
    fixture.sign_in("carol", CAROL).await.unwrap();
    assert!(stored().await.starts_with("$argon2id$v=19$m=65536,t=3,p=4$"));
    fixture.sign_in("carol", CAROL).await.unwrap();
    assert_eq!(fixture.hashes().await, 4, "wrong, right and anew, right");

    // Two devices at once: one makes the hash anew, and both get in.
    fixture.sql(&format!("UPDATE users SET password_hash = '{weak}' WHERE username = 'carol'")).await;
    for answer in futures_util::future::join_all((0..6).map(|_| fixture.sign_in("carol", CAROL))).await {
        answer.unwrap();
    }
}
