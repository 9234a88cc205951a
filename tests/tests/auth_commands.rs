//! The program's other commands: configuration, the first administrator, hashes, keys.
#![expect(clippy::unwrap_used, reason = "a suite ends the test with a panic")]

mod auth_support;

use std::io::Write as _;
use std::time::Duration;

use auth_support::{CHEAP_HASHES, Fixture};
use proto::auth::v1::token_service_client::TokenServiceClient;
use proto::auth::v1::{ListSigningKeysRequest, SigningKey, SigningKeyState};
use tests::{AuthServer, PASSWORD, ProgramRun, Service, TestDatabase, assert_refused, run_program};
use tonic::Code;

/// 32 bytes each.
const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const OTHER_KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

/// The lines on stderr that are no log lines.
fn told(run: &ProgramRun) -> Vec<&str> {
    run.stderr.lines().filter(|line| !line.starts_with('{')).collect()
}

#[tokio::test]
async fn a_bad_configuration_is_one_line_that_names_the_variable() {
    const DATABASE: (&str, &str) = ("DATABASE_URL", "postgres://me:s3cret@127.0.0.1:1/auth");
    const PEER: (&str, &str) = ("TASK_SERVICE_URL", "http://127.0.0.1:1");
    const SMTP: (&str, &str) = ("SMTP_URL", "smtps://u:s3cret@mail.example.com");
    const FROM: (&str, &str) = ("MAIL_FROM", "no-reply@example.com");
    const SEAL: (&str, &str) = ("KEY_ENCRYPTION_KEY", KEY);
    // A certificate and the key of another.
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let certified = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = file("certificate.pem", certified().cert.pem());
    let key = file("key.pem", certified().signing_key.serialize_pem());
    let bad = [
        (vec![PEER, SEAL], "DATABASE_URL"),
        (vec![DATABASE, SEAL], "TASK_SERVICE_URL"),
        (vec![DATABASE, PEER], "KEY_ENCRYPTION_KEY"),
        (vec![DATABASE, PEER, ("KEY_ENCRYPTION_KEY", "")], "KEY_ENCRYPTION_KEY"),
        (vec![DATABASE, PEER, ("KEY_ENCRYPTION_KEY", "s3cret")], "KEY_ENCRYPTION_KEY"),
        (vec![DATABASE, PEER, ("KEY_ENCRYPTION_KEY", "czNjcmV0")], "KEY_ENCRYPTION_KEY"),
        (vec![DATABASE, PEER, SEAL, ("PASSWORD_HASH_MEMORY_KIB", "19455")], "PASSWORD_HASH_MEMORY_KIB"),
        (vec![DATABASE, PEER, SEAL, ("PASSWORD_HASH_ITERATIONS", "1")], "PASSWORD_HASH_ITERATIONS"),
        (vec![DATABASE, PEER, SEAL, ("PASSWORD_HASH_PARALLELISM", "0")], "PASSWORD_HASH_PARALLELISM"),
        (vec![DATABASE, PEER, SEAL, ("PASSWORD_HASH_MAX_MEMORY_KIB", "32768")], "PASSWORD_HASH_MEMORY_KIB"),
        (vec![DATABASE, PEER, SEAL, ("ACCESS_TOKEN_TTL", "0s")], "ACCESS_TOKEN_TTL"),
        (vec![DATABASE, PEER, SEAL, ("REFRESH_TOKEN_TTL", "31d")], "REFRESH_TOKEN_TTL"),
        (vec![DATABASE, PEER, SEAL, ("SIGN_UP", "maybe")], "SIGN_UP"),
        (vec![DATABASE, PEER, SEAL, ("SMTP_URL", "http://u:s3cret@mail")], "SMTP_URL"),
        (vec![DATABASE, PEER, SEAL, SMTP], "MAIL_FROM"),
        (vec![DATABASE, PEER, SEAL, SMTP, ("MAIL_FROM", "nobody")], "MAIL_FROM"),
        (vec![DATABASE, PEER, SEAL, FROM, ("SMTP_URL", "smtp://u:s3cret@mail.example.com:587")], "SMTP_URL"),
        (vec![DATABASE, PEER, SEAL, SMTP, FROM, ("SMTP_CA_FILE", "/nope")], "SMTP_CA_FILE"),
        (vec![DATABASE, PEER, SEAL, SMTP, FROM, ("SMTP_CA_FILE", &key)], "SMTP_CA_FILE"),
        (vec![DATABASE, PEER, SEAL, ("PASSWORD_RESET_LINK", "https://example.com/")], "PASSWORD_RESET_LINK"),
        (vec![DATABASE, PEER, SEAL, ("EMAIL_VERIFICATION_LINK", "{token}")], "EMAIL_VERIFICATION_LINK"),
        (vec![("DATABASE_URL", "postgres://me:s3cret@tpw@127.0.0.1:1/auth"), PEER, SEAL], "DATABASE_URL"),
        (
            vec![
                ("DATABASE_URL", "postgres://me:s3cret@127.0.0.1:1/auth?sslmode=verify-full&sslrootcert=/nope"),
                PEER,
                SEAL,
            ],
            "DATABASE_URL",
        ),
        (vec![DATABASE, PEER, SEAL, ("TLS_CERT_FILE", "/nope"), ("TLS_KEY_FILE", &key)], "TLS_CERT_FILE"),
        (vec![DATABASE, PEER, SEAL, ("TLS_CERT_FILE", &certificate), ("TLS_KEY_FILE", &key)], "TLS_KEY_FILE"),
    ];
    for command in [&["serve"][..], &["config", "check"]] {
        for (environment, variable) in &bad {
            let run = run_program(Service::Auth, command, environment, "").await;
            let lines = told(&run);
            assert_eq!((run.code, lines.len()), (2, 1), "{command:?} {environment:?}: {run:#?}");
            assert!(lines[0].contains(variable), "{run:#?}");
            assert!(
                !run.stderr.contains("s3cret") && !run.stderr.contains("czNjcmV0") && !run.stderr.contains(KEY),
                "{run:#?}"
            );
        }
    }
    let with_mail = [DATABASE, PEER, SEAL, SMTP, FROM, ("SMTP_CA_FILE", certificate.as_str())];
    let good = [DATABASE, PEER, SEAL];
    for good in [&good[..], &with_mail] {
        let run = run_program(Service::Auth, &["config", "check"], good, "").await;
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{run:#?}");
    }
    let run = run_program(Service::Auth, &["config", "print"], &good, "").await;
    assert!(run.code == 0 && run.stdout.contains("KEY_ENCRYPTION_KEY=*") && !run.stdout.contains(KEY), "{run:#?}");
    let help = run_program(Service::Auth, &["serve", "--help"], &[], "").await;
    for variable in [
        "DATABASE_URL",
        "LISTEN_ADDR",
        "METRICS_ADDR",
        "TASK_SERVICE_URL",
        "TLS_CERT_FILE",
        "JWT_ISSUER",
        "JWT_AUDIENCE",
        "ACCESS_TOKEN_TTL",
        "REFRESH_TOKEN_TTL",
        "KEY_ENCRYPTION_KEY",
        "SMTP_URL",
        "MAIL_FROM",
        "MAIL_DIR",
        "SMTP_CA_FILE",
        "PASSWORD_RESET_LINK",
        "EMAIL_VERIFICATION_LINK",
        "LOG_FORMAT",
        "RUST_LOG",
    ] {
        assert!(help.stdout.contains(variable), "{variable} is not in --help");
    }
}

/// `admin bootstrap` on one database.
struct Bootstrap {
    url: String,
}

impl Bootstrap {
    async fn run(&self, arguments: &[&str], stdin: &str) -> ProgramRun {
        let environment = [CHEAP_HASHES, &[("DATABASE_URL", self.url.as_str())]].concat();
        run_program(Service::Auth, &[&["admin", "bootstrap"], arguments].concat(), &environment, stdin).await
    }
}

async fn hash_of(password: &str) -> String {
    let run = run_program(Service::Auth, &["admin", "hash-password"], CHEAP_HASHES, password).await;
    assert_eq!(run.code, 0, "{run:#?}");
    assert_eq!(run.stdout.lines().count(), 1, "one PHC string: {run:#?}");
    run.stdout.trim().to_owned()
}

#[tokio::test]
async fn bootstrap_makes_finds_reports_and_resets() {
    let fixture = Fixture::start().await;
    let bootstrap = Bootstrap { url: fixture.database.runtime_url() };
    let asked = ["--email", "Root@Example.com", "--username", "root", "--password-stdin"];
    let (other, hash) = ("another zebra 4 battery", hash_of("another zebra 4 battery").await);

    let run = bootstrap.run(&asked, PASSWORD).await;
    assert_eq!(run.code, 0, "{run:#?}");
    let user = fixture.sign_in("root@example.com", PASSWORD).await.unwrap().user.unwrap();
    assert_eq!((user.email.as_str(), user.role.as_str()), ("Root@Example.com", "admin"));

    // Again, in another case, with a line break: as asked.
    for (email, stdin) in [("Root@Example.com", PASSWORD.to_owned()), ("root@EXAMPLE.com", format!("{PASSWORD}\n"))] {
        let run = bootstrap.run(&["--email", email, "--password-stdin"], &stdin).await;
        assert_eq!(run.code, 0, "{run:#?}");
    }
    assert_eq!(fixture.count("SELECT count(*) FROM users").await, 1);

    // Another password, by text and by hash: reported, left alone.
    for (arguments, stdin) in [
        (&["--email", "root@example.com", "--password-stdin"][..], other),
        (&["--email", "root@example.com", "--password-hash", &hash], ""),
    ] {
        let run = bootstrap.run(arguments, stdin).await;
        assert_eq!((run.code, told(&run).len()), (3, 1), "{run:#?}");
        assert!(
            run.stderr.contains("--reset")
                && run.stderr.contains(&user.id)
                && !run.stderr.to_lowercase().contains("root@"),
            "{run:#?}"
        );
    }
    let tokens = fixture.sign_in("root", PASSWORD).await.unwrap().tokens.unwrap();

    // Another role, inactive.
    fixture.sql("UPDATE users SET is_active = false, role_id = (SELECT id FROM roles WHERE name = 'member')").await;
    let run = bootstrap.run(&asked, PASSWORD).await;
    assert_eq!(run.code, 3, "{run:#?}");
    assert!(run.stderr.contains("the role member") && run.stderr.contains("deactivated"), "{run:#?}");

    // Reset sets all of it and ends the sessions; then it is as asked.
    let run = bootstrap.run(&["--email", "root@example.com", "--password-hash", &hash, "--reset"], "").await;
    assert_eq!(run.code, 0, "{run:#?}");
    assert_refused(fixture.refresh(&tokens.refresh_token).await, Code::Unauthenticated, "REFRESH_TOKEN_INVALID");
    assert_refused(fixture.sign_in("root", PASSWORD).await, Code::Unauthenticated, "CREDENTIALS_INVALID");
    assert_eq!(fixture.sign_in("root", other).await.unwrap().user.unwrap().role, "admin");
    assert_eq!(bootstrap.run(&["--email", "root@example.com", "--password-hash", &hash], "").await.code, 0);
    assert_eq!(fixture.count("SELECT count(*) FROM sessions WHERE end_reason = 'admin_reset'").await, 2);
}

#[tokio::test]
async fn bootstrap_takes_hashes_from_files_and_refuses_bad_ones_before_it_connects() {
    let fixture = Fixture::start().await;
    let bootstrap = Bootstrap { url: fixture.database.runtime_url() };
    let hash = hash_of(PASSWORD).await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, "\n  {hash}\r\n\n").unwrap();
    let path = file.path().to_str().unwrap();
    let run = bootstrap.run(&["--email", "filed@example.com", "--password-hash-file", path], "").await;
    assert_eq!(run.code, 0, "{run:#?}");
    assert_eq!(
        fixture.sign_in("filed", PASSWORD).await.unwrap().user.unwrap().role,
        "admin",
        "the name is what stands before the @"
    );

    // Nobody answers there: what is refused with code 2 was refused before.
    let nowhere = Bootstrap { url: "postgres://me@127.0.0.1:9/auth".to_owned() };
    let eaten = hash.replace('$', "");
    let cheap = hash.replace("m=19456", "m=4096");
    let dear = hash.replace("m=19456", "m=4000000");
    for (given, expected) in [
        (eaten.as_str(), "lost its \"$\" signs"),
        ("=19=65536,t=3,p=4/EiaQ/cpo", "lost its \"$\" signs"),
        ("secret", "PHC string"),
        ("", "PHC string"),
        ("$2b$12$C6UzMDM.H6dfI/f/IKcEeOVNlGXSqbwP.4Iq8HbqYhZB0kIfl3bNi", "argon2id, version 19"),
        (&hash.replace("argon2id", "argon2i"), "argon2id, version 19"),
        (&cheap, "m is 4096"),
        (&dear, "m is 4000000"),
    ] {
        let run = nowhere.run(&["--email", "x@example.com", "--password-hash", given], "").await;
        assert_eq!((run.code, told(&run).len()), (2, 1), "{given}: {run:#?}");
        assert!(run.stderr.contains(expected), "{given}: {run:#?}");
    }
    for (arguments, stdin) in [
        (&["--email", "x@example.com", "--password-stdin"][..], ""),
        (&["--email", "x@example.com", "--password-stdin"], "short"),
        (&["--email", "x@example.com", "--password-stdin"], "password123"),
        (&["--email", "x@example.com", "--password-hash-file", "/nowhere"], ""),
        (&["--email", " ", "--password-stdin"], PASSWORD),
        (&["--email", "x@example.com"], ""),
        (&["--password-stdin"], PASSWORD),
        (&["--email", "x@example.com", "--password-stdin", "--password-hash", &hash], PASSWORD),
    ] {
        let run = nowhere.run(arguments, stdin).await;
        assert_eq!((run.code, told(&run).len()), (2, 1), "{arguments:?}: {run:#?}");
    }
    let run = nowhere.run(&["--email", "x@example.com", "--password-stdin"], PASSWORD).await;
    assert_eq!((run.code, told(&run).len()), (1, 1), "{run:#?}");

    // The rules for new accounts count when there is no such account.
    for arguments in [
        &["--email", "no-at-sign", "--password-stdin"][..],
        &["--email", "x@example.com", "--username", "a@b", "--password-stdin"],
    ] {
        let run = bootstrap.run(arguments, PASSWORD).await;
        assert_eq!((run.code, told(&run).len()), (2, 1), "{arguments:?}: {run:#?}");
        assert!(run.stderr.contains("--email:") || run.stderr.contains("--username:"), "{run:#?}");
    }

    let run = bootstrap.run(&["--email", "new@example.com", "--username", "FILED", "--password-stdin"], PASSWORD).await;
    assert_eq!(run.code, 1, "{run:#?}");
    assert!(run.stderr.contains("--username"), "{run:#?}");
    assert_eq!(fixture.count("SELECT count(*) FROM users").await, 1);

    let empty = TestDatabase::empty().await;
    let run =
        Bootstrap { url: empty.migrator_url() }.run(&["--email", "x@example.com", "--password-stdin"], PASSWORD).await;
    assert!(run.code == 1 && run.stderr.contains("migrate up"), "{run:#?}");
}

