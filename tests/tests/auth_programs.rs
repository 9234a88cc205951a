//! Programs: service accounts and their rotating secrets, their tokens, introspection, and the rotation of signing keys.
#![expect(clippy::unwrap_used, reason = "a suite ends the test with a panic")]

mod auth_support;

use auth_support::Fixture;
use proto::auth::v1::service_account_service_client::ServiceAccountServiceClient;
use proto::auth::v1::token_service_client::TokenServiceClient;
use proto::auth::v1::user_service_client::UserServiceClient;
use proto::auth::v1::*;
use tests::{Authorized, PASSWORD, assert_refused};
use tonic::{Code, Status};

/// A service with an administrator.
struct World {
    fixture: Fixture,
    admin: String,
}

impl World {
    async fn start() -> Self {
        let fixture = Fixture::start().await;
        let admin = fixture.administrator().await.tokens.unwrap().access_token;
        Self { fixture, admin }
    }

    fn accounts(&self, access_token: &str) -> ServiceAccountServiceClient<Authorized> {
        ServiceAccountServiceClient::new(self.fixture.server.channel_with(access_token))
    }

    fn tokens(&self, access_token: &str) -> TokenServiceClient<Authorized> {
        TokenServiceClient::new(self.fixture.server.channel_with(access_token))
    }

    async fn create(&self, by: &str, name: &str, permissions: &[&str]) -> Result<CreateServiceAccountResponse, Status> {
        let permissions = permissions.iter().map(|name| (*name).to_owned()).collect();
        let request = CreateServiceAccountRequest { name: name.into(), permissions };
        Ok(self.accounts(by).create_service_account(request).await?.into_inner())
    }

    async fn rotate(&self, id: &str, overlap: Option<i64>) -> Result<RotateSecretResponse, Status> {
        let overlap = overlap.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
        let request = RotateSecretRequest { id: id.into(), overlap };
        Ok(self.accounts(&self.admin).rotate_secret(request).await?.into_inner())
    }

    async fn issue(&self, client_id: &str, client_secret: &str) -> Result<IssueServiceTokenResponse, Status> {
        let request = IssueServiceTokenRequest { client_id: client_id.into(), client_secret: client_secret.into() };
        let mut client = TokenServiceClient::new(self.fixture.server.channel());
        Ok(client.issue_service_token(request).await?.into_inner())
    }

    async fn introspect(&self, by: &str, token: &str) -> Result<IntrospectTokenResponse, Status> {
        let request = IntrospectTokenRequest { token: token.into() };
        Ok(self.tokens(by).introspect_token(request).await?.into_inner())
    }

    /// A program's token, and its account.
    async fn program(&self, name: &str, permissions: &[&str]) -> (ServiceAccount, String) {
        let made = self.create(&self.admin, name, permissions).await.unwrap();
        let token = self.issue(&made.client_id, &made.client_secret).await.unwrap().access_token;
        (made.service_account.unwrap(), token)
    }
}

fn refused<T>(answer: Result<T, Status>) {
    assert_refused(answer.map(|_| ()), Code::Unauthenticated, "CREDENTIALS_INVALID");
}

