//! Administration: accounts, roles, the audit trail, and who may do what at the very moment of the call.
#![expect(clippy::unwrap_used, reason = "a suite ends the test with a panic")]

mod auth_support;

use std::collections::BTreeSet;

use auth_support::Fixture;
use futures_util::future::join_all;
use prost_types::FieldMask;
use proto::auth::v1::audit_service_client::AuditServiceClient;
use proto::auth::v1::role_service_client::RoleServiceClient;
use proto::auth::v1::user_service_client::UserServiceClient;
use proto::auth::v1::*;
use tests::{Authorized, PASSWORD, assert_refused};
use tonic::{Code, Response, Status};

/// A service with an administrator, and some members.
struct World {
    fixture: Fixture,
    admin: String,
    admin_id: String,
}

impl World {
    async fn start() -> Self {
        let fixture = Fixture::start().await;
        let signed_in = fixture.administrator().await;
        let (admin, admin_id) = (signed_in.tokens.unwrap().access_token, signed_in.user.unwrap().id);
        Self { fixture, admin, admin_id }
    }

    async fn member(&self, name: &str) -> (User, Tokens) {
        let made = self.fixture.sign_up(&format!("{name}@example.com"), name, PASSWORD).await.unwrap();
        (made.user.unwrap(), made.tokens.unwrap())
    }

    fn users(&self, access_token: &str) -> UserServiceClient<Authorized> {
        UserServiceClient::new(self.fixture.server.channel_with(access_token))
    }

    fn roles(&self, access_token: &str) -> RoleServiceClient<Authorized> {
        RoleServiceClient::new(self.fixture.server.channel_with(access_token))
    }

    async fn role(&self, name: &str, permissions: &[&str]) -> Result<Role, Status> {
        self.role_by(&self.admin, name, permissions).await
    }

    async fn role_by(&self, access_token: &str, name: &str, permissions: &[&str]) -> Result<Role, Status> {
        let request = CreateRoleRequest {
            name: name.into(),
            permissions: permissions.iter().map(|name| (*name).to_owned()).collect(),
            ..CreateRoleRequest::default()
        };
        Ok(self.roles(access_token).create_role(request).await?.into_inner().role.unwrap())
    }

    async fn assign(&self, access_token: &str, user_id: &str, role: &str) -> Result<User, Status> {
        let request = AssignRoleRequest { user_id: user_id.into(), role: role.into() };
        Ok(self.users(access_token).assign_role(request).await?.into_inner().user.unwrap())
    }

    async fn set_active(&self, access_token: &str, id: &str, is_active: bool) -> Result<User, Status> {
        let request = SetUserActiveRequest { id: id.into(), is_active };
        Ok(self.users(access_token).set_user_active(request).await?.into_inner().user.unwrap())
    }

    async fn events(&self, request: ListAuditEventsRequest) -> Vec<AuditEvent> {
        let mut client = AuditServiceClient::new(self.fixture.server.channel_with(&self.admin));
        client.list_audit_events(request).await.unwrap().into_inner().events
    }
}

fn mask(paths: &[&str]) -> Option<FieldMask> {
    Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() })
}

#[tokio::test]
async fn accounts_are_read_singly_and_in_batches() {
    let world = World::start().await;
    let (alice, _) = world.member("alice").await;
    let mut users = world.users(&world.admin);
    let got = users.get_user(GetUserRequest { id: alice.id.clone() }).await.unwrap().into_inner().user.unwrap();
    assert_eq!((got.email.as_str(), got.role.as_str()), ("alice@example.com", "member"));
    let nobody = uuid::Uuid::new_v4().to_string();
    assert_refused(users.get_user(GetUserRequest { id: nobody.clone() }).await, Code::NotFound, "USER_NOT_FOUND");

    let ids = vec![alice.id.clone(), world.admin_id.clone(), alice.id.clone()];
    let batch = users.batch_get_users(BatchGetUsersRequest { ids }).await.unwrap().into_inner().users;
    assert_eq!(batch.iter().map(|user| user.username.as_str()).collect::<Vec<_>>(), ["alice", "root", "alice"]);
    let missing = BatchGetUsersRequest { ids: vec![alice.id.clone(), nobody] };
    let status = users.batch_get_users(missing).await.unwrap_err();
    let details = tonic_types::StatusExt::get_error_details(&status);
    assert_eq!(details.error_info().unwrap().metadata["index"], "1");
    let wrong = BatchGetUsersRequest { ids: vec![alice.id, "x".into()] };
    let refused = assert_refused(users.batch_get_users(wrong).await, Code::InvalidArgument, "VALIDATION_FAILED");
    assert_eq!(refused.fields, ["ids[1]"]);
}

