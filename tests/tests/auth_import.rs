//! Accounts of other systems: imported by a stream, tried in a dry run, and signed in with the password that they had.
#![expect(clippy::unwrap_used, reason = "a suite ends the test with a panic")]

mod auth_support;

use auth_support::Fixture;
use futures_util::stream;
use proto::auth::v1::auth_service_client::AuthServiceClient;
use proto::auth::v1::import_users_request::Part;
use proto::auth::v1::role_service_client::RoleServiceClient;
use proto::auth::v1::service_account_service_client::ServiceAccountServiceClient;
use proto::auth::v1::user_service_client::UserServiceClient;
use proto::auth::v1::*;
use tests::{PASSWORD, assert_refused};
use tonic::{Code, Status};

/// What the hashes below are made of; with the programs that made them they stand in the unit tests of the service.
const OLD_PASSWORD: &str = "correct zebra battery staple";
const HASHES: [(&str, &str); 7] = [
    ("bcrypt", "$2b$04$8S5Hx81jyuHa4dovy2ouI.L/gUq80zEf.har/TaZR8HWVozG6woJG"),
    ("bcrypt-a", "$2a$04$nyAfJbKvE9vEzfi1IUkDCeIJjotTLdRVvnrfkzWo.uO4fr5XUsbeO"),
    ("scrypt", "$scrypt$ln=10,r=8,p=1$MDEyMzQ1Njc4OWFiY2RlZg$zG7hWaHugPLXAf8eY73hnN3mgqK7jn5XqDpjIf7O9KQ"),
    ("pbkdf2-256", "$pbkdf2-sha256$i=1000$MDEyMzQ1Njc4OWFiY2RlZg$UImicoht/tkZm+V9EaJi1M624bOopW6IU8LixpTZ1u8"),
    (
        "pbkdf2-512",
        "$pbkdf2-sha512$i=1000,l=64$MDEyMzQ1Njc4OWFiY2RlZg$tKrsy+rVmzy8Cf3q533s6YM40vNCZnsZbQWOyRckY7SzOMrQi+IZe+1bt8nvlgnSMT/zWi1YMJCsO8e5GnSArw",
    ),
    ("passlib", "$pbkdf2-sha256$1000$MDEyMzQ1Njc4OWFiY2RlZg$UImicoht/tkZm.V9EaJi1M624bOopW6IU8LixpTZ1u8"),
    ("argon2i", "$argon2i$v=19$m=1024,t=2,p=1$UaEEBCC4i+XF6odpb/kvtQ$ztX/ZRRp2OxShtL6M1O2qUT3A6WEMj1e0KvYwDeQo2s"),
];

fn user(name: &str, password_hash: &str) -> ImportedUser {
    ImportedUser {
        email: format!("{name}@example.com"),
        username: name.into(),
        password_hash: password_hash.into(),
        ..Default::default()
    }
}

async fn import(
    fixture: &Fixture,
    by: &str,
    dry_run: bool,
    users: Vec<ImportedUser>,
) -> Result<Vec<ImportUsersResponse>, Status> {
    let options = Part::Options(ImportOptions { dry_run });
    let parts = std::iter::once(options).chain(users.into_iter().map(Part::User));
    let messages: Vec<_> = parts.map(|part| ImportUsersRequest { part: Some(part) }).collect();
    send(fixture, by, messages).await
}

async fn send(
    fixture: &Fixture,
    by: &str,
    messages: Vec<ImportUsersRequest>,
) -> Result<Vec<ImportUsersResponse>, Status> {
    let mut client = UserServiceClient::new(fixture.server.channel_with(by));
    let mut answers = client.import_users(stream::iter(messages)).await?.into_inner();
    let mut all = Vec::new();
    while let Some(answer) = answers.message().await? {
        all.push(answer);
    }
    Ok(all)
}

async fn administrator(fixture: &Fixture) -> String {
    fixture.administrator().await.tokens.unwrap().access_token
}

#[tokio::test]
async fn accounts_of_other_systems_sign_in_with_their_password_and_get_a_hash_of_ours() {
    let fixture = Fixture::start().await;
    let root = administrator(&fixture).await;
    let users: Vec<_> = HASHES.iter().map(|(name, hash)| user(name, hash)).collect();

    // A dry run says the same and keeps nothing.
    let tried = import(&fixture, &root, true, users.clone()).await.unwrap();
    assert!(
        tried.iter().all(|answer| answer.outcome() == ImportOutcome::Created && answer.user_id.is_empty()),
        "{tried:#?}"
    );
    assert_eq!(fixture.count("SELECT count(*) FROM users").await, 1);

    let done = import(&fixture, &root, false, users.clone()).await.unwrap();
    assert_eq!(done.iter().map(|answer| answer.index).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6]);
    assert!(done.iter().all(|answer| answer.outcome() == ImportOutcome::Created), "{done:#?}");
    let again = import(&fixture, &root, false, users).await.unwrap();
    for (first, second) in done.iter().zip(&again) {
        assert_eq!((second.outcome(), &second.user_id), (ImportOutcome::AlreadyThere, &first.user_id));
    }
    let events = "SELECT count(*) FROM audit_events WHERE action = 'USER_IMPORT'";
    assert_eq!(fixture.count(events).await, 7);

    for (name, _) in HASHES {
        assert_refused(fixture.sign_in(name, "wrong").await, Code::Unauthenticated, "CREDENTIALS_INVALID");
        let account = fixture.sign_in(name, OLD_PASSWORD).await.unwrap().user.unwrap();
        assert_eq!((account.role.as_str(), account.email_verified), ("member", false));
        let ours =
            format!("SELECT count(*) FROM users WHERE username = '{name}' AND password_hash LIKE '$argon2id$v=19$%'");
        assert_eq!(fixture.count(&ours).await, 1, "{name}");
        fixture.sign_in(name, OLD_PASSWORD).await.unwrap();
    }
}