/// Accounts from before today's rules, and addresses whose first part is no user name.
#[tokio::test]
async fn bootstrap_reaches_every_account_and_finds_a_free_user_name() {
    let fixture = Fixture::start().await;
    let bootstrap = Bootstrap { url: fixture.database.runtime_url() };
    let long = "l".repeat(64);
    fixture.sign_up("legacy@example.com", "legacy", PASSWORD).await.unwrap();
    for email in ["legacy", "two words@example.com", "a@b@c", &format!("{long}@example.com")] {
        fixture.sql(&format!("UPDATE users SET email = '{email}', email_key = '{email}'")).await;
        let run = bootstrap.run(&["--email", email, "--password-stdin"], PASSWORD).await;
        assert_eq!(run.code, 3, "{email}: {run:#?}");
        assert!(run.stderr.contains("the role member"), "{run:#?}");
    }
    let run =
        bootstrap.run(&["--email", &format!("{long}@EXAMPLE.com"), "--reset", "--password-stdin"], PASSWORD).await;
    assert_eq!(run.code, 0, "{run:#?}");

    // Two that are cut to the same name, and a name that somebody else has.
    for email in [&format!("{long}1@example.com"), &format!("{long}2@example.com"), "legacy@example.org"] {
        let run = bootstrap.run(&["--email", email, "--password-stdin"], PASSWORD).await;
        assert_eq!((run.code, run.stdout.contains("created")), (0, true), "{email}: {run:#?}");
    }
    let (one, two) = ("l".repeat(50), format!("{}-2", "l".repeat(48)));
    let named =
        fixture.count(&format!("SELECT count(*) FROM users WHERE username IN ('{one}', '{two}', 'legacy-2')")).await;
    assert_eq!(named, 3);
}

