//! Signing up and signing in: who gets in, who does not, and that nobody can tell why not.

mod auth_support;

use std::time::Duration;

use auth_support::Fixture;
use futures_util::future::join_all;
use proto::auth::v1::auth_service_client::AuthServiceClient;
use proto::auth::v1::user_service_client::UserServiceClient;
use proto::auth::v1::{GetUserRequest, SignInRequest, UpdateMeRequest, User};
use tests::{AuthServer, PASSWORD, Refusal, Service, assert_refused, run_program};
use tonic::Code;

#[tokio::test]
async fn signing_up_makes_a_member_and_signs_in() {
    let fixture = Fixture::start().await;
    let answer = fixture.sign_up("Alice@Example.com", "Alice", PASSWORD).await.unwrap();
    let (tokens, user) = (answer.tokens.unwrap(), answer.user.unwrap());
    assert_eq!(
        (user.email.as_str(), user.username.as_str(), user.role.as_str()),
        ("Alice@Example.com", "Alice", "member")
    );
    assert!(user.is_active && !user.email_verified && user.last_login_at.is_none() && user.created_at.is_some());
    assert_eq!((tokens.token_type.as_str(), tokens.expires_in), ("Bearer", 900));
    let life = tokens.refresh_expires_at.unwrap().seconds - tokens.access_expires_at.unwrap().seconds;
    assert_eq!(life, 7 * 24 * 3600 - 900);
    assert_eq!(fixture.me(&tokens.access_token).await.unwrap().user.unwrap(), user);

    let stored: String = fixture.client.query_one("SELECT password_hash FROM users", &[]).await.unwrap().get(0);
    assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
    let clear = format!("SELECT count(*) FROM refresh_tokens WHERE token_hash LIKE '%{}%'", tokens.refresh_token);
    assert_eq!(fixture.count(&clear).await, 0, "tokens are stored hashed");
}

#[tokio::test]
async fn names_are_unique_whatever_their_case_or_composition_also_in_a_race() {
    let fixture = Fixture::start().await;
    fixture.sign_up("rené@example.com", "René", PASSWORD).await.unwrap();
    for email in ["rené@example.com", "RENE\u{301}@EXAMPLE.com"] {
        let refusal =
            assert_refused(fixture.sign_up(email, "other", PASSWORD).await, Code::AlreadyExists, "EMAIL_TAKEN");
        assert_eq!(refusal.fields, ["email"]);
    }
    let refusal =
        assert_refused(fixture.sign_up("o@example.com", "RENÉ", PASSWORD).await, Code::AlreadyExists, "USERNAME_TAKEN");
    assert_eq!(refusal.fields, ["username"]);

    let names: Vec<_> =
        (0..8).map(|n| (format!("{}ob@example.com", if n % 2 == 0 { 'b' } else { 'B' }), format!("bob{n}"))).collect();
    let answers = join_all(names.iter().map(|(email, name)| fixture.sign_up(email, name, PASSWORD))).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    for answer in answers.into_iter().filter(Result::is_err) {
        assert_refused(answer, Code::AlreadyExists, "EMAIL_TAKEN");
    }
    assert_eq!(fixture.count("SELECT count(*) FROM users").await, 2);
}

#[tokio::test]
async fn bad_input_names_every_field_and_makes_nothing() {
    let fixture = Fixture::start().await;
    for (email, username, password, fields) in [
        ("", "", "", &["email", "username", "password"][..]),
        ("no-at-sign", "bob", PASSWORD, &["email"]),
        ("a b@example.com", "bob", PASSWORD, &["email"]),
        ("bob@example.com", "b@b", PASSWORD, &["username"]),
        ("bob@example.com", "bo\u{200b}b", PASSWORD, &["username"]),
        ("bob@example.com", "bo\u{0}b", PASSWORD, &["username"]),
        ("bob@example.com", &"b".repeat(51), PASSWORD, &["username"]),
        ("bob@example.com", "bob", "short77", &["password"]),
        ("bob@example.com", "bob", "Password123", &["password"]),
        ("bob@example.com", "bob", "BOB@example.com", &["password"]),
        ("bob@example.com", "bob", &"x".repeat(1025), &["password"]),
    ] {
        let refusal = assert_refused(
            fixture.sign_up(email, username, password).await,
            Code::InvalidArgument,
            "VALIDATION_FAILED",
        );
        assert_eq!(refusal.fields, fields, "{email:?} {username:?}");
    }
    assert_eq!(fixture.count("SELECT count(*) FROM users").await, 0);
    assert_eq!(fixture.hashes().await, 0, "nothing is hashed for bad input");
}

