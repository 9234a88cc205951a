//! One's own account: changing it, its password, its sessions.
#![expect(clippy::unwrap_used, reason = "a suite ends the test with a panic")]

mod auth_support;

use auth_support::Fixture;
use prost_types::FieldMask;
use proto::auth::v1::auth_service_client::AuthServiceClient;
use proto::auth::v1::*;
use tests::{Authorized, PASSWORD, assert_refused};
use tonic::{Code, Response, Status};

const OTHER: &str = "another 7 giraffe in the library";

async fn alice() -> (Fixture, Tokens) {
    let fixture = Fixture::start().await;
    let tokens = fixture.sign_up("alice@example.com", "alice", PASSWORD).await.unwrap().tokens.unwrap();
    (fixture, tokens)
}

fn as_(fixture: &Fixture, tokens: &Tokens) -> AuthServiceClient<Authorized> {
    AuthServiceClient::new(fixture.server.channel_with(&tokens.access_token))
}

async fn update(fixture: &Fixture, tokens: &Tokens, user: User, paths: &[&str]) -> Result<User, Status> {
    let update_mask = Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() });
    let answer = as_(fixture, tokens).update_me(UpdateMeRequest { user: Some(user), update_mask }).await?;
    Ok(answer.into_inner().user.unwrap())
}

async fn change_password(fixture: &Fixture, tokens: &Tokens, current: &str, new: &str) -> Result<(), Status> {
    let request = ChangePasswordRequest { current_password: current.into(), new_password: new.into() };
    as_(fixture, tokens).change_password(request).await.map(|_| ())
}

async fn events(fixture: &Fixture) -> Vec<String> {
    let sql = "SELECT concat_ws(' ', actor_type, action, target_type, reason, array_to_string(changed_fields, ',')) \
        FROM audit_events ORDER BY occurred_at, id";
    fixture.client.query(sql, &[]).await.unwrap().iter().map(|row| row.get::<_, String>(0).trim().to_owned()).collect()
}

#[tokio::test]
async fn address_and_name_change_and_the_new_address_is_not_verified() {
    let (fixture, tokens) = alice().await;
    fixture.sql("UPDATE users SET email_verified = true").await;
    let user = User { email: "Alice@Example.org".into(), username: "ignored".into(), ..User::default() };
    let user = update(&fixture, &tokens, user, &["email"]).await.unwrap();
    assert_eq!(
        (user.email.as_str(), user.username.as_str(), user.email_verified),
        ("Alice@Example.org", "alice", false)
    );
    fixture.sign_in("alice@example.ORG", PASSWORD).await.unwrap();
    assert!(fixture.sign_in("alice@example.com", PASSWORD).await.is_err());

    // Without a mask what is set; the same once more is no change.
    let user = User { username: "Alicia".into(), ..User::default() };
    let renamed = update(&fixture, &tokens, user.clone(), &[]).await.unwrap();
    assert_eq!(renamed.username, "Alicia");
    assert_eq!(update(&fixture, &tokens, user, &["*"]).await.unwrap_err().code(), Code::InvalidArgument, "no address");
    let same = User { username: "Alicia".into(), ..User::default() };
    assert_eq!(update(&fixture, &tokens, same, &["username"]).await.unwrap().updated_at, renamed.updated_at);
    let told = events(&fixture).await;
    let updates: Vec<_> = told.iter().filter(|event| event.contains("PROFILE_UPDATE")).collect();
    assert_eq!(
        updates,
        ["USER PROFILE_UPDATE USER email,email_verified", "USER PROFILE_UPDATE USER username"],
        "{told:?}"
    );
}

