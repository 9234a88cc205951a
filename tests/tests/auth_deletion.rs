//! Deleting accounts: by their owners and by administrators, and what becomes of their tasks whichever service is down.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a suite ends the test with a panic")]

mod auth_support;

use std::time::{Duration, Instant};

use auth_support::CHEAP_HASHES;
use proto::auth::v1::user_service_client::UserServiceClient;
use proto::auth::v1::*;
use proto::task::v1::ownership_service_client::OwnershipServiceClient;
use proto::task::v1::{CreateTaskRequest, PurgeUserTasksRequest};
use tests::{Account, Authorized, PASSWORD, Pair, TestDatabase, assert_refused};
use tokio_postgres::Client;
use tonic::{Code, Status};

/// Both services, each with its database.
struct World {
    pair: Pair,
    accounts: Client,
    tasks: Client,
}

impl World {
    async fn start() -> Self {
        let pair = Pair::start_with(CHEAP_HASHES, &[]).await;
        let accounts = pair.auth_database.client().await;
        let tasks = pair.task_database.as_ref().unwrap().client().await;
        Self { pair, accounts, tasks }
    }

    fn users(&self, by: &Account) -> UserServiceClient<Authorized> {
        UserServiceClient::new(self.pair.auth.channel_with(by.access_token()))
    }

    async fn delete_me(&self, who: &Account, password: &str) -> Result<(), Status> {
        let request = DeleteMeRequest { password: password.into() };
        self.pair.auth_as(who).delete_me(request).await.map(|_| ())
    }

    async fn delete_user(&self, by: &Account, id: &str) -> Result<(), Status> {
        self.users(by).delete_user(DeleteUserRequest { id: id.into() }).await.map(|_| ())
    }

    async fn task(&self, of: &Account) {
        let request = CreateTaskRequest { title: "water the plants".into(), ..Default::default() };
        self.pair.tasks(of).create_task(request).await.unwrap();
    }

    /// Tasks of an account by SQL, many at once, of which some are deleted.
    async fn heap_of_tasks(&self, of: &Account, count: u32) {
        let heap = format!(
            "INSERT INTO tasks (id, user_id, title, deleted_at) SELECT gen_random_uuid(), '{}', 'task', \
             CASE WHEN n % 3 = 0 THEN now() END FROM generate_series(1, {count}) n",
            of.id()
        );
        self.tasks.batch_execute(&heap).await.unwrap();
    }

    async fn tasks_of(&self, id: &str) -> i64 {
        number(&self.tasks, &format!("SELECT count(*) FROM tasks WHERE user_id = '{id}'")).await
    }

    async fn gone(&self, id: &str) {
        let query = format!("SELECT count(*) FROM tasks WHERE user_id = '{id}'");
        becomes(&self.tasks, &query, 0).await;
    }
}

async fn number(client: &Client, query: &str) -> i64 {
    client.query_one(query, &[]).await.unwrap_or_else(|error| panic!("{error:?}: {query}")).get(0)
}

