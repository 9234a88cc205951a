//! Mails to aiosmtpd, a server from elsewhere. `.ci/aiosmtpd` installs it and runs this suite: the feature `aiosmtpd` says that it
//! is there, since `cargo test` needs no Python.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a suite ends the test with a panic")]

mod auth_support;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use auth_support::Fixture;
use proto::auth::v1::auth_service_client::AuthServiceClient;
use proto::auth::v1::*;
use serde_json::Value;
use tests::PASSWORD;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

const PATIENCE: Duration = Duration::from_secs(60);

struct Server {
    _process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    port: u16,
}

impl Server {
    async fn start(mode: &str, certificate: &Path, key: &Path) -> Self {
        let python = std::env::var("AIOSMTPD_PYTHON").expect("AIOSMTPD_PYTHON: run .ci/aiosmtpd");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/smtp_server.py");
        let mut command = tokio::process::Command::new(python);
        command.arg(script).arg(mode).arg(certificate).arg(key).args(["auth", "s3cret-smtp"]);
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("python runs");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let first = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().expect("aiosmtpd runs");
        let port = first.strip_prefix("listening ").unwrap().parse().unwrap();
        Self { _process: process, lines, port }
    }

    async fn mail(&mut self) -> Value {
        let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await.expect("a mail in time");
        serde_json::from_str(&line.unwrap().unwrap()).unwrap()
    }
}

async fn a_password_is_reset(mode: &str, url: impl Fn(u16) -> String) {
    let directory = tempfile::tempdir().unwrap();
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let file = |name: &str, text: String| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let certificate = file("certificate.pem", certified.cert.pem());
    let key = file("key.pem", certified.signing_key.serialize_pem());
    let mut server = Server::start(mode, &certificate, &key).await;
    let url = url(server.port);
    let settings = [
        ("SMTP_URL", url.as_str()),
        ("SMTP_CA_FILE", certificate.to_str().unwrap()),
        ("MAIL_FROM", "Example <no-reply@example.com>"),
    ];
    let fixture = Fixture::start_with(&settings).await;
    fixture.sign_up("alice@example.com", "alice", PASSWORD).await.unwrap();
    let mut client = AuthServiceClient::new(fixture.server.channel());
    let request = RequestPasswordResetRequest { email: "alice@example.com".into() };
    client.request_password_reset(request).await.unwrap();

    let mail = server.mail().await;
    assert_eq!((&mail["from"], &mail["to"][0]), (&"no-reply@example.com".into(), &"alice@example.com".into()));
    assert_eq!((&mail["encrypted"], &mail["authenticated"]), (&true.into(), &true.into()), "{mail}");
    let data = mail["data"].as_str().unwrap();
    assert!(data.contains("text/plain") && data.contains("text/html"), "{data}");
    let token = data.lines().map(str::trim).find(|line| line.len() == 43 && !line.contains(' ')).unwrap().to_owned();
    let new_password = "another 7 giraffe in the library".to_owned();
    client.reset_password(ResetPasswordRequest { token, new_password: new_password.clone() }).await.unwrap();
    fixture.sign_in("alice", &new_password).await.unwrap();
}

#[tokio::test]
async fn a_password_is_reset_by_a_mail_over_starttls() {
    a_password_is_reset("starttls", |port| format!("smtp://auth:s3cret-smtp@localhost:{port}?tls=required")).await;
}

#[tokio::test]
async fn a_password_is_reset_by_a_mail_over_tls() {
    a_password_is_reset("tls", |port| format!("smtps://auth:s3cret-smtp@localhost:{port}")).await;
}