#[tokio::test]
async fn lists_of_accounts_keep_their_order_over_pages() {
    let world = World::start().await;
    for name in ["carol", "Bob", "alice", "dave"] {
        world.member(name).await;
    }
    world
        .fixture
        .sql(
            "UPDATE users SET last_login_at = '2026-02-01' WHERE username IN ('Bob', 'carol');
             UPDATE users SET is_active = false WHERE username = 'carol';
             UPDATE users SET created_at = '2026-01-01' WHERE username IN ('Bob', 'carol')",
        )
        .await;
    let list = async |request: ListUsersRequest| -> Vec<String> {
        let mut names = Vec::new();
        let mut page_token = String::new();
        loop {
            let page = ListUsersRequest { page_size: 2, page_token, ..request.clone() };
            let page = world.users(&world.admin).list_users(page).await.unwrap().into_inner();
            names.extend(page.users.into_iter().map(|user| user.username));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return names;
            }
        }
    };
    let by = |order_by: &str| ListUsersRequest { order_by: order_by.into(), ..ListUsersRequest::default() };
    assert_eq!(list(by("username")).await, ["Bob", "alice", "carol", "dave", "root"], "by code points");
    assert_eq!(list(by("email desc")).await, ["root", "dave", "carol", "alice", "Bob"].map(String::from).to_vec());
    let seen = list(by("last_login_at desc")).await;
    assert_eq!(seen[0], "root");
    assert_eq!(seen[3..].iter().map(String::as_str).collect::<BTreeSet<_>>(), BTreeSet::from(["alice", "dave"]));
    let never_last = list(by("last_login_at")).await;
    assert_eq!(never_last[3..].iter().map(String::as_str).collect::<BTreeSet<_>>(), BTreeSet::from(["alice", "dave"]));
    for order in ["created_at", "created_at desc", "updated_at", "updated_at desc"] {
        let all: BTreeSet<String> = list(by(order)).await.into_iter().collect();
        assert_eq!(all.len(), 5, "{order}");
    }
    let filtered = [
        (ListUsersRequest { role: "admin".into(), ..by("") }, vec!["root"]),
        (ListUsersRequest { is_active: Some(false), ..by("") }, vec!["carol"]),
        (ListUsersRequest { email_contains: "ALI".into(), ..by("") }, vec!["alice"]),
        (ListUsersRequest { username_contains: "_".into(), ..by("") }, vec![]),
        (ListUsersRequest { email_verified: Some(true), ..by("") }, vec![]),
        (
            ListUsersRequest {
                created_before: Some(prost_types::Timestamp { seconds: 1_770_000_000, nanos: 0 }),
                ..by("username")
            },
            vec!["Bob", "carol"],
        ),
    ];
    for (request, expected) in filtered {
        assert_eq!(list(request.clone()).await, expected, "{request:?}");
    }
    let first = ListUsersRequest { page_size: 1, ..by("email") };
    let token = world.users(&world.admin).list_users(first).await.unwrap().into_inner().next_page_token;
    let other = ListUsersRequest { page_size: 1, page_token: token, ..by("username") };
    assert_refused(world.users(&world.admin).list_users(other).await, Code::InvalidArgument, "PAGE_TOKEN_INVALID");
    let refused = world.users(&world.admin).list_users(by("password_hash")).await;
    assert_eq!(assert_refused(refused, Code::InvalidArgument, "VALIDATION_FAILED").fields, ["order_by"]);
}

