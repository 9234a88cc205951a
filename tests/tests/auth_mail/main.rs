//! Mails over real SMTP conversations: a new password for who forgot the old one, and showing that an address is one's own.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a suite ends the test with a panic")]

#[path = "../auth_support/mod.rs"]
mod auth_support;
mod smtp;

use std::io::Write as _;
use std::time::{Duration, Instant};

use auth_support::{Fixture, metrics_page};
use proto::auth::v1::auth_service_client::AuthServiceClient;
use proto::auth::v1::user_service_client::UserServiceClient;
use proto::auth::v1::*;
use smtp::{Encryption, SmtpServer};
use tests::{Authorized, PASSWORD, TestDatabase, assert_refused};
use tonic::{Code, Status};

const OTHER: &str = "another 7 giraffe in the library";
const FROM: (&str, &str) = ("MAIL_FROM", "Example <no-reply@example.com>");
/// Nothing here takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// A service that sends to this server, with the account alice.
async fn alice(smtp: &SmtpServer) -> (Fixture, Tokens) {
    let url = smtp.url();
    let fixture = Fixture::start_with(&[("SMTP_URL", &url), FROM]).await;
    let tokens = fixture.sign_up("alice@example.com", "alice", PASSWORD).await.unwrap().tokens.unwrap();
    (fixture, tokens)
}

async fn ask(fixture: &Fixture, email: &str) -> Result<(), Status> {
    let request = RequestPasswordResetRequest { email: email.into() };
    AuthServiceClient::new(fixture.server.channel()).request_password_reset(request).await.map(|_| ())
}

async fn reset(fixture: &Fixture, token: &str, new: &str) -> Result<(), Status> {
    let request = ResetPasswordRequest { token: token.into(), new_password: new.into() };
    AuthServiceClient::new(fixture.server.channel()).reset_password(request).await.map(|_| ())
}

async fn ask_verification(fixture: &Fixture, tokens: &Tokens) -> Result<(), Status> {
    let mut client = AuthServiceClient::new(fixture.server.channel_with(&tokens.access_token));
    client.request_email_verification(RequestEmailVerificationRequest {}).await.map(|_| ())
}

async fn verify(fixture: &Fixture, token: &str) -> Result<(), Status> {
    let request = VerifyEmailRequest { token: token.into() };
    AuthServiceClient::new(fixture.server.channel()).verify_email(request).await.map(|_| ())
}

fn assert_token_refused(answer: Result<(), Status>) {
    let refused = assert_refused(answer, Code::InvalidArgument, "MAIL_TOKEN_INVALID");
    assert_eq!(refused.fields, ["token"]);
}