/// Attack: an update mask that reaches for what is not one's own to change.
#[tokio::test]
async fn an_update_mask_does_not_escalate() {
    let (fixture, tokens) = alice().await;
    let user = User {
        role: "admin".into(),
        is_active: true,
        email_verified: true,
        id: uuid::Uuid::new_v4().to_string(),
        ..User::default()
    };
    let forbidden =
        ["role", "is_active", "email_verified", "id", "password_hash", "created_at", "user.role", "email.x", "Role"];
    for path in forbidden {
        let refused = assert_refused(
            update(&fixture, &tokens, user.clone(), &[path]).await,
            Code::InvalidArgument,
            "VALIDATION_FAILED",
        );
        assert_eq!(refused.fields, ["update_mask.paths[0]"], "{path}");
    }
    // Without a mask only what may change counts, and of that nothing is set.
    assert_refused(update(&fixture, &tokens, user.clone(), &[]).await, Code::InvalidArgument, "VALIDATION_FAILED");
    let whole = User { email: "a@b.example".into(), username: "al".into(), ..user };
    let me = update(&fixture, &tokens, whole, &["*"]).await.unwrap();
    assert_eq!((me.role.as_str(), me.email_verified), ("member", false));
}

/// Attack: look-alikes and another spelling of somebody's address or name.
#[tokio::test]
async fn nobody_takes_anothers_address_or_name_in_another_spelling() {
    let (fixture, _) = alice().await;
    let bob = fixture.sign_up("bob@example.com", "Bob", PASSWORD).await.unwrap().tokens.unwrap();
    for (user, path, reason) in [
        (User { email: "ALICE@example.com".into(), ..User::default() }, "email", "EMAIL_TAKEN"),
        (User { username: "Alice".into(), ..User::default() }, "username", "USERNAME_TAKEN"),
        (User { username: "ａｌｉｃｅ".into(), ..User::default() }, "username", ""),
    ] {
        let answer = update(&fixture, &bob, user, &[path]).await;
        if reason.is_empty() {
            // Full-width letters are other letters, and stay so.
            assert_eq!(answer.unwrap().username, "ａｌｉｃｅ");
        } else {
            assert_refused(answer, Code::AlreadyExists, reason);
        }
    }
}

#[tokio::test]
async fn a_changed_password_ends_every_session() {
    let (fixture, tokens) = alice().await;
    let elsewhere = fixture.sign_in("alice", PASSWORD).await.unwrap().tokens.unwrap();
    change_password(&fixture, &tokens, PASSWORD, OTHER).await.unwrap();
    for old in [&tokens, &elsewhere] {
        assert_refused(fixture.me(&old.access_token).await, Code::Unauthenticated, "TOKEN_REVOKED");
        assert_refused(fixture.refresh(&old.refresh_token).await, Code::Unauthenticated, "REFRESH_TOKEN_INVALID");
    }
    assert_refused(fixture.sign_in("alice", PASSWORD).await, Code::Unauthenticated, "CREDENTIALS_INVALID");
    fixture.sign_in("alice", OTHER).await.unwrap();
    let told = events(&fixture).await;
    assert!(told.contains(&"USER PASSWORD_CHANGE USER".to_owned()), "{told:?}");
}

#[tokio::test]
async fn a_password_changes_only_with_the_current_one_and_to_a_good_one() {
    let (fixture, tokens) = alice().await;
    let before = fixture.hashes().await;
    for wrong in ["", "wrong", &"x".repeat(5000)] {
        assert_refused(
            change_password(&fixture, &tokens, wrong, OTHER).await,
            Code::Unauthenticated,
            "CREDENTIALS_INVALID",
        );
    }
    assert_eq!(fixture.hashes().await - before, 3, "one hash each");
    for bad in ["short", "password123", "alice@example.com", "ALICE@EXAMPLE.COM", &"é".repeat(600)] {
        let refused = assert_refused(
            change_password(&fixture, &tokens, PASSWORD, bad).await,
            Code::InvalidArgument,
            "VALIDATION_FAILED",
        );
        assert_eq!(refused.fields, ["new_password"], "{bad}");
    }
    fixture.sign_in("alice", PASSWORD).await.unwrap();
    let told = events(&fixture).await;
    let refusals = told.iter().filter(|event| *event == "USER PASSWORD_CHANGE USER CREDENTIALS_INVALID");
    assert_eq!(refusals.count(), 3, "{told:?}");
}