#[tokio::test]
async fn a_login_is_an_e_mail_or_a_name_in_any_case() {
    let fixture = Fixture::start().await;
    let id = fixture.sign_up("Carol@Example.com", "Carol", PASSWORD).await.unwrap().user.unwrap().id;
    for login in ["Carol@Example.com", "carol@example.com", "Carol", "cAROL"] {
        let user = fixture.sign_in(login, PASSWORD).await.unwrap().user.unwrap();
        assert_eq!(user.id, id);
        assert!(user.last_login_at.is_some());
        assert_eq!(user.updated_at, user.created_at, "a sign-in is no change");
    }
    assert_eq!(fixture.count("SELECT count(*) FROM sessions WHERE ended_at IS NULL").await, 5);
    let row = fixture.client.query_one("SELECT user_agent, source_address FROM sessions LIMIT 1", &[]).await.unwrap();
    assert!(row.get::<_, String>(0).starts_with("tonic/"));
    assert_eq!(row.get::<_, String>(1), "127.0.0.1");
}

/// Attack: find out which accounts exist, by the answer or by the work that it takes.
#[tokio::test]
async fn every_failing_sign_in_gives_one_answer_after_one_hash() {
    let fixture = Fixture::start().await;
    for name in ["wrong", "inactive", "broken", "empty", "greedy"] {
        fixture.sign_up(&format!("{name}@example.com"), name, PASSWORD).await.unwrap();
    }
    let good: String = fixture
        .client
        .query_one("SELECT password_hash FROM users WHERE username = 'greedy'", &[])
        .await
        .unwrap()
        .get(0);
    let greedy = good.replace("m=19456", "m=4000000000");
    fixture
        .sql(&format!(
            "UPDATE users SET is_active = false WHERE username = 'inactive'; UPDATE users SET password_hash = 'argon2id=19=65536,t=3,p=4' WHERE username = 'broken'; \
             UPDATE users SET password_hash = '' WHERE username = 'empty'; UPDATE users SET password_hash = '{greedy}' WHERE username = 'greedy'"
        ))
        .await;
    let long = "x".repeat(5000);
    let mut answers = Vec::new();
    for (login, password) in [
        ("nobody", PASSWORD),
        ("nobody@example.com", PASSWORD),
        ("wrong", "another zebra 4"),
        ("wrong", ""),
        ("wrong", &long),
        ("wrong", "nul\u{0}nul"),
        ("inactive", PASSWORD),
        ("inactive", "another zebra 4"),
        ("broken", PASSWORD),
        ("empty", PASSWORD),
        ("empty", ""),
        ("greedy", PASSWORD),
        ("", PASSWORD),
        ("", ""),
        (&long, PASSWORD),
        ("wro\u{0}ng", PASSWORD),
        ("' OR 1=1 --", PASSWORD),
    ] {
        let before = fixture.hashes().await;
        let status = fixture.sign_in(login, password).await.unwrap_err();
        assert_eq!(fixture.hashes().await - before, 1, "{login:.20} {password:.20}: exactly one hash");
        let refusal = Refusal::of(&status);
        assert_eq!(
            (refusal.code, refusal.reason.as_str()),
            (Code::Unauthenticated, "CREDENTIALS_INVALID"),
            "{login:.20}"
        );
        answers.push((refusal, status.details().to_vec()));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "one answer for all of them");
    let ids = fixture
        .count("SELECT count(*) FROM sessions WHERE user_id IN (SELECT id FROM users WHERE last_login_at IS NOT NULL)")
        .await;
    assert_eq!(ids, 0, "and no trace of a sign-in");
    let log = fixture.server.logs();
    let lines = |text: &str| log.iter().filter(|line| line.contains(text)).collect::<Vec<_>>();
    let (malformed, greedy) = (lines("not an Argon2 PHC string"), lines("asks for more than the ceiling"));
    assert_eq!((malformed.len(), greedy.len()), (2, 1), "operators hear of hashes that fit nothing, once: {log:#?}");
    for line in malformed.into_iter().chain(greedy) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let id = line["span"]["request_id"].as_str().unwrap();
        let calls = log.iter().filter(|line| line.contains("\"message\":\"rpc\"") && line.contains(id)).count();
        assert_eq!(calls, 1, "the line joins its call: {line}");
    }
    let page = auth_support::metrics_page(&fixture.server).await;
    assert!(page.contains("unusable_password_hashes_total{reason=\"malformed\"} 3"), "{page}");
}

/// A row that cannot be read, as from a database that somebody mended by hand, answers no sooner than one that is not there.
#[tokio::test]
async fn an_unreadable_account_costs_one_hash_too() {
    let fixture = Fixture::start().await;
    fixture.sign_up("odd@example.com", "odd", PASSWORD).await.unwrap();
    // Constraints keep such times out of an intact schema.
    fixture
        .sql(
            "DO $$ DECLARE name text; BEGIN \
             FOR name IN SELECT conname FROM pg_constraint WHERE conrelid = 'users'::regclass AND contype = 'c' LOOP \
             EXECUTE format('ALTER TABLE users DROP CONSTRAINT %I', name); END LOOP; END $$; \
             UPDATE users SET created_at = 'infinity'",
        )
        .await;
    let before = fixture.hashes().await;
    assert_refused(fixture.sign_in("odd", PASSWORD).await, Code::Internal, "INTERNAL");
    assert_eq!(fixture.hashes().await - before, 1);
}