#[tokio::test]
async fn a_program_signs_in_with_its_secret_and_acts_with_its_own_permissions() {
    let world = World::start().await;
    let made = world.create(&world.admin, " Reporting ", &["users.read", "users.read", "tasks.read"]).await.unwrap();
    let account = made.service_account.unwrap();
    assert_eq!((account.name.as_str(), account.client_id.as_str()), ("Reporting", made.client_id.as_str()));
    assert_eq!(account.permissions, ["tasks.read", "users.read"]);
    assert_eq!((account.secrets.len(), account.last_used_at), (1, None));
    assert!(made.client_secret.len() >= 43, "256 bits");
    let stored = format!(
        "SELECT count(*) FROM service_account_secrets WHERE secret_hash = encode(sha256('{}'), 'hex')",
        made.client_secret
    );
    assert_eq!(world.fixture.count(&stored).await, 1, "the database has the hash alone");

    let issued = world.issue(&made.client_id, &made.client_secret).await.unwrap();
    assert_eq!((issued.token_type.as_str(), issued.expires_in), ("Bearer", 900));
    assert_eq!(issued.permissions, ["tasks.read", "users.read"]);
    let mut users = UserServiceClient::new(world.fixture.server.channel_with(&issued.access_token));
    let root = users.list_users(ListUsersRequest::default()).await.unwrap().into_inner().users.remove(0);
    let change = SetUserActiveRequest { id: root.id, is_active: false };
    assert_refused(users.set_user_active(change).await, Code::PermissionDenied, "PERMISSION_MISSING");
    // It is nobody with an account of one's own.
    assert_refused(world.fixture.me(&issued.access_token).await.map(|_| ()), Code::NotFound, "USER_NOT_FOUND");

    let listed = world.accounts(&world.admin).list_service_accounts(ListServiceAccountsRequest::default()).await;
    let listed = listed.unwrap().into_inner().service_accounts.remove(0);
    assert!(listed.last_used_at.is_some() && listed.secrets[0].last_used_at.is_some(), "{listed:?}");
    let audited = "SELECT count(*) FROM audit_events WHERE reason IS NULL AND target_type = 'SERVICE_ACCOUNT' \
        AND (actor_type, action) IN (('USER', 'SERVICE_ACCOUNT_CREATE'), ('SERVICE_ACCOUNT', 'SERVICE_TOKEN_ISSUE'))";
    assert_eq!(world.fixture.count(audited).await, 2);
}

#[tokio::test]
async fn wrong_credentials_of_a_program_have_one_answer_and_are_noted() {
    let world = World::start().await;
    let one = world.create(&world.admin, "one", &[]).await.unwrap();
    let other = world.create(&world.admin, "other", &[]).await.unwrap();
    refused(world.issue(&one.client_id, &other.client_secret).await);
    refused(world.issue(&one.client_id, "").await);
    refused(world.issue("", &one.client_secret).await);
    refused(world.issue("svc-nobody", &one.client_secret).await);
    refused(world.issue("\0", "\0").await);
    refused(world.issue(&"x".repeat(10_000), &"x".repeat(10_000)).await);
    let noted = "SELECT count(*) FROM audit_events WHERE action = 'SERVICE_TOKEN_ISSUE' AND reason = 'CREDENTIALS_INVALID' \
        AND actor_type = 'ANONYMOUS'";
    assert_eq!(world.fixture.count(noted).await, 6);
    assert_eq!(world.fixture.count(&format!("{noted} AND target_id IS NOT NULL")).await, 2);
}