/// Waits until `sql` counts nothing.
async fn until_none(fixture: &Fixture, sql: &str) {
    let started = Instant::now();
    while fixture.count(sql).await != 0 {
        assert!(started.elapsed() < PATIENCE, "still counts: {sql}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

const OUTBOX: &str = "SELECT count(*) FROM mail_outbox";

#[tokio::test]
async fn a_forgotten_password_is_replaced_with_the_token_from_the_mail() {
    let smtp = SmtpServer::start(Encryption::Never, false).await;
    let (fixture, tokens) = alice(&smtp).await;
    ask(&fixture, "ALICE@example.com").await.unwrap();
    let mail = smtp.mail(1).await;
    assert_eq!(
        (mail.from.as_str(), mail.to.as_slice()),
        ("no-reply@example.com", &["alice@example.com".to_owned()][..])
    );
    for part in
        ["Subject: Set a new password", "From: Example <no-reply@example.com>", "text/plain", "text/html", "Date: "]
    {
        assert!(mail.data.contains(part), "{part}: {}", mail.data);
    }
    assert!(!mail.encrypted && !mail.authenticated);
    until_none(&fixture, OUTBOX).await;
    // The database has the hash alone.
    let token = mail.token();
    let stored =
        format!("SELECT count(*) FROM password_reset_tokens WHERE token_hash = encode(sha256('{token}'), 'hex')");
    assert_eq!(fixture.count(&stored).await, 1);

    let weak = assert_refused(reset(&fixture, &token, "password1").await, Code::InvalidArgument, "VALIDATION_FAILED");
    assert_eq!(weak.fields, ["new_password"], "and the token is still good");
    let own = reset(&fixture, &token, "alice@example.com").await;
    assert_eq!(assert_refused(own, Code::InvalidArgument, "VALIDATION_FAILED").fields, ["new_password"]);
    reset(&fixture, &token, OTHER).await.unwrap();
    fixture.sign_in("alice", OTHER).await.unwrap();
    assert_refused(fixture.sign_in("alice", PASSWORD).await, Code::Unauthenticated, "CREDENTIALS_INVALID");
    assert_refused(fixture.me(&tokens.access_token).await, Code::Unauthenticated, "TOKEN_REVOKED");
    assert_refused(fixture.refresh(&tokens.refresh_token).await, Code::Unauthenticated, "REFRESH_TOKEN_INVALID");
    let audited = "SELECT count(*) FROM audit_events WHERE reason IS NULL AND target_type = 'USER' \
        AND (action, actor_type) IN (('PASSWORD_RESET_REQUEST', 'ANONYMOUS'), ('PASSWORD_RESET', 'USER'))";
    assert_eq!(fixture.count(audited).await, 2);
}

/// Attack: a token from a mail is used twice, or by two at once.
#[tokio::test]
async fn a_reset_token_is_good_once() {
    let smtp = SmtpServer::start(Encryption::Never, false).await;
    let (fixture, _) = alice(&smtp).await;
    ask(&fixture, "alice@example.com").await.unwrap();
    let token = smtp.mail(1).await.token();
    let tries = (0..8).map(|n| reset_owned(&fixture, &token, format!("{OTHER} {n}")));
    let answers = futures_util::future::join_all(tries).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
    assert_token_refused(reset(&fixture, &token, OTHER).await);
    answers.into_iter().filter(Result::is_err).for_each(assert_token_refused);
}

async fn reset_owned(fixture: &Fixture, token: &str, new: String) -> Result<(), Status> {
    reset(fixture, token, &new).await
}

/// Attack: an older token is used after a newer one was asked for, after it ran out, after the password or the address
/// changed, or for an account that was deactivated.
#[tokio::test]
async fn a_reset_token_ends_with_what_makes_it_stale() {
    let smtp = SmtpServer::start(Encryption::Never, false).await;
    let (fixture, tokens) = alice(&smtp).await;
    let next = async || {
        until_none(&fixture, OUTBOX).await;
        let number = smtp.count() + 1;
        // The limit of an hour is not what is tested here.
        fixture.sql("UPDATE password_reset_tokens SET created_at = created_at - interval '2 hours'").await;
        ask(&fixture, "alice@example.com").await.unwrap();
        smtp.mail(number).await.token()
    };
    let older = next().await;
    let newer = next().await;
    assert_token_refused(reset(&fixture, &older, OTHER).await);
    fixture.sql("UPDATE password_reset_tokens SET expires_at = now() WHERE NOT is_used").await;
    assert_token_refused(reset(&fixture, &newer, OTHER).await);

    let token = next().await;
    let mut client = AuthServiceClient::new(fixture.server.channel_with(&tokens.access_token));
    let user = User { email: "alice@example.org".into(), ..User::default() };
    client.update_me(UpdateMeRequest { user: Some(user), update_mask: None }).await.unwrap();
    assert_token_refused(reset(&fixture, &token, OTHER).await);
    fixture.sql("UPDATE users SET email = 'alice@example.com', email_key = 'alice@example.com'").await;

    let token = next().await;
    let request = ChangePasswordRequest { current_password: PASSWORD.into(), new_password: OTHER.into() };
    client.change_password(request).await.unwrap();
    assert_token_refused(reset(&fixture, &token, PASSWORD).await);

    let token = next().await;
    fixture.sql("UPDATE users SET is_active = false").await;
    assert_token_refused(reset(&fixture, &token, PASSWORD).await);
    for nonsense in ["", "x", "'; DROP TABLE users", "\0", &"x".repeat(10_000)] {
        assert_token_refused(reset(&fixture, nonsense, OTHER).await);
        assert_token_refused(verify(&fixture, nonsense).await);
    }
    // Hashing is only for who has a good token.
    let before = fixture.hashes().await;
    assert_token_refused(reset(&fixture, &token, PASSWORD).await);
    assert_eq!(fixture.hashes().await, before);
}

/// Attack: enumeration. The answer is the same for every address, and no sooner for an unknown one.
#[tokio::test]
async fn asking_for_a_new_password_does_not_tell_who_has_an_account() {
    let smtp = SmtpServer::start(Encryption::Never, false).await;
    let (fixture, _) = alice(&smtp).await;
    fixture.sign_up("off@example.com", "off", PASSWORD).await.unwrap();
    fixture.sql("UPDATE users SET is_active = false WHERE username = 'off'").await;
    let long = format!("{}@example.com", "a".repeat(5_000));
    for email in [
        "nobody@example.com",
        "off@example.com",
        "alice",
        "",
        "\0@x",
        "no address",
        "ali\u{200b}ce@example.com",
        "al\u{131}ce@example.com",
        &long,
    ] {
        let started = Instant::now();
        ask(&fixture, email).await.unwrap();
        assert!(started.elapsed() >= Duration::from_millis(100), "{email}: answered in {:?}", started.elapsed());
    }
    assert_eq!(fixture.count(OUTBOX).await, 0);
    let started = Instant::now();
    ask(&fixture, "alice@example.com").await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(100));
    // The mail goes to the address of the account, whatever was typed.
    assert_eq!(smtp.mail(1).await.to, ["alice@example.com"]);
    assert_eq!(smtp.count(), 1);
}

/// Attack: enumeration by keeping an account busy: whoever has to wait for it must not be answered later.
#[tokio::test]
async fn a_busy_account_is_answered_for_as_soon_as_none() {
    let smtp = SmtpServer::start(Encryption::Never, false).await;
    let (fixture, _) = alice(&smtp).await;
    let other = fixture.database.client().await;
    other.batch_execute("BEGIN; SELECT FROM users FOR UPDATE").await.unwrap();
    let mut times = Vec::new();
    for email in ["nobody@example.com", "alice@example.com"] {
        let begun = Instant::now();
        ask(&fixture, email).await.unwrap();
        times.push(begun.elapsed());
    }
    assert!(times.iter().all(|time| *time < Duration::from_secs(2)), "{times:?}");
    assert_eq!(fixture.count(OUTBOX).await, 0);
    other.batch_execute("COMMIT").await.unwrap();
    reset(&fixture, &smtp.mail(1).await.token(), OTHER).await.unwrap();
}

/// Attack: as before, by so many calls that none is left for others.
#[tokio::test]
async fn asking_without_end_fills_the_places_and_tells_nothing() {
    let smtp = SmtpServer::start(Encryption::Never, false).await;
    let (fixture, _) = alice(&smtp).await;
    let other = fixture.database.client().await;
    other.batch_execute("BEGIN; SELECT FROM users FOR UPDATE").await.unwrap();
    // Whoever keeps asking fills the places, and then nobody is served, known or not.
    let many = futures_util::future::join_all((0..80).map(|_| ask(&fixture, "alice@example.com"))).await;
    let refused: Vec<_> = many.into_iter().filter_map(Result::err).collect();
    assert!((1..80).contains(&refused.len()), "{} of 80 are refused", refused.len());
    let unknown = assert_refused(ask(&fixture, "nobody@example.com").await, Code::ResourceExhausted, "RATE_LIMITED");
    assert!(unknown.retry_after.is_some());
    for status in refused {
        assert_refused::<()>(Err(status), Code::ResourceExhausted, "RATE_LIMITED");
    }
    other.batch_execute("COMMIT").await.unwrap();
    smtp.mail(1).await;
}

/// Attack: somebody has a mailbox flooded.
#[tokio::test]
async fn an_account_gets_five_mails_of_a_kind_within_an_hour_and_no_more() {
    let smtp = SmtpServer::start(Encryption::Never, false).await;
    let (fixture, _) = alice(&smtp).await;
    for number in 1..=5 {
        ask(&fixture, "alice@example.com").await.unwrap();
        smtp.mail(number).await;
        until_none(&fixture, OUTBOX).await;
    }
    for _ in 0..5 {
        ask(&fixture, "alice@example.com").await.unwrap();
        assert_eq!(fixture.count(OUTBOX).await, 0);
    }
    // The last one that came stays good: or anybody could keep the owner without a token.
    reset(&fixture, &smtp.mail(5).await.token(), OTHER).await.unwrap();
    let tokens = fixture.sign_in("alice", OTHER).await.unwrap().tokens.unwrap();
    // The other kind has its own count.
    ask_verification(&fixture, &tokens).await.unwrap();
    assert!(smtp.mail(6).await.data.contains("Subject: Confirm your e-mail address"));
    assert!(metrics_page(&fixture.server).await.contains("mails_suppressed_total{kind=\"password_reset\"} 5"));
}

#[tokio::test]
async fn an_address_is_verified_with_the_token_from_the_mail_while_the_account_has_it() {
    let smtp = SmtpServer::start(Encryption::Never, false).await;
    let (fixture, tokens) = alice(&smtp).await;
    ask_verification(&fixture, &tokens).await.unwrap();
    let older = smtp.mail(1).await.token();
    ask_verification(&fixture, &tokens).await.unwrap();
    let newer = smtp.mail(2).await.token();
    assert_token_refused(verify(&fixture, &older).await);
    // Another address meanwhile, and back again: the token was for who had it then.
    let mut client = AuthServiceClient::new(fixture.server.channel_with(&tokens.access_token));
    for (number, email) in [(3, "alice@example.org"), (4, "alice@example.com")] {
        change_address(&mut client, email).await;
        smtp.mail(number).await;
        until_none(&fixture, OUTBOX).await;
    }
    assert_token_refused(verify(&fixture, &newer).await);
    ask_verification(&fixture, &tokens).await.unwrap();
    let token = smtp.mail(5).await.token();
    assert_token_refused(reset(&fixture, &token, OTHER).await);
    verify(&fixture, &token).await.unwrap();
    assert!(fixture.me(&tokens.access_token).await.unwrap().user.unwrap().email_verified);
    assert_token_refused(verify(&fixture, &token).await);
    // Verified: nothing is sent.
    until_none(&fixture, OUTBOX).await;
    ask_verification(&fixture, &tokens).await.unwrap();
    assert_eq!(fixture.count(OUTBOX).await, 0);
    let audited =
        "SELECT count(*) FROM audit_events WHERE action = 'EMAIL_VERIFY' AND changed_fields = '{email_verified}'";
    assert_eq!(fixture.count(audited).await, 1);
}

async fn change_address(client: &mut AuthServiceClient<Authorized>, email: &str) {
    let user = User { email: email.into(), ..User::default() };
    client.update_me(UpdateMeRequest { user: Some(user), update_mask: None }).await.unwrap();
}

/// Attack: who got hold of an access token takes the account over by giving it another address.
#[tokio::test]
async fn the_address_that_an_account_had_is_told_of_the_change() {
    let smtp = SmtpServer::start(Encryption::Never, false).await;
    let (fixture, tokens) = alice(&smtp).await;
    let mut client = AuthServiceClient::new(fixture.server.channel_with(&tokens.access_token));
    // The same mailbox.
    change_address(&mut client, "Alice@Example.com").await;
    assert_eq!(fixture.count(OUTBOX).await, 0);
    change_address(&mut client, "mallory@example.net").await;
    let notice = smtp.mail(1).await;
    assert_eq!(notice.to, ["Alice@Example.com"]);
    for part in ["Subject: The e-mail address of your account was changed", "Hello alice,", "text/html"] {
        assert!(notice.data.contains(part), "{part}: {}", notice.data);
    }
    assert!(!notice.data.contains("mallory"), "the new address is told: {}", notice.data);
    until_none(&fixture, OUTBOX).await;
    for table in ["password_reset_tokens", "email_verification_tokens"] {
        assert_eq!(fixture.count(&format!("SELECT count(*) FROM {table}")).await, 0, "a notice brings no token");
    }

    // An administrator's change is told, too.
    let root = fixture.administrator().await.tokens.unwrap().access_token;
    let mut users = UserServiceClient::new(fixture.server.channel_with(&root));
    let id = fixture.me(&tokens.access_token).await.unwrap().user.unwrap().id;
    let user = User { id, email: "alice@example.edu".into(), ..User::default() };
    users.update_user(UpdateUserRequest { user: Some(user), update_mask: None }).await.unwrap();
    assert_eq!(smtp.mail(2).await.to, ["mallory@example.net"]);

    // Attack: changes that are not told, because those before were: by their number, or by spellings that only look alike.
    for email in ["mallory@strasse.example", "mallory@stra\u{df}e.example"] {
        let before = smtp.count();
        change_address(&mut client, email).await;
        smtp.mail(before + 1).await;
    }
    let user = User { email: "mallory@example.com".into(), ..User::default() };
    let refused = client.update_me(UpdateMeRequest { user: Some(user), update_mask: None }).await;
    let refused = assert_refused(refused, Code::ResourceExhausted, "RATE_LIMITED");
    assert!(refused.retry_after.is_some(), "five changes within an hour, respellings too: the next one comes later");
    until_none(&fixture, OUTBOX).await;
    assert_eq!(smtp.count(), 4);
    assert_eq!(smtp.mail(3).await.to, ["alice@example.edu"]);
    assert_eq!(smtp.mail(4).await.to, ["mallory@strasse.example"]);
}

/// An owner's own address hears of it, although a notice to an address from before still waits; and by the name that was known.
#[tokio::test]
async fn a_notice_that_waits_does_not_keep_another_from_its_addressee() {
    let smtp = SmtpServer::start(Encryption::Never, false).await;
    let (fixture, tokens) = alice(&smtp).await;
    let mut client = AuthServiceClient::new(fixture.server.channel_with(&tokens.access_token));
    smtp.refuse(&[451]);
    change_address(&mut client, "alice@example.org").await;
    // Once it is postponed, which is for seconds; while an attempt is under way it is put off for minutes.
    let hold = "WITH held AS (
            UPDATE mail_outbox SET next_attempt_at = now() + interval '1 hour'
            WHERE attempts = 1 AND next_attempt_at < now() + interval '1 minute' RETURNING id
        ) SELECT 1 - count(*) FROM held";
    until_none(&fixture, hold).await;
    let user = User { email: "mallory@example.net".into(), username: "only a test".into(), ..User::default() };
    client.update_me(UpdateMeRequest { user: Some(user), update_mask: None }).await.unwrap();
    let notice = smtp.mail(1).await;
    assert_eq!(notice.to, ["alice@example.org"]);
    assert!(notice.data.contains("Hello alice,") && !notice.data.contains("only a test"), "{}", notice.data);
    // The sender takes a mail out after the server has it.
    until_none(&fixture, "SELECT count(*) - 1 FROM mail_outbox").await;
    assert_eq!(smtp.count(), 1, "the other one waits on");
}

/// An account from before today's rules has an address that nobody could sign up with now.
#[tokio::test]
async fn a_legacy_address_gets_its_mail_in_the_spelling_it_has() {
    let smtp = SmtpServer::start(Encryption::Never, false).await;
    let (fixture, _) = alice(&smtp).await;
    // No domain of two labels, nor one at all by our rules: mail servers have their own.
    fixture.sql("UPDATE users SET email = 'alice@[127.0.0.1]..', email_key = NULL").await;
    ask(&fixture, "alice@[127.0.0.1]..").await.unwrap();
    let noted = "SELECT count(*) FROM audit_events WHERE action = 'PASSWORD_RESET_REQUEST' AND reason IS NULL";
    assert_eq!(fixture.count(noted).await, 1);
    ask(&fixture, "Alice@[127.0.0.1]..").await.unwrap();
    ask(&fixture, "\0").await.unwrap();
    assert_eq!(fixture.count(noted).await, 1);
}

/// TLS from the first byte, STARTTLS, and an account at the server; a certificate of a private authority.
#[tokio::test]
async fn mails_go_encrypted_and_authenticated() {
    for encryption in [Encryption::StartTls, Encryption::Always] {
        let smtp = SmtpServer::start(encryption, true).await;
        let mut authority = tempfile::NamedTempFile::new().unwrap();
        authority.write_all(smtp.certificate.as_bytes()).unwrap();
        let (url, path) = (smtp.url(), authority.path().to_str().unwrap().to_owned());
        let settings = [("SMTP_URL", url.as_str()), FROM, ("SMTP_CA_FILE", &path)];
        let fixture = Fixture::start_with(&settings).await;
        fixture.sign_up("alice@example.com", "alice", PASSWORD).await.unwrap();
        ask(&fixture, "alice@example.com").await.unwrap();
        let mail = smtp.mail(1).await;
        assert!(mail.encrypted && mail.authenticated, "{encryption:?}");
        reset(&fixture, &mail.token(), OTHER).await.unwrap();
        let logs = fixture.server.logs().join("\n");
        assert!(!logs.contains(smtp::PASSWORD) && !logs.contains("alice@example.com"), "{logs}");
    }
}

/// Without the authority in between nobody is believed, and nothing is sent in clear instead.
#[tokio::test]
async fn a_server_with_a_certificate_of_nobody_gets_no_mail() {
    let smtp = SmtpServer::start(Encryption::StartTls, true).await;
    let (fixture, _) = alice(&smtp).await;
    ask(&fixture, "alice@example.com").await.unwrap();
    let told = fixture.server.wait_for_log(|line| line.contains("a mail was not sent")).await;
    assert!(told.contains("postponed"), "{told}");
    assert_eq!((smtp.count(), fixture.count(OUTBOX).await), (0, 1));
    let started = Instant::now();
    while !metrics_page(&fixture.server).await.contains("mails_waiting 1") {
        assert!(started.elapsed() < PATIENCE, "what waits is not counted");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn a_mail_waits_for_a_server_that_is_away_or_busy_and_brings_the_newest_token() {
    let smtp = SmtpServer::start(Encryption::Never, false).await;
    let (fixture, _) = alice(&smtp).await;
    smtp.refuse(&[451, 421]);
    ask(&fixture, "alice@example.com").await.unwrap();
    let mail = smtp.mail(1).await;
    assert_eq!(smtp.refusals_left(), 0);
    until_none(&fixture, OUTBOX).await;
    let open = "SELECT count(*) FROM password_reset_tokens WHERE NOT is_used";
    assert_eq!(fixture.count(open).await, 1, "the tokens of the attempts before are void");
    reset(&fixture, &mail.token(), OTHER).await.unwrap();
    let logs = fixture.server.logs().join("\n");
    assert!(logs.contains("the SMTP server answered 451") && logs.contains("attempt"), "{logs}");
    assert!(!logs.contains("alice@example.com"), "an address is in the log: {logs}");
    let page = metrics_page(&fixture.server).await;
    assert!(page.contains("mails_sent_total{kind=\"password_reset\"} 1"), "{page}");
    assert!(page.contains("mails_failed_total{kind=\"password_reset\",outcome=\"postponed\"} 2"), "{page}");
}

#[tokio::test]
async fn a_mail_that_no_server_takes_is_given_up() {
    let smtp = SmtpServer::start(Encryption::Never, false).await;
    let (fixture, _) = alice(&smtp).await;
    smtp.refuse(&[550, 550]);
    ask(&fixture, "alice@example.com").await.unwrap();
    // It may be a setting of ours that somebody corrects: for an hour it is tried.
    let told = fixture.server.wait_for_log(|line| line.contains("a mail was not sent")).await;
    assert!(told.contains("postponed") && !told.contains("alice@"), "{told}");
    fixture.sql("UPDATE mail_outbox SET created_at = now() - interval '2 hours', next_attempt_at = now()").await;
    let told = fixture.server.wait_for_log(|line| line.contains("given_up")).await;
    assert!(!told.contains("alice@"), "{told}");
    until_none(&fixture, OUTBOX).await;
    assert_eq!(smtp.count(), 0);
    // A legacy account whose address no mail can go to.
    fixture.sql("UPDATE users SET email = 'alice at home', email_key = 'a@b', email_verified = false").await;
    ask(&fixture, "a@b").await.unwrap();
    until_none(&fixture, OUTBOX).await;
    assert_eq!(smtp.count(), 0);
}

/// A server that takes the connection and says nothing holds up no other mail for long, and nobody's token counts as sent.
#[tokio::test]
async fn a_silent_server_is_given_a_minute() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("smtp://localhost:{}", silent.local_addr().unwrap().port());
    let fixture = Fixture::start_with(&[("SMTP_URL", &url), FROM]).await;
    fixture.sign_up("alice@example.com", "alice", PASSWORD).await.unwrap();
    ask(&fixture, "alice@example.com").await.unwrap();
    let _held = silent.accept().await.unwrap();
    let started = Instant::now();
    until_none(&fixture, "SELECT count(*) FROM mail_outbox WHERE attempts = 0").await;
    let claimed = "SELECT count(*) FROM password_reset_tokens";
    let limit = Duration::from_secs(110);
    while fixture.count(claimed).await != 0 {
        assert!(started.elapsed() < limit, "the conversation does not end");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(fixture.server.logs().join("\n").contains("the SMTP server went silent"));
}

/// Two replicas, one of which is killed while it sends: every mail arrives, whoever sends it.
#[tokio::test]
async fn replicas_share_the_outbox_and_a_killed_one_loses_no_mail() {
    let smtp = SmtpServer::start(Encryption::Never, false).await;
    let url = smtp.url();
    let settings = [("SMTP_URL", url.as_str()), FROM];
    let mut first = Fixture::start_with(&settings).await;
    let second = tests::AuthServer::start(&first.database, &[auth_support::CHEAP_HASHES, &settings].concat()).await;
    for n in 0..20 {
        first.sign_up(&format!("user{n}@example.com"), &format!("user{n}"), PASSWORD).await.unwrap();
    }
    let asks = (0..20).map(|n| {
        let channel = second.channel();
        async move {
            let request = RequestPasswordResetRequest { email: format!("user{n}@example.com") };
            AuthServiceClient::new(channel).request_password_reset(request).await.unwrap();
        }
    });
    futures_util::future::join_all(asks).await;
    first.server.kill();
    // What the killed one had claimed comes back after its lease; the test does not wait for that.
    let leased = "UPDATE mail_outbox SET next_attempt_at = now() WHERE next_attempt_at > now()";
    tokio::time::sleep(Duration::from_secs(1)).await;
    first.sql(leased).await;
    until_none(&first, OUTBOX).await;
    let mut to = std::collections::BTreeSet::new();
    for number in 1..=smtp.count() {
        to.extend(smtp.mail(number).await.to);
    }
    assert_eq!(to.len(), 20, "{to:?}");
    // At least once: one mail may have come twice, for each that the killed one was sending.
    assert!(smtp.count() <= 23, "{}", smtp.count());
}

/// Asking, sending, resetting, verifying and changing the address all touch the account, the outbox and the tokens.
#[tokio::test]
async fn what_happens_to_an_account_at_once_waits_and_never_deadlocks() {
    let smtp = SmtpServer::start(Encryption::Never, false).await;
    let (fixture, _) = alice(&smtp).await;
    let mut password = PASSWORD.to_owned();
    for round in 0..40 {
        // Never more than the hour allows, and nothing of the round before under way.
        until_none(&fixture, OUTBOX).await;
        fixture.sql("DELETE FROM password_reset_tokens; DELETE FROM email_verification_tokens").await;
        let tokens = fixture.sign_in("alice", &password).await.unwrap().tokens.unwrap();
        let number = smtp.count();
        ask(&fixture, "alice@example.com").await.unwrap();
        let token = smtp.mail(number + 1).await.token();
        until_none(&fixture, OUTBOX).await;
        let address = if round % 2 == 0 { "Alice@example.com" } else { "alice@example.com" };
        let user = User { email: address.into(), ..User::default() };
        let mut client = AuthServiceClient::new(fixture.server.channel_with(&tokens.access_token));
        let (wanted, other) = (format!("{OTHER} {round}"), format!("{OTHER} again {round}"));
        let (asked, sent, updated, one, two) = tokio::join!(
            ask(&fixture, "alice@example.com"),
            ask_verification(&fixture, &tokens),
            client.update_me(UpdateMeRequest { user: Some(user), update_mask: None }),
            reset(&fixture, &token, &wanted),
            reset(&fixture, &token, &other)
        );
        asked.unwrap();
        // The session ends with the new password, the token with the newer one: whichever came first.
        for answer in [sent, updated.map(|_| ())] {
            assert!(answer.as_ref().err().is_none_or(|status| status.code() == Code::Unauthenticated), "{answer:?}");
        }
        assert!(one.is_err() || two.is_err());
        for (answer, new) in [(one, wanted), (two, other)] {
            match answer {
                Ok(()) => password = new,
                refused => assert_token_refused(refused),
            }
        }
    }
    // The counters of a database are written when a session is idle.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(fixture.count(deadlocks).await, 0);
}

/// Without an SMTP server: whole into a directory if there is one, for its owner alone; the log has no token in any case.
#[tokio::test]
async fn without_a_server_mails_are_written_to_the_directory_and_logged_without_the_token() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("mails");
    let links = [
        ("PASSWORD_RESET_LINK", "https://example.com/reset?token={token}"),
        ("EMAIL_VERIFICATION_LINK", "https://example.com/verify?token={token}"),
    ];
    let fixture = Fixture::start_with(&[&[("MAIL_DIR", place.to_str().unwrap())], &links[..]].concat()).await;
    fixture.sign_up("alice@example.com", "alice", PASSWORD).await.unwrap();
    ask(&fixture, "alice@example.com").await.unwrap();
    until_none(&fixture, OUTBOX).await;
    let files: Vec<_> = std::fs::read_dir(&place).unwrap().map(|file| file.unwrap().path()).collect();
    let [file] = &files[..] else { panic!("{files:?}") };
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(name.contains("password_reset") && name.ends_with(".eml"), "{name}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o077, 0);
    }
    let mail = std::fs::read_to_string(file).unwrap();
    let token =
        mail.split("https://example.com/reset?token=").nth(1).unwrap().lines().next().unwrap().trim().to_owned();
    assert!(mail.contains("To: alice@example.com"), "{mail}");
    reset(&fixture, &token, OTHER).await.unwrap();
    let told = fixture.server.wait_for_log(|line| line.contains("a mail is written to MAIL_DIR")).await;
    assert!(told.contains("password_reset"), "{told}");
    assert!(!fixture.server.logs().join("\n").contains(&token));

    let silent = Fixture::start_on(TestDatabase::migrated_auth().await, &[]).await;
    silent.sign_up("alice@example.com", "alice", PASSWORD).await.unwrap();
    ask(&silent, "alice@example.com").await.unwrap();
    let told = silent.server.wait_for_log(|line| line.contains("a mail is due")).await;
    assert!(told.contains("SMTP_URL") && !told.contains("alice@"), "{told}");
    until_none(&silent, OUTBOX).await;
}