#[tokio::test]
async fn an_inactive_role_grants_nothing() {
    let fixture = Fixture::start().await;
    fixture.sign_up("a@example.com", "a", PASSWORD).await.unwrap();
    fixture
        .sql(
            "INSERT INTO roles (name, display_name) VALUES ('auditor', 'Auditor'); \
             INSERT INTO role_permissions (role_id, permission) SELECT id, 'users.read' FROM roles WHERE name = 'auditor'; \
             UPDATE users SET role_id = (SELECT id FROM roles WHERE name = 'auditor')",
        )
        .await;
    let get = async |access_token: &str| {
        let request = GetUserRequest { id: uuid::Uuid::new_v4().to_string() };
        UserServiceClient::new(fixture.server.channel_with(access_token)).get_user(request).await
    };
    let active = fixture.sign_in("a", PASSWORD).await.unwrap().tokens.unwrap();
    assert_refused(get(&active.access_token).await, Code::NotFound, "USER_NOT_FOUND");

    fixture.sql("UPDATE roles SET is_active = false WHERE name = 'auditor'").await;
    let signed_in = fixture.sign_in("a", PASSWORD).await.unwrap().tokens.unwrap();
    let refreshed = fixture.refresh(&active.refresh_token).await.unwrap();
    for tokens in [signed_in, refreshed] {
        assert_refused(get(&tokens.access_token).await, Code::PermissionDenied, "PERMISSION_MISSING");
    }
}

#[tokio::test]
async fn a_hash_is_made_anew_only_upwards() {
    let fixture = Fixture::start().await;
    let user = fixture.sign_up("old@example.com", "old", PASSWORD).await.unwrap().user.unwrap();
    let stored =
        async || -> String { fixture.client.query_one("SELECT password_hash FROM users", &[]).await.unwrap().get(0) };
    let hash = async |memory: &str| {
        let cost = [
            ("PASSWORD_HASH_MEMORY_KIB", memory),
            ("PASSWORD_HASH_ITERATIONS", "2"),
            ("PASSWORD_HASH_PARALLELISM", "1"),
        ];
        run_program(Service::Auth, &["admin", "hash-password"], &cost, PASSWORD).await.stdout.trim().to_owned()
    };
    let stronger = hash("32768").await;
    fixture.sql(&format!("UPDATE users SET password_hash = '{stronger}' WHERE id = '{}'", user.id)).await;
    fixture.sign_in("old", PASSWORD).await.unwrap();
    assert_eq!(stored().await, stronger, "a stronger one stays");

    let hashes = fixture.hashes().await;
    let server = AuthServer::start(
        &fixture.database,
        &[("PASSWORD_HASH_MEMORY_KIB", "65536"), ("PASSWORD_HASH_ITERATIONS", "3")],
    )
    .await;
    let request = SignInRequest { login: "old".into(), password: PASSWORD.into() };
    AuthServiceClient::new(server.channel()).sign_in(request).await.unwrap();
    assert!(
        stored().await.starts_with("$argon2id$v=19$m=65536,t=3,p=4$"),
        "a weaker one is made anew: {}",
        stored().await
    );
    fixture.sign_in("old", PASSWORD).await.unwrap();
    assert_eq!(fixture.hashes().await - hashes, 1, "nothing is made anew downwards");
}