async fn becomes(client: &Client, query: &str, wanted: i64) {
    let until = Instant::now() + Duration::from_secs(60);
    while Instant::now() < until {
        if number(client, query).await == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{query}: still {}, expected {wanted}", number(client, query).await);
}

#[tokio::test]
async fn the_owner_deletes_the_account_with_the_password_and_everything_goes() {
    let world = World::start().await;
    let (ann, bob) = (world.pair.sign_up("ann").await, world.pair.sign_up("bob").await);
    world.task(&ann).await;
    world.task(&bob).await;
    assert_refused(world.delete_me(&ann, "wrong").await, Code::Unauthenticated, "CREDENTIALS_INVALID");
    assert_refused(world.delete_me(&ann, "").await, Code::Unauthenticated, "CREDENTIALS_INVALID");
    world.delete_me(&ann, PASSWORD).await.unwrap();

    // At once: the session, the tokens, the sign-in.
    assert_refused(world.delete_me(&ann, PASSWORD).await, Code::Unauthenticated, "TOKEN_REVOKED");
    assert_refused(world.pair.auth_as(&ann).get_me(GetMeRequest {}).await, Code::Unauthenticated, "TOKEN_REVOKED");
    let user = Some(User { username: "ann2".into(), ..Default::default() });
    let mut me = world.pair.auth_as(&ann);
    let change = UpdateMeRequest { user, update_mask: None };
    assert_refused(me.update_me(change).await, Code::Unauthenticated, "TOKEN_REVOKED");
    assert_refused(me.sign_out_all(SignOutAllRequest {}).await, Code::Unauthenticated, "TOKEN_REVOKED");
    let mail = me.request_email_verification(RequestEmailVerificationRequest {}).await;
    assert_refused(mail, Code::Unauthenticated, "TOKEN_REVOKED");
    let change = ChangePasswordRequest { current_password: PASSWORD.into(), new_password: "another zebra 5".into() };
    assert_refused(me.change_password(change).await, Code::Unauthenticated, "TOKEN_REVOKED");
    let refresh = RefreshTokenRequest { refresh_token: ann.tokens.refresh_token.clone() };
    let refreshed = world.pair.auth().refresh_token(refresh).await;
    assert_refused(refreshed, Code::Unauthenticated, "REFRESH_TOKEN_INVALID");
    let sign_in = SignInRequest { login: "ann".into(), password: PASSWORD.into() };
    assert_refused(world.pair.auth().sign_in(sign_in).await, Code::Unauthenticated, "CREDENTIALS_INVALID");
    // Soon: the tasks, and nobody else's.
    world.gone(ann.id()).await;
    assert_eq!(world.tasks_of(bob.id()).await, 1);

    let left =
        "SELECT (SELECT count(*) FROM users) + (SELECT count(*) FROM sessions) + (SELECT count(*) FROM refresh_tokens)";
    assert_eq!(number(&world.accounts, left).await, 3, "Bob's account, session and token");
    // Who did it stays in the audit trail, which has no address and no name.
    let events =
        format!("SELECT count(*) FROM audit_events WHERE action = 'ACCOUNT_DELETE' AND target_id = '{}'", ann.id());
    assert_eq!(number(&world.accounts, &events).await, 3, "two refusals and the deletion");
    // Her failures before are forgotten; those of the login that nobody has any more are counted, here and overall.
    assert_eq!(number(&world.accounts, "SELECT count(*) FROM sign_in_throttles").await, 2);
    // The name is free.
    let again = world.pair.sign_up("ann").await;
    assert_ne!(again.id(), ann.id());
}

/// The legacy system deleted everybody's reset tokens with one account.
#[tokio::test]
async fn one_deleted_account_takes_nobody_elses_tokens_along() {
    let world = World::start().await;
    let (ann, bob) = (world.pair.sign_up("ann").await, world.pair.sign_up("bob").await);
    for account in [&ann, &bob] {
        let reset = format!(
            "INSERT INTO password_reset_tokens (id, user_id, token_hash, expires_at, hash_algorithm) \
             VALUES (gen_random_uuid(), '{0}', '{0}', now() + '1 hour'::interval, 'sha256')",
            account.id()
        );
        world.accounts.batch_execute(&reset).await.unwrap();
    }
    world.delete_me(&ann, PASSWORD).await.unwrap();
    let left = format!("SELECT count(*) FROM password_reset_tokens WHERE user_id = '{}' AND NOT is_used", bob.id());
    assert_eq!(number(&world.accounts, &left).await, 1);
    assert_eq!(number(&world.accounts, "SELECT count(*) FROM password_reset_tokens").await, 1);
    let refresh = RefreshTokenRequest { refresh_token: bob.tokens.refresh_token.clone() };
    world.pair.auth().refresh_token(refresh).await.unwrap();
}

#[tokio::test]
async fn administrators_delete_accounts_but_not_the_last_administrator() {
    let world = World::start().await;
    let root = world.pair.administrator().await;
    let (ann, bob) = (world.pair.sign_up("ann").await, world.pair.sign_up("bob").await);
    world.task(&ann).await;
    assert_refused(world.delete_user(&bob, ann.id()).await, Code::PermissionDenied, "PERMISSION_MISSING");
    assert_refused(world.delete_user(&root, "ann").await, Code::InvalidArgument, "VALIDATION_FAILED");
    world.delete_user(&root, ann.id()).await.unwrap();
    assert_refused(world.delete_user(&root, ann.id()).await, Code::NotFound, "USER_NOT_FOUND");
    assert_refused(world.pair.auth_as(&ann).get_me(GetMeRequest {}).await, Code::Unauthenticated, "TOKEN_REVOKED");
    world.gone(ann.id()).await;

    assert_refused(world.delete_user(&root, root.id()).await, Code::FailedPrecondition, "LAST_ADMINISTRATOR");
    assert_refused(world.delete_me(&root, PASSWORD).await, Code::FailedPrecondition, "LAST_ADMINISTRATOR");
    world.accounts.batch_execute("UPDATE users SET is_active = false WHERE username = 'bob'").await.unwrap();
    let request = AssignRoleRequest { user_id: bob.id().into(), role: "admin".into() };
    world.users(&root).assign_role(request).await.unwrap();
    // An inactive administrator is none.
    assert_refused(world.delete_me(&root, PASSWORD).await, Code::FailedPrecondition, "LAST_ADMINISTRATOR");
    world.delete_user(&root, bob.id()).await.unwrap();
}

#[tokio::test]
async fn two_administrators_that_delete_each_other_leave_one() {
    let world = World::start().await;
    let root = world.pair.administrator().await;
    for round in 0..8 {
        let name = format!("deputy{round}");
        let deputy = world.pair.sign_up(&name).await;
        let request = AssignRoleRequest { user_id: deputy.id().into(), role: "admin".into() };
        world.users(&root).assign_role(request).await.unwrap();
        let deputy = world.pair.sign_in(&name, PASSWORD).await;
        let (one, other) = tokio::join!(world.delete_user(&root, deputy.id()), world.delete_user(&deputy, root.id()));
        let remaining = "SELECT count(*) FROM users JOIN roles ON roles.id = role_id WHERE roles.name = 'admin'";
        assert_eq!(number(&world.accounts, remaining).await, 1, "{one:?} {other:?}");
        if one.is_err() {
            // The deputy won: enough was seen.
            assert_refused(one, Code::Unauthenticated, "TOKEN_REVOKED");
            return;
        }
        assert_refused(other, Code::Unauthenticated, "TOKEN_REVOKED");
    }
}

#[tokio::test]
async fn the_tasks_go_when_the_task_service_comes_back() {
    let mut world = World::start().await;
    let ann = world.pair.sign_up("ann").await;
    world.task(&ann).await;
    world.pair.task.kill();
    world.delete_me(&ann, PASSWORD).await.unwrap();
    world.pair.auth.wait_for_log(|line| line.contains("are not purged yet")).await;
    let failed = "SELECT count(*) FROM user_deletions WHERE attempts > 0";
    becomes(&world.accounts, failed, 1).await;
    assert_eq!(world.tasks_of(ann.id()).await, 1);
    world.pair.restart_task(&[]).await;
    world.gone(ann.id()).await;
}

#[tokio::test]
async fn the_tasks_go_when_the_auth_service_is_killed_after_the_answer() {
    let mut world = World::start().await;
    let ann = world.pair.sign_up("ann").await;
    world.heap_of_tasks(&ann, 3_000).await;
    // The task service is away meanwhile, so that nothing can be purged before the kill.
    world.pair.task.kill();
    world.delete_me(&ann, PASSWORD).await.unwrap();
    world.pair.auth.kill();
    // Whoever claimed the row is dead: its lease ends.
    world.accounts.batch_execute("UPDATE user_deletions SET next_attempt_at = now()").await.unwrap();
    world.pair.restart_auth(CHEAP_HASHES).await;
    world.pair.restart_task(&[]).await;
    world.gone(ann.id()).await;
}

#[tokio::test]
async fn a_purge_that_is_killed_on_the_way_goes_on() {
    let mut world = World::start().await;
    let (ann, bob) = (world.pair.sign_up("ann").await, world.pair.sign_up("bob").await);
    world.heap_of_tasks(&ann, 40_000).await;
    world.heap_of_tasks(&bob, 10).await;
    world.delete_me(&ann, PASSWORD).await.unwrap();
    let mut seen_halfway = 0;
    for _ in 0..3 {
        let until = Instant::now() + Duration::from_secs(20);
        let before = world.tasks_of(ann.id()).await;
        while Instant::now() < until && world.tasks_of(ann.id()).await == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        world.pair.task.kill();
        seen_halfway += i64::from((1..40_000).contains(&world.tasks_of(ann.id()).await));
        world.pair.restart_task(&[]).await;
    }
    assert!(seen_halfway > 0, "no kill came in the middle: more tasks are needed");
    world.gone(ann.id()).await;
    assert_eq!(world.tasks_of(bob.id()).await, 10);
}

#[tokio::test]
async fn what_is_made_with_a_token_that_is_still_good_elsewhere_goes_with_the_last_purge() {
    let world = World::start().await;
    let ann = world.pair.sign_up("ann").await;
    world.delete_me(&ann, PASSWORD).await.unwrap();
    becomes(
        &world.accounts,
        "SELECT count(*) FROM user_deletions WHERE next_attempt_at > now() + '10min'::interval",
        1,
    )
    .await;
    world.heap_of_tasks(&ann, 5).await;
    assert_eq!(world.tasks_of(ann.id()).await, 5);
    // Time passes.
    let later = "UPDATE user_deletions SET deleted_at = deleted_at - '2 days'::interval, next_attempt_at = now()";
    world.accounts.batch_execute(later).await.unwrap();
    world.gone(ann.id()).await;
    becomes(&world.accounts, "SELECT count(*) FROM user_deletions", 0).await;
}

#[tokio::test]
async fn a_purge_is_for_administrators_and_can_be_repeated() {
    let world = World::start().await;
    let (root, ann) = (world.pair.administrator().await, world.pair.sign_up("ann").await);
    world.heap_of_tasks(&ann, 2_500).await;
    let purge = async |by: &Account, user_id: &str| {
        let mut client = OwnershipServiceClient::new(world.pair.task.channel_with(by.access_token()));
        let answer = client.purge_user_tasks(PurgeUserTasksRequest { user_id: user_id.into() }).await;
        answer.map(|answer| answer.into_inner().task_count)
    };
    assert_refused(purge(&ann, ann.id()).await, Code::PermissionDenied, "PERMISSION_MISSING");
    for bad in ["", "ann", "00000000-0000-0000-0000-000000000000"] {
        let refusal = assert_refused(purge(&root, bad).await, Code::InvalidArgument, "VALIDATION_FAILED");
        assert_eq!(refusal.fields, ["user_id"], "{bad}");
    }
    assert_eq!(purge(&root, ann.id()).await.unwrap(), 2_500);
    assert_eq!(purge(&root, ann.id()).await.unwrap(), 0);
}

#[tokio::test]
async fn a_shared_database_is_purged_alike() {
    let database = TestDatabase::migrated_both().await;
    let pair = Pair::start_on(database, None, CHEAP_HASHES, &[]).await;
    let client = pair.auth_database.client().await;
    let ann = pair.sign_up("ann").await;
    let request = CreateTaskRequest { title: "water the plants".into(), ..Default::default() };
    pair.tasks(&ann).create_task(request).await.unwrap();
    pair.auth_as(&ann).delete_me(DeleteMeRequest { password: PASSWORD.into() }).await.unwrap();
    becomes(&client, "SELECT count(*) FROM tasks", 0).await;
}