#[tokio::test]
async fn a_rotated_secret_leaves_the_one_before_for_the_overlap_and_never_more_than_two() {
    let world = World::start().await;
    let made = world.create(&world.admin, "nightly", &["tasks.read"]).await.unwrap();
    let id = made.service_account.unwrap().id;
    let second = world.rotate(&id, None).await.unwrap();
    assert_eq!(
        (second.client_id.as_str(), second.service_account.as_ref().unwrap().secrets.len()),
        (made.client_id.as_str(), 2)
    );
    let day = second.previous_secret_expires_at.unwrap().seconds
        - second.service_account.unwrap().updated_at.unwrap().seconds;
    assert_eq!(day, 24 * 3600);
    world.issue(&made.client_id, &made.client_secret).await.unwrap();
    world.issue(&made.client_id, &second.client_secret).await.unwrap();

    let third = world.rotate(&id, Some(60)).await.unwrap();
    assert_eq!(third.service_account.unwrap().secrets.len(), 2);
    refused(world.issue(&made.client_id, &made.client_secret).await);
    world.issue(&made.client_id, &second.client_secret).await.unwrap();
    world.fixture.sql("UPDATE service_account_secrets SET expires_at = now() WHERE expires_at IS NOT NULL").await;
    refused(world.issue(&made.client_id, &second.client_secret).await);

    // After a leak: the one before ends at once.
    let fourth = world.rotate(&id, Some(0)).await.unwrap();
    assert_eq!((fourth.service_account.unwrap().secrets.len(), fourth.previous_secret_expires_at), (1, None));
    refused(world.issue(&made.client_id, &third.client_secret).await);
    world.issue(&made.client_id, &fourth.client_secret).await.unwrap();

    // Two who rotate at once come one after the other.
    let (one, other) = tokio::join!(world.rotate(&id, Some(60)), world.rotate(&id, Some(60)));
    let good = [one.unwrap().client_secret, other.unwrap().client_secret];
    for secret in &good {
        world.issue(&made.client_id, secret).await.unwrap();
    }
    assert_eq!(world.fixture.count("SELECT count(*) FROM service_account_secrets").await, 2);

    for overlap in [-1, 31 * 24 * 3600] {
        let bad = assert_refused(world.rotate(&id, Some(overlap)).await, Code::InvalidArgument, "VALIDATION_FAILED");
        assert_eq!(bad.fields, ["overlap"]);
    }
    let nobody = uuid::Uuid::new_v4().to_string();
    assert_refused(world.rotate(&nobody, None).await, Code::NotFound, "SERVICE_ACCOUNT_NOT_FOUND");
}

/// Attack: who has a program's token goes on after the secret behind it was ended.
#[tokio::test]
async fn a_token_of_a_secret_that_was_ended_is_void_at_once() {
    let world = World::start().await;
    let made = world.create(&world.admin, "leaky", &["users.read"]).await.unwrap();
    let id = made.service_account.unwrap().id;
    let token = world.issue(&made.client_id, &made.client_secret).await.unwrap().access_token;
    let stats = async |token: &str| {
        let mut users = UserServiceClient::new(world.fixture.server.channel_with(token));
        users.get_user_stats(GetUserStatsRequest {}).await.map(|_| ())
    };
    stats(&token).await.unwrap();
    // With an overlap the old secret counts, and so does what it was good for.
    let second = world.rotate(&id, Some(60)).await.unwrap();
    stats(&token).await.unwrap();
    world.rotate(&id, Some(0)).await.unwrap();
    assert_refused(stats(&token).await, Code::Unauthenticated, "TOKEN_REVOKED");
    assert_eq!(world.introspect(&world.admin, &token).await.unwrap(), IntrospectTokenResponse::default());
    refused(world.issue(&made.client_id, &second.client_secret).await);
    let third = world.rotate(&id, Some(60)).await.unwrap();
    let token = world.issue(&made.client_id, &third.client_secret).await.unwrap().access_token;
    stats(&token).await.unwrap();
    assert!(world.introspect(&world.admin, &token).await.unwrap().active);
    // A third secret ends the first, which was still good: so do its tokens, whatever the overlap.
    world.rotate(&id, Some(60)).await.unwrap();
    assert_refused(stats(&token).await, Code::Unauthenticated, "TOKEN_REVOKED");
    let token = world.issue(&made.client_id, &third.client_secret).await.unwrap().access_token;
    stats(&token).await.unwrap();
}