/// A storm of sign-ins is shed with a time to come back, and other calls do not feel it.
#[tokio::test]
async fn a_full_queue_says_when_to_come_back_and_other_calls_go_on() {
    let busy = [
        ("HASHING_QUEUE", "2"),
        ("HASHING_MEMORY_BUDGET_KIB", "19456"),
        ("PASSWORD_HASH_ITERATIONS", "20"),
        ("PASSWORD_HASH_MAX_ITERATIONS", "20"),
    ];
    let fixture = Fixture::start_with(&busy).await;
    let access = fixture.sign_up("alice@example.com", "alice", PASSWORD).await.unwrap().tokens.unwrap().access_token;
    let storm = join_all((0..24).map(|_| fixture.sign_in("alice", "wrong zebra")));
    let meanwhile = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let started = std::time::Instant::now();
        fixture.me(&access).await.unwrap();
        started.elapsed()
    };
    let (answers, waited) = tokio::join!(storm, meanwhile);
    let (mut shed, mut refused) = (0, 0);
    for answer in answers {
        match answer.unwrap_err().code() {
            Code::ResourceExhausted => shed += 1,
            Code::Unauthenticated => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(shed >= 20 && refused >= 3, "{shed} shed, {refused} refused");
    assert!(waited < Duration::from_secs(5), "{waited:?}");
    let busy = join_all((0..24).map(|_| fixture.sign_in("alice", "wrong zebra"))).await;
    let shed = busy
        .into_iter()
        .find(|answer| answer.as_ref().is_err_and(|status| status.code() == Code::ResourceExhausted))
        .unwrap();
    assert_refused(shed, Code::ResourceExhausted, "HASHING_BUSY");
}

/// Callers that give up must not leave the threads busy with what nobody waits for.
#[tokio::test]
async fn clients_that_go_away_by_the_hundred_give_their_places_back() {
    let fixture = Fixture::start_with(&[("HASHING_QUEUE", "8"), ("HASHING_MEMORY_BUDGET_KIB", "19456")]).await;
    fixture.sign_up("alice@example.com", "alice", PASSWORD).await.unwrap();
    for _ in 0..30 {
        let gone = join_all(
            (0..10).map(|_| tokio::time::timeout(Duration::from_millis(5), fixture.sign_in("alice", PASSWORD))),
        );
        gone.await;
    }
    let signed_in = tokio::time::timeout(Duration::from_secs(10), async {
        while fixture.sign_in("alice", PASSWORD).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    signed_in.await.expect("the queue is free again");
}

#[tokio::test]
async fn sign_up_can_be_closed() {
    let fixture = Fixture::start_with(&[("SIGN_UP", "closed")]).await;
    assert_refused(fixture.sign_up("a@example.com", "a", PASSWORD).await, Code::PermissionDenied, "SIGN_UP_CLOSED");
}

#[tokio::test]
async fn who_may_call_is_decided_before_what_is_answered() {
    let fixture = Fixture::start().await;
    let member = fixture.sign_up("m@example.com", "m", PASSWORD).await.unwrap().tokens.unwrap().access_token;
    let request = || UpdateMeRequest { user: Some(User::default()), update_mask: None };
    let anonymous = AuthServiceClient::new(fixture.server.channel()).update_me(request()).await;
    assert_refused(anonymous, Code::Unauthenticated, "TOKEN_MISSING");
    let later = AuthServiceClient::new(fixture.server.channel_with(&member)).update_me(request()).await;
    assert_refused(later, Code::InvalidArgument, "VALIDATION_FAILED");

    let get = || GetUserRequest { id: uuid::Uuid::new_v4().to_string() };
    let denied = UserServiceClient::new(fixture.server.channel_with(&member)).get_user(get()).await;
    assert_refused(denied, Code::PermissionDenied, "PERMISSION_MISSING");
    let url = fixture.database.runtime_url();
    let bootstrap = ["admin", "bootstrap", "--email", "root@example.com", "--password-stdin"];
    assert_eq!(run_program(Service::Auth, &bootstrap, &[("DATABASE_URL", &url)], PASSWORD).await.code, 0);
    let admin = fixture.sign_in("root", PASSWORD).await.unwrap().tokens.unwrap().access_token;
    let later = UserServiceClient::new(fixture.server.channel_with(&admin)).get_user(get()).await;
    assert_refused(later, Code::NotFound, "USER_NOT_FOUND");
}

#[tokio::test]
async fn logs_and_metrics_tell_ids_and_no_secrets() {
    let fixture = Fixture::start_with(&[("RUST_LOG", "debug")]).await;
    let secret = "a password that must not leak 7";
    let new = fixture.sign_up("leaky@example.com", "leakyname", secret).await.unwrap();
    let (user, one) = (new.user.unwrap(), new.tokens.unwrap());
    let two = fixture.sign_in("leaky@example.com", secret).await.unwrap().tokens.unwrap();
    let three = fixture.refresh(&two.refresh_token).await.unwrap();
    fixture.me(&three.access_token).await.unwrap();
    fixture.sign_in("leaky@example.com", "another secret 7").await.unwrap_err();
    fixture.sign_up("leaky@example.com", "leakyname", secret).await.unwrap_err();
    fixture.sign_out(&three.refresh_token).await.unwrap();
    fixture.server.wait_for_log(|line| line.contains("SignOut")).await;
    let told = fixture.server.logs().join("\n") + &auth_support::metrics_page(&fixture.server).await;
    assert!(told.contains(&user.id), "log lines name the user by id");
    for tokens in [&one, &two, &three] {
        assert!(!told.contains(&tokens.access_token) && !told.contains(&tokens.refresh_token));
    }
    for hidden in [secret, "another secret 7", "leaky@example.com", "leakyname", "argon2id$"] {
        assert!(
            !told.contains(hidden),
            "{hidden:?} is in the log:\n{}",
            told.lines().find(|line| line.contains(hidden)).unwrap()
        );
    }
}