#[tokio::test]
async fn an_administrator_changes_accounts_within_the_mask() {
    let world = World::start().await;
    let (alice, _) = world.member("alice").await;
    let update = async |user: User, paths: &[&str]| {
        let request = UpdateUserRequest { user: Some(user), update_mask: mask(paths) };
        world.users(&world.admin).update_user(request).await.map(|answer| answer.into_inner().user.unwrap())
    };
    let new = User { id: alice.id.clone(), email: "a@example.org".into(), email_verified: true, ..User::default() };
    let changed = update(new, &["email", "email_verified"]).await.unwrap();
    assert_eq!((changed.email.as_str(), changed.email_verified), ("a@example.org", true));
    let new = User { id: alice.id.clone(), email: "b@example.org".into(), ..User::default() };
    assert!(!update(new, &["email"]).await.unwrap().email_verified);
    for path in ["role", "is_active", "password_hash"] {
        let user = User { id: alice.id.clone(), role: "admin".into(), ..User::default() };
        assert_refused(update(user, &[path]).await, Code::InvalidArgument, "VALIDATION_FAILED");
    }
    let taken = User { id: alice.id.clone(), username: "ROOT".into(), ..User::default() };
    assert_refused(update(taken, &["username"]).await, Code::AlreadyExists, "USERNAME_TAKEN");
    let unnamed = User { username: "x".into(), ..User::default() };
    let refused = assert_refused(update(unnamed, &["username"]).await, Code::InvalidArgument, "VALIDATION_FAILED");
    assert_eq!(refused.fields, ["user.id"]);
    let nobody = User { id: uuid::Uuid::new_v4().to_string(), username: "x".into(), ..User::default() };
    assert_refused(update(nobody, &["username"]).await, Code::NotFound, "USER_NOT_FOUND");
}

#[tokio::test]
async fn deactivation_ends_sessions_at_once() {
    let world = World::start().await;
    let (alice, tokens) = world.member("alice").await;
    assert!(!world.set_active(&world.admin, &alice.id, false).await.unwrap().is_active);
    assert_refused(world.fixture.me(&tokens.access_token).await, Code::Unauthenticated, "TOKEN_REVOKED");
    assert_refused(world.fixture.refresh(&tokens.refresh_token).await, Code::Unauthenticated, "REFRESH_TOKEN_INVALID");
    assert_refused(world.fixture.sign_in("alice", PASSWORD).await, Code::Unauthenticated, "CREDENTIALS_INVALID");
    // Twice is once.
    let again = world.set_active(&world.admin, &alice.id, false).await.unwrap();
    assert_ne!(world.set_active(&world.admin, &alice.id, true).await.unwrap().updated_at, again.updated_at);
    world.fixture.sign_in("alice", PASSWORD).await.unwrap();
    assert_refused(world.fixture.refresh(&tokens.refresh_token).await, Code::Unauthenticated, "REFRESH_TOKEN_INVALID");
}

/// Attack: a role that was taken away, with a token from before.
#[tokio::test]
async fn a_stale_role_does_not_administrate() {
    let world = World::start().await;
    let (alice, _) = world.member("alice").await;
    world.assign(&world.admin, &alice.id, "admin").await.unwrap();
    let stale = world.fixture.sign_in("alice", PASSWORD).await.unwrap().tokens.unwrap().access_token;
    world.users(&stale).get_user_stats(GetUserStatsRequest {}).await.unwrap();
    world.assign(&world.admin, &alice.id, "member").await.unwrap();
    let read = world.users(&stale).get_user_stats(GetUserStatsRequest {}).await.map(Response::into_inner);
    assert_refused(read, Code::Unauthenticated, "TOKEN_REVOKED");
    assert_refused(world.assign(&stale, &alice.id, "admin").await, Code::Unauthenticated, "TOKEN_REVOKED");
    assert_refused(world.set_active(&stale, &world.admin_id, false).await, Code::Unauthenticated, "TOKEN_REVOKED");
    assert_refused(world.role_by(&stale, "mine", &[]).await, Code::Unauthenticated, "TOKEN_REVOKED");
}