#[tokio::test]
async fn sessions_are_listed_page_by_page_and_ended_singly_or_together() {
    let (fixture, first) = alice().await;
    let others: Vec<Tokens> = {
        let mut others = Vec::new();
        for _ in 0..4 {
            others.push(fixture.sign_in("alice", PASSWORD).await.unwrap().tokens.unwrap());
        }
        others
    };
    let mut client = as_(&fixture, &first);
    let mut page_token = String::new();
    let mut listed: Vec<Session> = Vec::new();
    loop {
        let request = ListSessionsRequest { page_size: 2, page_token };
        let page = client.list_sessions(request).await.unwrap().into_inner();
        assert!(page.sessions.len() <= 2);
        listed.extend(page.sessions);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed.len(), 5);
    let times: Vec<_> = listed.iter().map(|session| session.last_used_at.unwrap()).collect();
    assert!(times.windows(2).all(|pair| (pair[0].seconds, pair[0].nanos) >= (pair[1].seconds, pair[1].nanos)));
    let current: Vec<_> = listed.iter().filter(|session| session.is_current).collect();
    assert_eq!(current.len(), 1);
    assert_eq!((current[0].source.as_str(), current[0].device.is_empty()), ("127.0.0.1", false));
    assert!(current[0].idle_expires_at.unwrap().seconds <= current[0].expires_at.unwrap().seconds);

    // Attack: another's session, by its id.
    let bob = fixture.sign_up("bob@example.com", "bob", PASSWORD).await.unwrap().tokens.unwrap();
    let revoke = |session: &Session| RevokeSessionRequest { session_id: session.id.clone() };
    let not_theirs = as_(&fixture, &bob).revoke_session(revoke(&listed[0])).await.map(Response::into_inner);
    assert_refused(not_theirs, Code::NotFound, "SESSION_NOT_FOUND");

    let ended = listed.iter().find(|session| !session.is_current).unwrap();
    client.revoke_session(revoke(ended)).await.unwrap();
    assert_refused(client.revoke_session(revoke(ended)).await, Code::NotFound, "SESSION_NOT_FOUND");
    let alive = client.list_sessions(ListSessionsRequest::default()).await.unwrap().into_inner().sessions;
    assert_eq!(alive.len(), 4);
    assert!(alive.iter().all(|session| session.id != ended.id));

    assert_eq!(client.sign_out_all(SignOutAllRequest {}).await.unwrap().into_inner().session_count, 4);
    for old in others.iter().chain([&first]) {
        assert_refused(fixture.refresh(&old.refresh_token).await, Code::Unauthenticated, "REFRESH_TOKEN_INVALID");
    }
    assert_refused(client.sign_out_all(SignOutAllRequest {}).await, Code::Unauthenticated, "TOKEN_REVOKED");
    fixture.me(&bob.access_token).await.unwrap();
}

/// Attack: a page token of another list, of another caller, or made up.
#[tokio::test]
async fn page_tokens_belong_to_their_list_and_caller() {
    let (fixture, alice) = alice().await;
    fixture.sign_in("alice", PASSWORD).await.unwrap();
    let request = |page_token: &str| ListSessionsRequest { page_size: 1, page_token: page_token.into() };
    let token = as_(&fixture, &alice).list_sessions(request("")).await.unwrap().into_inner().next_page_token;
    assert!(!token.is_empty());
    let bob = fixture.sign_up("bob@example.com", "bob", PASSWORD).await.unwrap().tokens.unwrap();
    assert_refused(
        as_(&fixture, &bob).list_sessions(request(&token)).await,
        Code::InvalidArgument,
        "PAGE_TOKEN_INVALID",
    );
    for bad in ["x", &token[1..], &format!("{token}A")] {
        let refused = as_(&fixture, &alice).list_sessions(request(bad)).await;
        assert_refused(refused, Code::InvalidArgument, "PAGE_TOKEN_INVALID");
    }
    let negative = ListSessionsRequest { page_size: -1, page_token: String::new() };
    assert_refused(as_(&fixture, &alice).list_sessions(negative).await, Code::InvalidArgument, "VALIDATION_FAILED");
}