#[tokio::test]
async fn each_account_has_its_answer_and_a_bad_one_spoils_no_other() {
    let fixture = Fixture::start().await;
    let root = administrator(&fixture).await;
    fixture.sign_up("ann@example.com", "ann", PASSWORD).await.unwrap();
    let good = HASHES[0].1;
    let own_id = "0191d5a0-0000-7000-8000-000000000001";
    let cases: Vec<(ImportedUser, &str, &str)> = vec![
        (ImportedUser { id: own_id.into(), email_verified: true, ..user("kept", good) }, "", ""),
        (ImportedUser { id: own_id.into(), ..user("other", good) }, "USER_ID_TAKEN", "id"),
        (ImportedUser { id: "kept".into(), ..user("bad-id", good) }, "VALIDATION_FAILED", "id"),
        (ImportedUser { email: "ANN@example.com".into(), ..user("ann2", good) }, "EMAIL_TAKEN", "email"),
        (ImportedUser { username: "ANN".into(), ..user("ann3", good) }, "USERNAME_TAKEN", "username"),
        (ImportedUser { email: "nobody".into(), ..user("bad-mail", good) }, "VALIDATION_FAILED", "email"),
        (user("no-hash", ""), "VALIDATION_FAILED", "password_hash"),
        (user("plain", OLD_PASSWORD), "VALIDATION_FAILED", "password_hash"),
        (user("dear", &good.replace("$04$", "$31$")), "VALIDATION_FAILED", "password_hash"),
        (user("long", &format!("{good}{}", "x".repeat(300))), "VALIDATION_FAILED", "password_hash"),
        (ImportedUser { role: "wizard".into(), ..user("wizard", good) }, "ROLE_NOT_FOUND", ""),
        (ImportedUser { is_deactivated: true, ..user("gone", good) }, "", ""),
        (ImportedUser { role: "admin".into(), ..user("chief", good) }, "", ""),
    ];
    let users = cases.iter().map(|(user, ..)| user.clone()).collect();
    let answers = import(&fixture, &root, false, users).await.unwrap();
    assert_eq!(answers.len(), cases.len());
    for (answer, (user, reason, field)) in answers.iter().zip(&cases) {
        let said = (answer.reason.as_str(), answer.field.as_str());
        assert_eq!(said, (*reason, *field), "{}: {answer:?}", user.username);
        assert!(!answer.description.contains(good) && !answer.description.contains(&user.email), "{answer:?}");
    }
    let kept = fixture.sign_in("kept", OLD_PASSWORD).await.unwrap().user.unwrap();
    assert!(kept.id == own_id && kept.email_verified);
    assert_refused(fixture.sign_in("gone", OLD_PASSWORD).await, Code::Unauthenticated, "CREDENTIALS_INVALID");
    assert_eq!(fixture.sign_in("chief", OLD_PASSWORD).await.unwrap().user.unwrap().role, "admin");

    // What stands twice in a dry run is told there, as it would be; what is refused takes no name.
    let id = "0191d5a0-0000-7000-8000-000000000002";
    let twice = || {
        vec![
            ImportedUser { role: "wizard".into(), ..user("twin", good) },
            ImportedUser { id: id.into(), ..user("twin", good) },
            ImportedUser { email: "x@example.com".into(), ..user("twin", good) },
            ImportedUser { id: id.into(), ..user("other-twin", good) },
            user("twin", good),
        ]
    };
    for dry_run in [true, false] {
        let tried = import(&fixture, &root, dry_run, twice()).await.unwrap();
        let reasons: Vec<_> = tried.iter().map(|answer| answer.reason.as_str()).collect();
        assert_eq!(reasons, ["ROLE_NOT_FOUND", "", "USERNAME_TAKEN", "USER_ID_TAKEN", ""], "dry run: {dry_run}");
        assert_eq!(tried[4].outcome(), ImportOutcome::AlreadyThere);
    }
}