#[tokio::test]
async fn the_last_administrator_stays() {
    let world = World::start().await;
    let (alice, _) = world.member("alice").await;
    for answer in [
        world.set_active(&world.admin, &world.admin_id, false).await,
        world.assign(&world.admin, &world.admin_id, "member").await,
    ] {
        assert_refused(answer, Code::FailedPrecondition, "LAST_ADMINISTRATOR");
    }
    // An inactive administrator is none.
    world.assign(&world.admin, &alice.id, "admin").await.unwrap();
    world.set_active(&world.admin, &alice.id, false).await.unwrap();
    let refused = world.assign(&world.admin, &world.admin_id, "member").await;
    assert_refused(refused, Code::FailedPrecondition, "LAST_ADMINISTRATOR");
    world.set_active(&world.admin, &alice.id, true).await.unwrap();
    assert_eq!(world.assign(&world.admin, &world.admin_id, "member").await.unwrap().role, "member");
}

/// Attack: administrators who remove each other at the same moment.
#[tokio::test]
async fn administrators_who_remove_each_other_leave_one() {
    let world = World::start().await;
    let mut administrators = vec![(world.admin_id.clone(), world.admin.clone())];
    for name in ["a1", "a2", "a3"] {
        let (user, _) = world.member(name).await;
        world.assign(&world.admin, &user.id, "admin").await.unwrap();
        let token = world.fixture.sign_in(name, PASSWORD).await.unwrap().tokens.unwrap().access_token;
        administrators.push((user.id, token));
    }
    let attempts = administrators.iter().enumerate().flat_map(|(at, (_, token))| {
        let others = administrators.iter().enumerate().filter(move |(other, _)| *other != at);
        others.map(move |(other, (id, _))| (token.clone(), id.clone(), (at + other) % 2 == 0))
    });
    let world = &world;
    let answers = join_all(attempts.map(|(token, id, demote)| async move {
        if demote { world.assign(&token, &id, "member").await } else { world.set_active(&token, &id, false).await }
    }))
    .await;
    let active =
        "SELECT count(*) FROM users JOIN roles ON roles.id = role_id WHERE roles.name = 'admin' AND users.is_active";
    let left = world.fixture.count(active).await;
    assert!(left >= 1, "{answers:?}");
    let unexpected = answers.iter().filter_map(|answer| answer.as_ref().err()).find(|status| {
        ![Code::FailedPrecondition, Code::PermissionDenied, Code::Unauthenticated].contains(&status.code())
    });
    assert!(unexpected.is_none(), "{unexpected:?}");
}

#[tokio::test]
async fn roles_are_made_changed_and_deleted() {
    let world = World::start().await;
    let made = world.role("support", &["users.read", "tasks.read", "users.read"]).await.unwrap();
    assert_eq!((made.display_name.as_str(), made.is_system, made.is_active), ("support", false, true));
    assert_eq!(made.permissions, ["tasks.read", "users.read"]);
    assert_refused(world.role("support", &[]).await, Code::AlreadyExists, "ROLE_NAME_TAKEN");
    let refused = assert_refused(world.role("Support", &["all"]).await, Code::InvalidArgument, "VALIDATION_FAILED");
    assert_eq!(refused.fields, ["name", "permissions[0]"]);

    let update = async |role: Role, paths: &[&str]| {
        let request = UpdateRoleRequest { role: Some(role), update_mask: mask(paths) };
        world.roles(&world.admin).update_role(request).await.map(|answer| answer.into_inner().role.unwrap())
    };
    let new =
        Role { id: made.id.clone(), permissions: vec!["users.read".into()], name: "x y".into(), ..Role::default() };
    assert_eq!(update(new, &["permissions"]).await.unwrap().permissions, ["users.read"], "the name is not in the mask");
    let new = Role { id: made.id.clone(), name: "help".into(), description: "Helps.".into(), ..Role::default() };
    let changed = update(new, &[]).await.unwrap();
    assert_eq!((changed.name.as_str(), changed.description.as_str()), ("help", "Helps."));

    // A deactivated role is not assigned, and gives nothing.
    let (alice, _) = world.member("alice").await;
    world.assign(&world.admin, &alice.id, "help").await.unwrap();
    let helper = world.fixture.sign_in("alice", PASSWORD).await.unwrap().tokens.unwrap().access_token;
    world.users(&helper).get_user_stats(GetUserStatsRequest {}).await.unwrap();
    update(Role { id: made.id.clone(), is_active: false, ..Role::default() }, &["is_active"]).await.unwrap();
    let stale = world.users(&helper).get_user_stats(GetUserStatsRequest {}).await.map(Response::into_inner);
    assert_refused(stale, Code::Unauthenticated, "TOKEN_REVOKED");
    let fresh = world.fixture.sign_in("alice", PASSWORD).await.unwrap().tokens.unwrap().access_token;
    let fresh = world.users(&fresh).get_user_stats(GetUserStatsRequest {}).await.map(Response::into_inner);
    assert_refused(fresh, Code::PermissionDenied, "PERMISSION_MISSING");
    assert_refused(
        world.assign(&world.admin, &world.admin_id, "help").await,
        Code::FailedPrecondition,
        "ROLE_INACTIVE",
    );
    assert_refused(world.assign(&world.admin, &alice.id, "none").await, Code::NotFound, "ROLE_NOT_FOUND");

    let delete = async |id: &str| {
        world.roles(&world.admin).delete_role(DeleteRoleRequest { id: id.into() }).await.map(Response::into_inner)
    };
    assert_refused(delete(&made.id).await, Code::FailedPrecondition, "ROLE_IN_USE");
    world.assign(&world.admin, &alice.id, "member").await.unwrap();
    delete(&made.id).await.unwrap();
    assert_refused(delete(&made.id).await, Code::NotFound, "ROLE_NOT_FOUND");
}

