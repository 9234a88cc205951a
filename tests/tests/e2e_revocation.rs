//! Revocations that arrive: every way to void a token, told by WatchRevocations and refused by the task service, and what happens
//! while the stream is dead.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a suite ends the test with a panic")]

mod auth_support;

use std::time::{Duration, Instant};

use auth_support::CHEAP_HASHES;
use proto::auth::v1::role_service_client::RoleServiceClient;
use proto::auth::v1::service_account_service_client::ServiceAccountServiceClient;
use proto::auth::v1::token_service_client::TokenServiceClient;
use proto::auth::v1::user_service_client::UserServiceClient;
use proto::auth::v1::watch_revocations_response::Event;
use proto::auth::v1::*;
use proto::task::v1::task_service_client::TaskServiceClient;
use proto::task::v1::{CreateTaskRequest, ListTasksRequest, WatchTasksRequest};
use tests::{Account, AuthServer, Authorized, PASSWORD, Pair, Refusal, Service, TestDatabase, assert_refused};
use tests::{http_get, run_program};
use tonic::{Code, Status, Streaming};

/// As `openssl rand -base64 32` makes them.
const SECRET: &str = "q1hT0pZ8mK3vB5nX7cL9wR2yU4iO6aS8dF0gH1jK3lM=";
const WATCHER: [(&str, &str); 2] = [("AUTH_CLIENT_ID", "task-service"), ("AUTH_CLIENT_SECRET", SECRET)];
/// Generous: how fast it really is says `cargo bench --profile dev -p tests --bench revocation`.
const ARRIVES: Duration = Duration::from_secs(10);

/// Both services, with a task service that follows revocations.
struct World {
    pair: Pair,
    root: Account,
}

impl World {
    async fn start() -> Self {
        let database = TestDatabase::migrated_auth().await;
        watcher_make(&database).await;
        let tasks = TestDatabase::migrated_task().await;
        let pair = Pair::start_on(database, Some(tasks), CHEAP_HASHES, &WATCHER).await;
        let root = pair.administrator().await;
        Self { pair, root }
    }

    fn users(&self) -> UserServiceClient<Authorized> {
        UserServiceClient::new(self.pair.auth.channel_with(self.root.access_token()))
    }

    fn roles(&self) -> RoleServiceClient<Authorized> {
        RoleServiceClient::new(self.pair.auth.channel_with(self.root.access_token()))
    }

    fn programs(&self) -> ServiceAccountServiceClient<Authorized> {
        ServiceAccountServiceClient::new(self.pair.auth.channel_with(self.root.access_token()))
    }

    async fn tasks(&self, access_token: &str) -> Result<(), Status> {
        let mut client = TaskServiceClient::new(self.pair.task.channel_with(access_token));
        client.list_tasks(ListTasksRequest::default()).await.map(|_| ())
    }

    async fn create(&self, access_token: &str) -> Result<(), Status> {
        let mut client = TaskServiceClient::new(self.pair.task.channel_with(access_token));
        let request = CreateTaskRequest { title: "water the plants".into(), ..Default::default() };
        client.create_task(request).await.map(|_| ())
    }