/// Attack: a program is made, or a secret taken, to get permissions that one does not hold.
#[tokio::test]
async fn nobody_gives_or_takes_what_they_do_not_hold() {
    let world = World::start().await;
    let (strong, _) = world.program("strong", &["users.write"]).await;
    let (_, maker) = world.program("maker", &["service_accounts.write", "tasks.read"]).await;
    world.create(&maker, "weaker", &["tasks.read"]).await.unwrap();
    let beyond = world.create(&maker, "stronger", &["tasks.read", "users.write"]).await;
    assert_refused(beyond, Code::PermissionDenied, "PERMISSION_MISSING");
    let request = RotateSecretRequest { id: strong.id, overlap: None };
    let taken = world.accounts(&maker).rotate_secret(request).await;
    assert_refused(taken, Code::PermissionDenied, "PERMISSION_MISSING");

    let taken = assert_refused(
        world.create(&world.admin, "strong", &[]).await,
        Code::AlreadyExists,
        "SERVICE_ACCOUNT_NAME_TAKEN",
    );
    assert_eq!(taken.fields, ["name"]);
    for (name, permissions, field) in
        [("", &[][..], "name"), ("a\nb", &[], "name"), ("x", &["nothing"], "permissions[0]")]
    {
        let bad = assert_refused(
            world.create(&world.admin, name, permissions).await,
            Code::InvalidArgument,
            "VALIDATION_FAILED",
        );
        assert_eq!(bad.fields, [field]);
    }
    let (_, member) = {
        let made = world.fixture.sign_up("bob@example.com", "bob", PASSWORD).await.unwrap();
        (made.user, made.tokens.unwrap().access_token)
    };
    assert_refused(world.create(&member, "x", &[]).await, Code::PermissionDenied, "PERMISSION_MISSING");
}

#[tokio::test]
async fn a_deleted_program_is_refused_at_once() {
    let world = World::start().await;
    let (account, token) = world.program("gone", &["users.read"]).await;
    let mut users = UserServiceClient::new(world.fixture.server.channel_with(&token));
    users.get_user_stats(GetUserStatsRequest {}).await.unwrap();
    let delete = DeleteServiceAccountRequest { id: account.id.clone() };
    world.accounts(&world.admin).delete_service_account(delete.clone()).await.unwrap();
    assert_refused(users.get_user_stats(GetUserStatsRequest {}).await, Code::Unauthenticated, "TOKEN_REVOKED");
    let again = world.accounts(&world.admin).delete_service_account(delete).await;
    assert_refused(again, Code::NotFound, "SERVICE_ACCOUNT_NOT_FOUND");
    assert_eq!(world.fixture.count("SELECT count(*) FROM service_account_secrets").await, 0);
}