#[tokio::test]
async fn system_roles_are_fixed_and_roles_are_listed_by_name() {
    let world = World::start().await;
    for name in ["b", "a", "zz"] {
        world.role(name, &[]).await.unwrap();
    }
    let mut names = Vec::new();
    let mut roles = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListRolesRequest { page_size: 2, page_token };
        let page = world.roles(&world.admin).list_roles(request).await.unwrap().into_inner();
        names.extend(page.roles.iter().map(|role| role.name.clone()));
        roles.extend(page.roles);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["a", "admin", "b", "member", "zz"]);
    let catalogue = world.roles(&world.admin).list_permissions(ListPermissionsRequest {}).await.unwrap().into_inner();
    let catalogue: Vec<String> = catalogue.permissions.into_iter().map(|permission| permission.name).collect();
    assert!(catalogue.contains(&"audit.read".to_owned()));
    assert_eq!(roles[1].permissions, catalogue, "an administrator may everything");
    for system in roles.iter().filter(|role| role.is_system) {
        let get = GetRoleRequest { id: system.id.clone() };
        assert_eq!(world.roles(&world.admin).get_role(get).await.unwrap().into_inner().role.as_ref(), Some(system));
        for (role, path) in [
            (Role { id: system.id.clone(), name: "other".into(), ..Role::default() }, "name"),
            (Role { id: system.id.clone(), is_active: false, ..Role::default() }, "is_active"),
        ] {
            let request = UpdateRoleRequest { role: Some(role), update_mask: mask(&[path]) };
            let refused = world.roles(&world.admin).update_role(request).await.map(Response::into_inner);
            assert_refused(refused, Code::FailedPrecondition, "ROLE_IS_SYSTEM");
        }
        let delete = DeleteRoleRequest { id: system.id.clone() };
        let refused = world.roles(&world.admin).delete_role(delete).await.map(Response::into_inner);
        assert_refused(refused, Code::FailedPrecondition, "ROLE_IS_SYSTEM");
    }
}