    /// The task service comes to refuse the token.
    async fn refused(&self, what: &str, access_token: &str) {
        let until = Instant::now() + ARRIVES;
        loop {
            match self.tasks(access_token).await {
                Err(status) => {
                    assert_refused::<()>(Err(status), Code::Unauthenticated, "TOKEN_REVOKED");
                    return;
                }
                Ok(()) if Instant::now() > until => panic!("{what}: the token is still good"),
                Ok(()) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn role(&self, name: &str) -> Role {
        let request = CreateRoleRequest {
            name: name.into(),
            display_name: name.into(),
            permissions: vec!["tasks.read".into(), "audit.read".into()],
            ..Default::default()
        };
        self.roles().create_role(request).await.unwrap().into_inner().role.unwrap()
    }

    async fn assign(&self, of: &Account, role: &str) {
        let request = AssignRoleRequest { user_id: of.id().into(), role: role.into() };
        self.users().assign_role(request).await.unwrap();
    }

    /// Somebody with a role of this name.
    async fn with_role(&self, name: &str) -> (Account, Role) {
        let role = self.role(name).await;
        let account = self.pair.sign_up(&format!("{name}-holder")).await;
        self.assign(&account, name).await;
        (self.pair.sign_in(&account.user.username, PASSWORD).await, role)
    }

    async fn role_update(&self, role: Role, field: &str) {
        let update_mask = Some(prost_types::FieldMask { paths: vec![field.into()] });
        self.roles().update_role(UpdateRoleRequest { role: Some(role), update_mask }).await.unwrap();
    }

    async fn watcher_token(&self) -> String {
        let request = IssueServiceTokenRequest { client_id: WATCHER[0].1.into(), client_secret: SECRET.into() };
        let mut client = TokenServiceClient::new(self.pair.auth.channel());
        client.issue_service_token(request).await.unwrap().into_inner().access_token
    }

    async fn watch(&self, access_token: &str, after_revision: i64) -> Result<Stream, Status> {
        let mut client = TokenServiceClient::new(self.pair.auth.channel_with(access_token));
        Ok(client.watch_revocations(WatchRevocationsRequest { after_revision }).await?.into_inner())
    }
}

type Stream = Streaming<WatchRevocationsResponse>;

async fn watcher_make(database: &TestDatabase) {
    let url = database.runtime_url();
    let arguments = [
        "admin",
        "service-account",
        "--client-id",
        "task-service",
        "--permission",
        "tokens.introspect",
        "--secret-stdin",
    ];
    let run = run_program(Service::Auth, &arguments, &[("DATABASE_URL", &url)], SECRET).await;
    assert_eq!(run.code, 0, "{run:#?}");
}

async fn next(stream: &mut Stream) -> (i64, Event) {
    let message = tokio::time::timeout(Duration::from_secs(20), stream.message()).await.expect("a message in time");
    let message = message.unwrap().expect("the stream goes on");
    (message.revision, message.event.unwrap())
}

#[tokio::test]
async fn whatever_voids_a_token_is_refused_by_the_task_service() {
    let world = World::start().await;
    let pair = &world.pair;
    let me = async |name: &str| {
        let account = pair.sign_up(name).await;
        world.tasks(account.access_token()).await.unwrap();
        account
    };

    let account = me("sign-out").await;
    pair.auth().sign_out(SignOutRequest { refresh_token: account.tokens.refresh_token.clone() }).await.unwrap();
    world.refused("SignOut", account.access_token()).await;

    let account = me("sign-out-all").await;
    let other = pair.sign_in("sign-out-all", PASSWORD).await;
    pair.auth_as(&account).sign_out_all(SignOutAllRequest {}).await.unwrap();
    world.refused("SignOutAll", account.access_token()).await;
    world.refused("SignOutAll, the other session", other.access_token()).await;

    let account = me("revoke-session").await;
    let other = pair.sign_in("revoke-session", PASSWORD).await;
    let sessions = pair.auth_as(&account).list_sessions(ListSessionsRequest::default()).await.unwrap().into_inner();
    let session_id = sessions.sessions.iter().find(|session| !session.is_current).unwrap().id.clone();
    pair.auth_as(&account).revoke_session(RevokeSessionRequest { session_id }).await.unwrap();
    world.refused("RevokeSession", other.access_token()).await;
    world.tasks(account.access_token()).await.unwrap();

    let account = me("change-password").await;
    let new_password = "another zebra 5 battery staple";
    let request = ChangePasswordRequest { current_password: PASSWORD.into(), new_password: new_password.into() };
    pair.auth_as(&account).change_password(request).await.unwrap();
    // The very same second: the new token is good, the old one is not.
    let fresh = pair.sign_in("change-password", new_password).await;
    world.refused("ChangePassword", account.access_token()).await;
    world.tasks(fresh.access_token()).await.unwrap();

    let account = me("deactivate").await;
    world.users().set_user_active(SetUserActiveRequest { id: account.id().into(), is_active: false }).await.unwrap();
    world.refused("SetUserActive", account.access_token()).await;

    let account = me("assign-role").await;
    world.assign(&account, "admin").await;
    world.refused("AssignRole", account.access_token()).await;
    // The session goes on: a refresh gives a token with the new role.
    let request = RefreshTokenRequest { refresh_token: account.tokens.refresh_token.clone() };
    let tokens = pair.auth().refresh_token(request).await.unwrap().into_inner().tokens.unwrap();
    world.tasks(&tokens.access_token).await.unwrap();

    let account = me("delete-me").await;
    pair.auth_as(&account).delete_me(DeleteMeRequest { password: PASSWORD.into() }).await.unwrap();
    world.refused("DeleteMe", account.access_token()).await;

    let account = me("delete-user").await;
    world.users().delete_user(DeleteUserRequest { id: account.id().into() }).await.unwrap();
    world.refused("DeleteUser", account.access_token()).await;

    let account = me("reuse").await;
    let refresh =
        async |token: &str| pair.auth().refresh_token(RefreshTokenRequest { refresh_token: token.into() }).await;
    let second = refresh(&account.tokens.refresh_token).await.unwrap().into_inner().tokens.unwrap();
    refresh(&second.refresh_token).await.unwrap();
    assert!(refresh(&account.tokens.refresh_token).await.is_err());
    world.refused("reuse of a refresh token", &second.access_token).await;

    let account = me("bootstrap").await;
    let url = pair.auth_database.runtime_url();
    let reset = ["admin", "bootstrap", "--email", "bootstrap@example.com", "--password-stdin", "--reset"];
    let run = run_program(Service::Auth, &reset, &[("DATABASE_URL", &url)], new_password).await;
    assert_eq!(run.code, 0, "{run:#?}");
    world.refused("admin bootstrap --reset", account.access_token()).await;
}

#[tokio::test]
async fn a_changed_role_voids_the_tokens_of_its_holders() {
    let world = World::start().await;
    for field in ["permissions", "is_active", "name"] {
        let (holder, mut role) = world.with_role(&field.replace('_', "-")).await;
        world.tasks(holder.access_token()).await.unwrap();
        world.role_update(Role { display_name: "Another".into(), ..role.clone() }, "display_name").await;
        world.tasks(holder.access_token()).await.unwrap();
        role.permissions = vec!["audit.read".into()];
        role.is_active = false;
        role.name = format!("{}-renamed", role.name);
        world.role_update(role, field).await;
        world.refused(field, holder.access_token()).await;
        // At the auth service itself at once.
        let me = world.pair.auth_as(&holder).get_me(GetMeRequest {}).await;
        assert_refused(me, Code::Unauthenticated, "TOKEN_REVOKED");
        let request = RefreshTokenRequest { refresh_token: holder.tokens.refresh_token.clone() };
        let tokens = world.pair.auth().refresh_token(request).await.unwrap().into_inner().tokens.unwrap();
        world.tasks(&tokens.access_token).await.unwrap();
    }
}

#[tokio::test]
async fn a_deleted_service_account_is_refused() {
    let world = World::start().await;
    let request = CreateServiceAccountRequest { name: "reporting".into(), permissions: vec!["tasks.read".into()] };
    let made = world.programs().create_service_account(request).await.unwrap().into_inner();
    let id = made.service_account.unwrap().id;
    let request = IssueServiceTokenRequest { client_id: made.client_id, client_secret: made.client_secret };
    let issued = TokenServiceClient::new(world.pair.auth.channel()).issue_service_token(request).await.unwrap();
    let token = issued.into_inner().access_token;
    world.tasks(&token).await.unwrap();
    world.programs().delete_service_account(DeleteServiceAccountRequest { id }).await.unwrap();
    world.refused("DeleteServiceAccount", &token).await;
}

/// Attack: open a stream of tasks before the session is ended, and go on reading.
#[tokio::test]
async fn a_watch_of_tasks_ends_with_the_session() {
    let world = World::start().await;
    let ann = world.pair.sign_up("ann").await;
    let mut tasks = TaskServiceClient::new(world.pair.task.channel_with(ann.access_token()));
    let mut stream = tasks.watch_tasks(WatchTasksRequest::default()).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    world.pair.auth_as(&ann).sign_out_all(SignOutAllRequest {}).await.unwrap();
    let ended = async {
        loop {
            if let Err(status) = stream.message().await {
                return status;
            }
        }
    };
    let status = tokio::time::timeout(ARRIVES, ended).await.expect("the stream goes on after the session has ended");
    assert_refused::<()>(Err(status), Code::Unauthenticated, "TOKEN_REVOKED");
}

#[tokio::test]
async fn the_stream_has_a_snapshot_news_resume_and_heartbeats() {
    let world = World::start().await;
    let ann = world.pair.sign_up("ann").await;
    let token = world.watcher_token().await;
    world.pair.auth_as(&ann).sign_out_all(SignOutAllRequest {}).await.unwrap();

    let mut stream = world.watch(&token, 0).await.unwrap();
    assert!(matches!(next(&mut stream).await, (0, Event::SnapshotStarted(_))));
    let (0, Event::PrincipalNotBefore(said)) = next(&mut stream).await else {
        panic!("Ann's sign-out is in the snapshot")
    };
    assert_eq!(said.principal.unwrap().id, ann.id());
    let (not_before, forget_at) = (said.not_before.unwrap(), said.forget_at.unwrap());
    assert_eq!(not_before.nanos, 0);
    assert!(forget_at.seconds - not_before.seconds >= 15 * 60, "a token lives for 15 minutes");
    let (complete, Event::SnapshotCompleted(_)) = next(&mut stream).await else { panic!("the snapshot is complete") };
    assert!(complete > 0);

    let bob = world.pair.sign_up("bob").await;
    world.pair.auth().sign_out(SignOutRequest { refresh_token: bob.tokens.refresh_token.clone() }).await.unwrap();
    let (ended, Event::SessionEnded(said)) = next(&mut stream).await else { panic!("Bob's session has ended") };
    assert!(ended > complete);
    let kept = said.forget_at.unwrap().seconds - chrono::Utc::now().timestamp();
    assert!((3600..=3662).contains(&kept), "it is remembered for an hour, longer than its tokens live: {kept} s");
    let begun = Instant::now();
    let (alive, Event::Heartbeat(_)) = next(&mut stream).await else { panic!("a sign of life") };
    assert!(alive == ended && begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());

    // Resumed behind the snapshot: Bob's session and nothing else.
    let mut resumed = world.watch(&token, complete).await.unwrap();
    assert!(matches!(next(&mut resumed).await, (revision, Event::SessionEnded(_)) if revision == ended));
    assert!(matches!(next(&mut resumed).await, (revision, Event::Heartbeat(_)) if revision == ended));
    let mut ahead = world.watch(&token, ended + 1_000_000_000).await.unwrap();
    let refusal = Refusal::of(&ahead.message().await.unwrap_err());
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::OutOfRange, "REVISION_UNKNOWN"));
    assert_refused(world.watch(&token, -1).await.map(|_| ()), Code::InvalidArgument, "VALIDATION_FAILED");
    assert_refused(world.watch(ann.access_token(), 0).await.map(|_| ()), Code::PermissionDenied, "PERMISSION_MISSING");

    // Whoever is deleted watches no longer.
    let id = world.programs().list_service_accounts(ListServiceAccountsRequest::default()).await.unwrap().into_inner();
    let id = id.service_accounts.first().unwrap().id.clone();
    world.programs().delete_service_account(DeleteServiceAccountRequest { id }).await.unwrap();
    let refusal = Refusal::of(&stream.message().await.unwrap_err());
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::Unauthenticated, "TOKEN_REVOKED"));
}