#[tokio::test]
async fn service_accounts_are_listed_page_by_page() {
    let world = World::start().await;
    for n in 0..7 {
        world.create(&world.admin, &format!("program {n}"), &[]).await.unwrap();
    }
    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListServiceAccountsRequest { page_size: 3, page_token };
        let page = world.accounts(&world.admin).list_service_accounts(request).await.unwrap().into_inner();
        assert!(page.service_accounts.len() <= 3);
        names.extend(page.service_accounts.into_iter().map(|account| account.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, (0..7).map(|n| format!("program {n}")).collect::<Vec<_>>());
    let request = ListServiceAccountsRequest { page_size: 3, page_token: "x".into() };
    let answer = world.accounts(&world.admin).list_service_accounts(request).await;
    assert_refused(answer, Code::InvalidArgument, "PAGE_TOKEN_INVALID");
}

/// A token that is dead for whatever reason has one answer, with nothing of the token in it.
#[tokio::test]
async fn introspection_tells_a_good_token_whole_and_a_dead_one_not_at_all() {
    let world = World::start().await;
    let (_, asker) = world.program("gateway", &["tokens.introspect"]).await;
    let made = world.fixture.sign_up("alice@example.com", "alice", PASSWORD).await.unwrap();
    let (alice, tokens) = (made.user.unwrap(), made.tokens.unwrap());
    let good = world.introspect(&asker, &tokens.access_token).await.unwrap();
    let principal = good.principal.clone().unwrap();
    assert!(good.active);
    assert_eq!((principal.r#type(), principal.id.as_str()), (PrincipalType::User, alice.id.as_str()));
    assert_eq!(good.role, "member");
    assert!(!good.session_id.is_empty() && !good.token_id.is_empty());
    assert_eq!(good.expires_at.unwrap().seconds - good.issued_at.unwrap().seconds, 900);
    let program = world.introspect(&asker, &asker).await.unwrap();
    assert_eq!(program.principal.unwrap().r#type(), PrincipalType::ServiceAccount);
    assert_eq!((program.role.as_str(), program.session_id.as_str()), ("", ""));
    assert_eq!(program.permissions, ["tokens.introspect"]);

    let nothing = IntrospectTokenResponse::default();
    let (head, rest) = tokens.access_token.split_once('.').unwrap();
    let forged = format!("{head}.{}", rest.replacen('a', "b", 1));
    for dead in ["", "x", "a.b.c", &tokens.refresh_token, &forged, &"x".repeat(10_000)] {
        assert_eq!(world.introspect(&asker, dead).await.unwrap(), nothing, "{dead}");
    }
    // A changed role, an ended session, a deactivated account, a deleted program.
    let set = async |sql: &str| world.fixture.sql(sql).await;
    set("UPDATE users SET role_id = (SELECT id FROM roles WHERE name = 'admin') WHERE username = 'alice'").await;
    assert_eq!(world.introspect(&asker, &tokens.access_token).await.unwrap(), nothing);
    set("UPDATE users SET role_id = (SELECT id FROM roles WHERE name = 'member') WHERE username = 'alice'").await;
    assert_eq!(world.introspect(&asker, &tokens.access_token).await.unwrap(), good);
    set("UPDATE users SET is_active = false WHERE username = 'alice'").await;
    assert_eq!(world.introspect(&asker, &tokens.access_token).await.unwrap(), nothing);
    set("UPDATE users SET is_active = true WHERE username = 'alice'").await;
    world.fixture.sign_out(&tokens.refresh_token).await.unwrap();
    assert_eq!(world.introspect(&asker, &tokens.access_token).await.unwrap(), nothing);
    let (other, token) = world.program("other", &["tasks.read"]).await;
    assert!(world.introspect(&asker, &token).await.unwrap().active);
    set("DELETE FROM service_account_permissions WHERE permission = 'tasks.read'").await;
    assert_eq!(world.introspect(&asker, &token).await.unwrap(), nothing);
    set(&format!("DELETE FROM service_accounts WHERE id = '{}'", other.id)).await;
    assert_eq!(world.introspect(&asker, &token).await.unwrap(), nothing);

    // The asker needs the permission, now.
    assert_refused(world.introspect(&token, &asker).await, Code::PermissionDenied, "PERMISSION_MISSING");
    set("DELETE FROM service_account_permissions WHERE permission = 'tokens.introspect'").await;
    assert_refused(world.introspect(&asker, &asker).await, Code::PermissionDenied, "PERMISSION_MISSING");
}

#[tokio::test]
async fn a_rotated_signing_key_is_published_before_it_signs() {
    let world = World::start().await;
    let mut client = world.tokens(&world.admin);
    let before = client.list_signing_keys(ListSigningKeysRequest {}).await.unwrap().into_inner().keys;
    let key = client.rotate_signing_key(RotateSigningKeyRequest {}).await.unwrap().into_inner().key.unwrap();
    assert_eq!(key.state(), SigningKeyState::Published);
    assert_ne!(key.kid, before[0].kid);
    let in_seconds = key.signs_from.unwrap().seconds - chrono::Utc::now().timestamp();
    assert!((280..=300).contains(&in_seconds), "{in_seconds}");
    // Good tokens stay good.
    world.introspect(&world.admin, &world.admin).await.unwrap();
    let audited = format!(
        "SELECT count(*) FROM audit_events WHERE action = 'SIGNING_KEY_ROTATE' AND target_type = 'SIGNING_KEY' AND target_id = '{}'",
        key.kid
    );
    assert_eq!(world.fixture.count(&audited).await, 1);
    let (_, program) = world.program("x", &["users.read"]).await;
    let refusal = world.tokens(&program).rotate_signing_key(RotateSigningKeyRequest {}).await;
    assert_refused(refusal, Code::PermissionDenied, "PERMISSION_MISSING");
}