/// Attack: whoever may administrate users or roles gives more than they have.
#[tokio::test]
async fn nobody_gives_a_permission_that_they_lack() {
    let world = World::start().await;
    world.role("staff", &["users.read", "users.write", "roles.read", "roles.write"]).await.unwrap();
    let (alice, _) = world.member("alice").await;
    let (bob, _) = world.member("bob").await;
    world.assign(&world.admin, &alice.id, "staff").await.unwrap();
    let staff = world.fixture.sign_in("alice", PASSWORD).await.unwrap().tokens.unwrap().access_token;
    let refused = [
        world.assign(&staff, &bob.id, "admin").await.map(|_| ()),
        world.assign(&staff, &alice.id, "admin").await.map(|_| ()),
        world.role_by(&staff, "more", &["audit.read"]).await.map(|_| ()),
    ];
    for answer in refused {
        assert_refused(answer, Code::PermissionDenied, "PERMISSION_MISSING");
    }
    let own = world.role_by(&staff, "less", &["users.read"]).await.unwrap();
    let more = Role { id: own.id, permissions: vec!["tokens.introspect".into()], ..Role::default() };
    let request = UpdateRoleRequest { role: Some(more), update_mask: mask(&["permissions"]) };
    let refused = world.roles(&staff).update_role(request).await.map(Response::into_inner);
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING");
    world.assign(&staff, &bob.id, "less").await.unwrap();

    // A role that holds more comes back into force only by somebody who holds all of it.
    let strong = world.role("strong", &["users.read", "audit.read"]).await.unwrap();
    let switched = |is_active| {
        let role = Role { id: strong.id.clone(), is_active, ..Role::default() };
        UpdateRoleRequest { role: Some(role), update_mask: mask(&["is_active"]) }
    };
    world.roles(&staff).update_role(switched(false)).await.unwrap();
    let refused = world.roles(&staff).update_role(switched(true)).await.map(Response::into_inner);
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING");
    world.roles(&world.admin).update_role(switched(true)).await.unwrap();
}

/// Attack: who may change accounts gets into a stronger one, with a mail to an address of their own for example.
#[tokio::test]
async fn an_account_is_changed_only_by_who_could_do_all_that_it_can() {
    let world = World::start().await;
    world.role("support", &["users.read", "users.write"]).await.unwrap();
    world.role("auditor", &["users.read", "audit.read"]).await.unwrap();
    let mut accounts = Vec::new();
    for (name, role) in [("alice", "support"), ("carol", "support"), ("dave", "auditor"), ("bob", "member")] {
        let (user, _) = world.member(name).await;
        accounts.push(world.assign(&world.admin, &user.id, role).await.unwrap());
    }
    let support = world.fixture.sign_in("alice", PASSWORD).await.unwrap().tokens.unwrap().access_token;
    let email = |id: &str| UpdateUserRequest {
        user: Some(User { id: id.into(), email: format!("{id}@mallory.example.com"), ..User::default() }),
        update_mask: mask(&["email"]),
    };
    for stronger in [&world.admin_id, &accounts[2].id] {
        let refused = [
            world.users(&support).update_user(email(stronger)).await.map(|_| ()),
            world.set_active(&support, stronger, false).await.map(|_| ()),
            world.assign(&support, stronger, "member").await.map(|_| ()),
        ];
        for answer in refused {
            assert_refused(answer, Code::PermissionDenied, "PERMISSION_MISSING");
        }
    }
    for equal_or_less in [&accounts[1].id, &accounts[3].id] {
        world.users(&support).update_user(email(equal_or_less)).await.unwrap();
        world.set_active(&support, equal_or_less, false).await.unwrap();
        world.assign(&support, equal_or_less, "member").await.unwrap();
    }
    world.users(&world.admin).update_user(email(&accounts[2].id)).await.unwrap();
}

#[tokio::test]
async fn accounts_are_counted() {
    let world = World::start().await;
    let (alice, _) = world.member("alice").await;
    world.member("bob").await;
    world.role("empty", &[]).await.unwrap();
    world.set_active(&world.admin, &alice.id, false).await.unwrap();
    world.fixture.sql("UPDATE users SET email_verified = true WHERE username = 'bob'").await;
    let stats =
        world.users(&world.admin).get_user_stats(GetUserStatsRequest {}).await.unwrap().into_inner().stats.unwrap();
    assert_eq!((stats.total, stats.active, stats.inactive, stats.email_verified), (3, 2, 1, 1));
    let by_role: Vec<_> = stats.by_role.iter().map(|count| (count.role.as_str(), count.user_count)).collect();
    assert_eq!(by_role, [("admin", 1), ("empty", 0), ("member", 2)]);
}