/// Attack: an account under the id of somebody whose tasks it would get, or whose purge it would run into.
#[tokio::test]
async fn nobody_is_imported_under_an_id_that_means_somebody_else() {
    let fixture = Fixture::start().await;
    let root = administrator(&fixture).await;
    let request = CreateServiceAccountRequest { name: "robot".into(), permissions: vec!["audit.read".into()] };
    let mut accounts = ServiceAccountServiceClient::new(fixture.server.channel_with(&root));
    let robot = accounts.create_service_account(request).await.unwrap().into_inner().service_account.unwrap().id;
    let ann = fixture.sign_up("ann@example.com", "ann", PASSWORD).await.unwrap();
    let (ann, token) = (ann.user.unwrap().id, ann.tokens.unwrap().access_token);
    let mut me = AuthServiceClient::new(fixture.server.channel_with(&token));
    me.delete_me(DeleteMeRequest { password: PASSWORD.into() }).await.unwrap();

    let nobody = "00000000-0000-0000-0000-000000000000".to_owned();
    for (id, reason) in [(nobody, "VALIDATION_FAILED"), (robot, "USER_ID_TAKEN"), (ann.clone(), "USER_ID_TAKEN")] {
        for dry_run in [true, false] {
            let taken = ImportedUser { id: id.clone(), ..user("impostor", HASHES[0].1) };
            let answers = import(&fixture, &root, dry_run, vec![taken]).await.unwrap();
            assert_eq!((answers[0].reason.as_str(), answers[0].field.as_str()), (reason, "id"), "{id}");
        }
    }
    // When the last purge is over the account may come back.
    fixture.sql("DELETE FROM user_deletions").await;
    let back = ImportedUser { id: ann, ..user("ann", HASHES[0].1) };
    let answers = import(&fixture, &root, false, vec![back]).await.unwrap();
    assert_eq!(answers[0].outcome(), ImportOutcome::Created);
}

/// bcrypt reads 72 bytes: what comes after them is not known to be right, so it must not become the password.
#[tokio::test]
async fn a_long_password_of_bcrypt_keeps_its_hash() {
    let fixture = Fixture::start().await;
    let root = administrator(&fixture).await;
    // bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4))
    let hash = "$2b$04$p7La44smpk1NsFWHYtBBa.kSiqYev/RBchN7QKvkZoDAClkzXJMJO";
    import(&fixture, &root, false, vec![user("long", hash)]).await.unwrap();
    fixture.sign_in("long", &format!("{}typo", "x".repeat(72))).await.unwrap();
    fixture.sign_in("long", &format!("{}right", "x".repeat(72))).await.unwrap();
    assert_eq!(fixture.count("SELECT count(*) FROM users WHERE password_hash LIKE '$2b$%'").await, 1);
    fixture.sign_in("long", &"x".repeat(72)).await.unwrap();
    assert_eq!(fixture.count("SELECT count(*) FROM users WHERE password_hash LIKE '$2b$%'").await, 0);
}

#[tokio::test]
async fn only_who_may_imports_and_gives_no_more_than_held() {
    let fixture = Fixture::start().await;
    let root = administrator(&fixture).await;
    let member = fixture.sign_up("ann@example.com", "ann", PASSWORD).await.unwrap();
    let member_token = member.tokens.unwrap().access_token;
    let answer = import(&fixture, &member_token, false, vec![user("x", HASHES[0].1)]).await;
    assert_refused(answer, Code::PermissionDenied, "PERMISSION_MISSING");

    let request = CreateRoleRequest {
        name: "clerk".into(),
        display_name: "Clerk".into(),
        permissions: vec!["users.read".into(), "users.write".into()],
        ..Default::default()
    };
    RoleServiceClient::new(fixture.server.channel_with(&root)).create_role(request).await.unwrap();
    let mut users = UserServiceClient::new(fixture.server.channel_with(&root));
    let id = member.user.unwrap().id;
    users.assign_role(AssignRoleRequest { user_id: id.clone(), role: "clerk".into() }).await.unwrap();
    let clerk = fixture.sign_in("ann", PASSWORD).await.unwrap().tokens.unwrap().access_token;
    let chief = ImportedUser { role: "admin".into(), ..user("chief", HASHES[0].1) };
    let answers = import(&fixture, &clerk, false, vec![chief, user("x", HASHES[0].1)]).await.unwrap();
    assert_eq!(answers[0].reason, "PERMISSION_MISSING");
    assert_eq!(answers[1].outcome(), ImportOutcome::Created);

    // The options come first and once.
    let account = |name| ImportUsersRequest { part: Some(Part::User(user(name, HASHES[0].1))) };
    let options = || ImportUsersRequest { part: Some(Part::Options(ImportOptions { dry_run: false })) };
    for messages in
        [vec![], vec![account("y")], vec![options(), options()], vec![options(), ImportUsersRequest { part: None }]]
    {
        assert_refused(send(&fixture, &root, messages).await, Code::InvalidArgument, "VALIDATION_FAILED");
    }
    // Who loses the permission on the way ends there.
    users.set_user_active(SetUserActiveRequest { id, is_active: false }).await.unwrap();
    let answer = import(&fixture, &clerk, false, vec![user("z", HASHES[0].1)]).await;
    assert_refused(answer, Code::Unauthenticated, "TOKEN_REVOKED");
}