#[tokio::test]
async fn two_resets_at_once_both_reset() {
    let database = TestDatabase::migrated_auth().await;
    let bootstrap = Bootstrap { url: database.runtime_url() };
    let asked = ["--email", "root@example.com", "--reset", "--password-stdin"];
    let (one, other) = tokio::join!(bootstrap.run(&asked, PASSWORD), bootstrap.run(&asked, "another zebra 4 battery"));
    assert_eq!((one.code, other.code), (0, 0), "{one:#?} {other:#?}");
}

#[tokio::test]
async fn two_bootstraps_at_once_make_one_administrator() {
    let database = TestDatabase::migrated_auth().await;
    let bootstrap = Bootstrap { url: database.runtime_url() };
    let asked = ["--email", "root@example.com", "--password-stdin"];
    let (one, other) = tokio::join!(bootstrap.run(&asked, PASSWORD), bootstrap.run(&asked, PASSWORD));
    assert_eq!((one.code, other.code), (0, 0), "{one:#?} {other:#?}");
    assert_eq!(bootstrap.run(&asked, PASSWORD).await.code, 0);
    let count: i64 = database.client().await.query_one("SELECT count(*) FROM users", &[]).await.unwrap().get(0);
    assert_eq!(count, 1);
}

#[tokio::test]
async fn hash_password_reads_stdin_and_prints_a_phc_string() {
    let run = run_program(Service::Auth, &["admin", "hash-password"], &[], "Carol-Pa55word!\n").await;
    assert!(run.code == 0 && run.stdout.starts_with("$argon2id$v=19$m=65536,t=3,p=4$"), "{run:#?}");
    let known = run_program(Service::Auth, &["admin", "hash-password"], CHEAP_HASHES, "password").await;
    assert!(known.code == 0 && known.stderr.contains("warning"), "{known:#?}");
    let empty = run_program(Service::Auth, &["admin", "hash-password"], CHEAP_HASHES, "\n").await;
    assert_eq!((empty.code, told(&empty).len(), empty.stdout.as_str()), (2, 1, ""), "{empty:#?}");
    let below =
        run_program(Service::Auth, &["admin", "hash-password"], &[("PASSWORD_HASH_MEMORY_KIB", "8")], PASSWORD).await;
    assert_eq!((below.code, told(&below).len()), (2, 1), "{below:#?}");
}