#[tokio::test]
async fn the_audit_trail_tells_who_did_what_on_whom() {
    let world = World::start().await;
    let (alice, tokens) = world.member("alice").await;
    let _wrong = world.fixture.sign_in("alice", "wrong password").await;
    let _unknown = world.fixture.sign_in("nobody", "wrong password").await;
    world.assign(&world.admin, &alice.id, "admin").await.unwrap();
    world.set_active(&world.admin, &alice.id, false).await.unwrap();
    world.fixture.sign_out(&tokens.refresh_token).await.unwrap();

    let all = world.events(ListAuditEventsRequest::default()).await;
    let told: Vec<_> = all.iter().rev().map(|event| (event.action().as_str_name(), event.reason.as_str())).collect();
    assert_eq!(
        told,
        [
            ("AUDIT_ACTION_ADMIN_BOOTSTRAP", ""),
            ("AUDIT_ACTION_SIGN_IN", ""),
            ("AUDIT_ACTION_SIGN_UP", ""),
            ("AUDIT_ACTION_SIGN_IN", "CREDENTIALS_INVALID"),
            ("AUDIT_ACTION_SIGN_IN", "CREDENTIALS_INVALID"),
            ("AUDIT_ACTION_USER_ROLE_ASSIGN", ""),
            ("AUDIT_ACTION_USER_DEACTIVATE", ""),
        ]
    );
    let deactivated = &all[0];
    assert_eq!(deactivated.actor.as_ref().unwrap().id, world.admin_id);
    assert_eq!(deactivated.target.as_ref().unwrap().id, alice.id);
    assert_eq!((deactivated.source.as_str(), deactivated.changed_fields[0].as_str()), ("127.0.0.1", "is_active"));
    assert_eq!(deactivated.request_id.len(), 36);
    let unknown = &all[2];
    assert_eq!((unknown.outcome(), unknown.target.as_ref()), (AuditOutcome::Refused, None));
    assert_eq!(unknown.actor.as_ref().unwrap().r#type(), PrincipalType::Anonymous);

    let filtered = [
        (ListAuditEventsRequest { actor_id: world.admin_id.clone(), ..Default::default() }, 3),
        (ListAuditEventsRequest { target_id: alice.id.clone(), ..Default::default() }, 4),
        (ListAuditEventsRequest { outcome: AuditOutcome::Refused.into(), ..Default::default() }, 2),
        (ListAuditEventsRequest { actions: vec![AuditAction::SignUp.into()], ..Default::default() }, 1),
        (ListAuditEventsRequest { target_type: AuditTargetType::Role.into(), ..Default::default() }, 0),
        (ListAuditEventsRequest { source: "127.0.0.1".into(), ..Default::default() }, 6),
        (ListAuditEventsRequest { request_id: deactivated.request_id.clone(), ..Default::default() }, 1),
        (ListAuditEventsRequest { occurred_after: deactivated.occurred_at, ..Default::default() }, 1),
        (ListAuditEventsRequest { occurred_before: deactivated.occurred_at, ..Default::default() }, 6),
    ];
    for (request, count) in filtered {
        assert_eq!(world.events(request.clone()).await.len(), count, "{request:?}");
    }
    let mut paged = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListAuditEventsRequest { page_size: 3, page_token, ..Default::default() };
        let mut client = AuditServiceClient::new(world.fixture.server.channel_with(&world.admin));
        let page = client.list_audit_events(request).await.unwrap().into_inner();
        paged.extend(page.events);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(paged, all);
}

/// Attack: whoever took over the service tries to cover it up.
#[tokio::test]
async fn the_audit_trail_is_append_only_and_holds_no_secret() {
    let world = World::start().await;
    world.member("alice").await;
    let runtime = world.fixture.database.runtime_client().await;
    for sql in ["UPDATE audit_events SET reason = NULL", "DELETE FROM audit_events", "TRUNCATE audit_events"] {
        assert!(runtime.batch_execute(sql).await.is_err(), "{sql}");
        assert!(world.fixture.client.batch_execute(sql).await.is_err(), "the superuser: {sql}");
    }
    let whole: String = world
        .fixture
        .client
        .query_one("SELECT string_agg(to_jsonb(e)::text, ' ') FROM audit_events e", &[])
        .await
        .unwrap()
        .get(0);
    for secret in [PASSWORD, "alice@example.com", "root@example.com", "argon2"] {
        assert!(!whole.contains(secret), "{secret} in {whole}");
    }
}