#[tokio::test]
async fn a_dead_stream_is_told_and_writes_fail_closed_until_it_lives_again() {
    let mut world = World::start().await;
    let (ann, bob) = (world.pair.sign_up("ann").await, world.pair.sign_up("bob").await);
    world.create(ann.access_token()).await.unwrap();
    let ready = async |world: &World| http_get(world.pair.task.metrics_address(), "/readyz").await;
    assert_eq!(ready(&world).await.0, 200);

    world.pair.auth.kill();
    let killed = Instant::now();
    // Another replica goes on: what it is told must not be lost for who was connected to the first one.
    let replica = AuthServer::start(&world.pair.auth_database, CHEAP_HASHES).await;
    let mut client = auth_service_client::AuthServiceClient::new(replica.channel_with(bob.access_token()));
    client.sign_out_all(SignOutAllRequest {}).await.unwrap();
    world.tasks(bob.access_token()).await.unwrap();

    let until = killed + Duration::from_secs(40);
    while ready(&world).await.0 == 200 {
        assert!(Instant::now() < until, "still ready");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(killed.elapsed() > Duration::from_secs(9), "dead only after 15 s of silence: {:?}", killed.elapsed());
    let (code, body) = ready(&world).await;
    assert!(code == 503 && body.contains("revocations"), "{code} {body}");
    let (_, page) = http_get(world.pair.task.metrics_address(), "/metrics").await;
    assert!(page.contains("auth_revocations_live 0"), "{page}");
    let refusal = assert_refused(world.create(ann.access_token()).await, Code::Unavailable, "AUTH_UNAVAILABLE");
    assert!(refusal.retry_after.is_some());
    world.tasks(ann.access_token()).await.unwrap();

    world.pair.restart_auth(CHEAP_HASHES).await;
    world.refused("what happened meanwhile", bob.access_token()).await;
    world.create(ann.access_token()).await.unwrap();
    let until = Instant::now() + ARRIVES;
    while ready(&world).await.0 != 200 {
        assert!(Instant::now() < until, "not ready again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_revocation_at_one_replica_reaches_who_watches_another() {
    let world = World::start().await;
    let replica = AuthServer::start(&world.pair.auth_database, CHEAP_HASHES).await;
    let ann = world.pair.sign_up("ann").await;
    world.tasks(ann.access_token()).await.unwrap();
    let mut client = auth_service_client::AuthServiceClient::new(replica.channel_with(ann.access_token()));
    client.sign_out_all(SignOutAllRequest {}).await.unwrap();
    world.refused("SignOutAll at another replica", ann.access_token()).await;
}

#[tokio::test]
async fn a_task_service_with_a_wrong_secret_changes_nothing() {
    let database = TestDatabase::migrated_auth().await;
    watcher_make(&database).await;
    let auth = AuthServer::start(&database, CHEAP_HASHES).await;
    let ann = tests::sign_up(&auth, "ann").await;
    let tasks = TestDatabase::migrated_task().await;
    let wrong = [("AUTH_CLIENT_ID", "task-service"), ("AUTH_CLIENT_SECRET", "wrong")];
    let failure = tests::TaskServer::try_start(&tasks, auth.address(), &wrong).await.unwrap_err();
    assert!(failure.stderr.contains("no revocations from the auth service yet"), "{failure:#?}");
    assert!(!failure.stderr.contains(ann.access_token()) && !failure.stderr.contains(SECRET));
}

#[tokio::test]
async fn the_watchers_account_is_made_found_and_reset() {
    let database = TestDatabase::migrated_auth().await;
    let url = database.runtime_url();
    let run = async |extra: &[&str], secret: &str| {
        let arguments =
            [&["admin", "service-account", "--client-id", "task-service", "--secret-stdin"], extra].concat();
        run_program(Service::Auth, &arguments, &[("DATABASE_URL", &url)], secret).await
    };
    let introspect = ["--permission", "tokens.introspect"];
    let other = SECRET.replace('q', "r");
    assert_eq!(run(&introspect, "short").await.code, 2);
    let refused = run(&["--permission", "tokens.eat"], SECRET).await;
    assert!(refused.code == 2 && refused.stderr.contains("tokens.introspect"), "{refused:#?}");
    assert!(run(&introspect, SECRET).await.stdout.starts_with("created"));
    assert!(run(&introspect, SECRET).await.stdout.contains("as asked"));
    let different = run(&introspect, &other).await;
    assert!(different.code == 3 && different.stderr.contains("another secret"), "{different:#?}");
    let reset = run(&["--permission", "audit.read", "--reset", "--overlap", "0s"], &other).await;
    assert!(reset.code == 0 && reset.stdout.contains("other permissions and another secret"), "{reset:#?}");
    assert!(run(&["--permission", "audit.read"], &other).await.stdout.contains("as asked"));
    let client = database.client().await;
    // A secret that leaked is ended at once, also one that is in its overlap.
    let third = SECRET.replace('q', "s");
    assert_eq!(run(&["--permission", "audit.read", "--reset"], &third).await.code, 0);
    let ended = run(&["--permission", "audit.read", "--reset", "--overlap", "0s"], &third).await;
    assert!(ended.stdout.contains("an older secret"), "{ended:#?}");
    let shared = ["admin", "service-account", "--client-id", "other", "--secret-stdin", "--permission", "audit.read"];
    let shared = run_program(Service::Auth, &shared, &[("DATABASE_URL", &url)], &third).await;
    assert!(shared.code == 2 && shared.stderr.contains("has this secret"), "{shared:#?}");
    let secrets: i64 = client.query_one("SELECT count(*) FROM service_account_secrets", &[]).await.unwrap().get(0);
    assert_eq!(secrets, 1);
}