async fn published(server: &AuthServer) -> Vec<SigningKey> {
    let answer = TokenServiceClient::new(server.channel()).list_signing_keys(ListSigningKeysRequest {}).await;
    answer.unwrap().into_inner().keys
}

#[tokio::test]
async fn replicas_that_start_together_agree_on_one_key_and_rotate_it_without_a_restart() {
    let database = TestDatabase::migrated_auth().await;
    let seal = [("KEY_ENCRYPTION_KEY", KEY)];
    let settings = [CHEAP_HASHES, &seal].concat();
    let (one, two) = tokio::join!(AuthServer::start(&database, &settings), AuthServer::start(&database, &settings));
    let first = published(&one).await;
    assert_eq!(first.len(), 1);
    assert_eq!(first, published(&two).await);

    let fixture = Fixture { client: database.client().await, server: one, database };
    let old = fixture.sign_up("alice@example.com", "alice", PASSWORD).await.unwrap().tokens.unwrap();
    let url = fixture.database.runtime_url();
    let keys = async |arguments: &[&str], key| {
        let environment = [("DATABASE_URL", url.as_str()), ("KEY_ENCRYPTION_KEY", key)];
        run_program(Service::Auth, &[&["keys"], arguments, &["--output", "json"]].concat(), &environment, "").await
    };
    let wrong = keys(&["rotate"], OTHER_KEY).await;
    assert!(wrong.code == 1 && wrong.stderr.contains("KEY_ENCRYPTION_KEY"), "{wrong:#?}");
    assert_eq!(fixture.count("SELECT count(*) FROM signing_keys").await, 1, "nothing was changed");

    let run = keys(&["rotate", "--activate-in", "15s"], KEY).await;
    assert_eq!(run.code, 0, "{run:#?}");
    let listed: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let states: Vec<_> = listed.as_array().unwrap().iter().map(|key| key["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["active", "published"], "published before it signs");
    assert!(!run.stdout.contains("private") && !run.stdout.contains("sealed"), "{run:#?}");

    // Both replicas publish it before it signs, then it signs, and the old tokens go on.
    let until = tokio::time::Instant::now() + Duration::from_secs(40);
    let states = async |server: &AuthServer| -> Vec<SigningKeyState> {
        published(server).await.iter().map(SigningKey::state).collect()
    };
    let mut seen_published = false;
    while states(&fixture.server).await != [SigningKeyState::Retiring, SigningKeyState::Active]
        || states(&two).await != states(&fixture.server).await
    {
        seen_published |= states(&fixture.server).await == [SigningKeyState::Active, SigningKeyState::Published];
        assert!(tokio::time::Instant::now() < until, "{:?}", published(&fixture.server).await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(seen_published);
    let new = fixture.sign_in("alice", PASSWORD).await.unwrap().tokens.unwrap();
    assert_ne!(old.access_token.split('.').next(), new.access_token.split('.').next(), "another kid in the header");
    let fixture = Fixture { server: two, ..fixture };
    fixture.me(&old.access_token).await.unwrap();
    fixture.me(&new.access_token).await.unwrap();
}

#[tokio::test]
async fn a_wrong_key_encryption_key_stops_the_start_and_makes_no_new_key() {
    let database = TestDatabase::migrated_auth().await;
    drop(AuthServer::start(&database, &[("KEY_ENCRYPTION_KEY", KEY)]).await);
    let failure = AuthServer::try_start(&database, &[("KEY_ENCRYPTION_KEY", OTHER_KEY)]).await.unwrap_err();
    assert_eq!((failure.code, told(&failure).len()), (2, 1), "{failure:#?}");
    assert!(told(&failure)[0].contains("KEY_ENCRYPTION_KEY"), "{failure:#?}");
    let count: i64 = database.client().await.query_one("SELECT count(*) FROM signing_keys", &[]).await.unwrap().get(0);
    assert_eq!(count, 1);
    AuthServer::start(&database, &[("KEY_ENCRYPTION_KEY", KEY)]).await;
}

/// A later version's key, then a damaged row: neither ends a running service.
#[tokio::test]
async fn rows_of_signing_keys_that_do_not_open_leave_a_running_service_its_keys() {
    let database = TestDatabase::migrated_auth().await;
    database
        .execute(
            "INSERT INTO signing_keys (kid, algorithm, public_key, private_key_sealed, activates_at) \
             VALUES ('later', 'ML-DSA-65', '\\x00', '\\x00', now())",
        )
        .await;
    let fixture = Fixture::start_on(database, &[]).await;
    fixture.server.wait_for_log(|line| line.contains("does not know") && line.contains("ML-DSA-65")).await;
    assert_eq!(published(&fixture.server).await.len(), 1);
    fixture.sign_up("alice@example.com", "alice", PASSWORD).await.unwrap();

    fixture.sql("UPDATE signing_keys SET algorithm = 'EdDSA' WHERE kid = 'later'").await;
    fixture.server.wait_for_log(|line| line.contains("later is damaged") && line.contains("are kept")).await;
    fixture.sign_in("alice", PASSWORD).await.unwrap();

    // A start has no keys to keep; it says what is wrong, which is not KEY_ENCRYPTION_KEY's value.
    let failure = AuthServer::try_start(&fixture.database, &[]).await.unwrap_err();
    assert_eq!((failure.code, told(&failure).len()), (1, 1), "{failure:#?}");
    assert!(told(&failure)[0].contains("repair or delete its row in signing_keys"), "{failure:#?}");
}
