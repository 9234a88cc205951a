//! Mails leave here: to an SMTP server, into a directory, or nowhere. What they say is in `domain::mail`, what waits in
//! `store::mails`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{SubsecRound as _, TimeDelta, Utc};
use lettre::message::header::{ContentTransferEncoding, ContentType};
use lettre::message::{Body, Mailbox, MultiPart, SinglePart};
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use service_kit::readiness::Readiness;
use service_kit::tasks::TaskError;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::background::{SCHEMA, pause_after, stopped_within};
use crate::domain::mail::{GIVE_UP_AFTER, GIVE_UP_REFUSED_AFTER, Mail, MailKind};
use crate::domain::opaque_token::OpaqueToken;
use crate::store::AuthStore;
use crate::store::mails::ClaimedMail;

/// A mail server that takes no connection for so long is away.
const SMTP_TIMEOUT: Duration = Duration::from_secs(20);
/// A whole conversation, from the connection to the last answer: lettre bounds no single one.
const CONVERSATION: Duration = Duration::from_secs(60);
/// A mail is another replica's to send when this one has not within this time: longer than an SMTP conversation can take.
const LEASE: TimeDelta = TimeDelta::minutes(5);
/// How often the outbox is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How often it is counted what waits.
const COUNT: Duration = Duration::from_secs(5);
/// The pause after the first failure; each further one doubles it.
const FIRST_PAUSE: TimeDelta = TimeDelta::seconds(2);
const LONGEST_PAUSE: TimeDelta = TimeDelta::minutes(10);

/// Where a certificate begins (RFC 7468).
const PEM_CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";
/// RFC 5322 2.1.1, without the line's end.
const LONGEST_LINE: usize = 998;
/// The sender where MAIL_FROM is not set.
const NOBODY: &str = "auth-service@localhost";

/// Where mails go.
pub enum Transport {
    /// To an SMTP server.
    Smtp(AsyncSmtpTransport<Tokio1Executor>),
    /// Into a directory, a file each.
    Directory(PathBuf),
    /// Nowhere; the log says that one was due.
    Log,
}

impl Transport {
    /// To the server of a URL as lettre reads it; `authorities` in PEM count beside the system's. Otherwise the variable and
    /// what is wrong with it.
    pub fn smtp(url: &str, authorities: Option<&[u8]>) -> Result<Self, (&'static str, String)> {
        const EXPECTED: &str = "cannot be used; expected smtps://user:password@host or smtp://...?tls=required";
        let unusable = || ("SMTP_URL", EXPECTED.to_owned());
        let parsed = url::Url::parse(url).map_err(|_| unusable())?;
        let mode = parsed.query_pairs().find(|(name, _)| name == "tls").map(|(_, mode)| mode.into_owned());
        let host = parsed.host_str().unwrap_or_default().to_owned();
        let is_plain = parsed.scheme() == "smtp" && mode.as_deref() != Some("required");
        let has_account = !parsed.username().is_empty() || parsed.password().is_some();
        if is_plain && has_account && !is_loopback(&parsed) {
            let reason = "would send the password unencrypted; expected smtps://... or smtp://...?tls=required";
            return Err(("SMTP_URL", reason.to_owned()));
        }
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(url).map_err(|_| unusable())?;
        if let Some(pem) = authorities {
            let wrong = || ("SMTP_CA_FILE", "has no certificate; expected PEM".to_owned());
            // A file without any would be taken as an empty list.
            let has_some = pem.windows(PEM_CERTIFICATE.len()).any(|part| part == PEM_CERTIFICATE);
            let certificate = has_some.then(|| Certificate::from_pem(pem)).and_then(Result::ok).ok_or_else(wrong)?;
            let parameters = TlsParameters::builder(host).add_root_certificate(certificate);
            let parameters = parameters.build_rustls().map_err(|_| wrong())?;
            builder = match (parsed.scheme(), mode.as_deref()) {
                ("smtps", _) => builder.tls(Tls::Wrapper(parameters)),
                (_, Some("required")) => builder.tls(Tls::Required(parameters)),
                (_, Some("opportunistic")) => builder.tls(Tls::Opportunistic(parameters)),
                _ => return Err(("SMTP_CA_FILE", "is set, but SMTP_URL asks for no TLS".to_owned())),
            };
        }
        Ok(Self::Smtp(builder.timeout(Some(SMTP_TIMEOUT)).build()))
    }
}

fn is_loopback(url: &url::Url) -> bool {
    match url.host() {
        // A scheme that the URL standard does not know keeps addresses as names.
        Some(url::Host::Domain(name)) => {
            name == "localhost" || name.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
        }
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Pages of the installation, with `{token}` in them.
#[derive(Debug, Clone, Default)]
pub struct Links {
    /// Where people set a new password.
    pub password_reset: Option<String>,
    /// Where they confirm an address.
    pub email_verification: Option<String>,
}

/// Why a mail was not sent. Says nothing of the addressee: servers repeat addresses in their answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct SendError {
    what: String,
    hope: Hope,
}

/// Whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hope {
    /// It may pass.
    Soon,
    /// The server refuses: the addressee, or us, by a setting that somebody is about to correct.
    Little,
    /// This mail can go nowhere.
    None,
}

impl SendError {
    fn permanent(what: &str) -> Self {
        Self { what: what.to_owned(), hope: Hope::None }
    }
}

/// Sends mails.
pub struct Mailer {
    transport: Transport,
    from: Option<Mailbox>,
    links: Links,
}

impl Mailer {
    /// Over a transport.
    pub fn new(transport: Transport, from: Option<Mailbox>, links: Links) -> Self {
        Self { transport, from, links }
    }

    /// Sends one mail; `id` makes its file's name.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send(&self, mail: &Mail, id: Uuid) -> Result<(), SendError> {
        let message = self.message(mail)?;
        match &self.transport {
            Transport::Smtp(transport) => match timeout(CONVERSATION, transport.send(message)).await {
                Ok(sent) => sent.map(|_| ()).map_err(|error| smtp_error(&error)),
                Err(_) => Err(SendError { what: "the SMTP server went silent".to_owned(), hope: Hope::Soon }),
            },
            Transport::Directory(directory) => {
                tracing::info!(kind = mail.kind.as_str(), %id, "a mail is written to MAIL_DIR, since SMTP_URL is not set");
                let name = format!("{}-{}-{id}.eml", Utc::now().format("%Y%m%dT%H%M%S%.6fZ"), mail.kind.as_str());
                let written = write_whole(directory, &name, &message.formatted()).await;
                written.map_err(|error| SendError { what: format!("MAIL_DIR: {error}"), hope: Hope::Soon })
            }
            Transport::Log => {
                tracing::info!(
                    kind = mail.kind.as_str(),
                    %id,
                    "a mail is due, and neither SMTP_URL nor MAIL_DIR is set: nobody gets it"
                );
                Ok(())
            }
        }
    }

    fn message(&self, mail: &Mail) -> Result<Message, SendError> {
        let link = match mail.kind {
            MailKind::PasswordReset => self.links.password_reset.as_deref(),
            MailKind::EmailVerification => self.links.email_verification.as_deref(),
            MailKind::EmailChanged => None,
        };
        let content = mail.content(link);
        // Without an SMTP server nobody asks who sends.
        let from = self.from.clone().map_or_else(|| NOBODY.parse(), Ok);
        let from = from.map_err(|_| SendError::permanent("no sender is set"))?;
        let to =
            mail.email.parse().map_err(|_| SendError::permanent("the account's address is none that mail goes to"))?;
        Message::builder()
            .from(from)
            .to(Mailbox::new(None, to))
            .subject(content.subject)
            .date_now()
            .multipart(
                MultiPart::alternative()
                    .singlepart(part(ContentType::TEXT_PLAIN, content.text))
                    .singlepart(part(ContentType::TEXT_HTML, content.html)),
            )
            .map_err(|_| SendError::permanent("the mail cannot be composed"))
    }
}

/// As it is where that is allowed, so that a file can be read and a link copied; encoded otherwise.
fn part(kind: ContentType, text: String) -> SinglePart {
    let lines_fit = text.is_ascii() && text.lines().all(|line| line.len() <= LONGEST_LINE);
    let builder = SinglePart::builder().header(kind);
    if lines_fit {
        let text = text.replace('\n', "\r\n").into_bytes();
        builder.body(Body::dangerous_pre_encoded(text, ContentTransferEncoding::SevenBit))
    } else {
        builder.body(text)
    }
}

/// What went wrong in a conversation, without what the server said.
fn smtp_error(error: &lettre::transport::smtp::Error) -> SendError {
    let what = match error.status() {
        Some(code) => format!("the SMTP server answered {code}"),
        None if error.is_timeout() => "the SMTP server did not answer in time".to_owned(),
        None if error.is_tls() => "no TLS with the SMTP server".to_owned(),
        None if error.is_client() => "the SMTP server does not offer what is needed".to_owned(),
        None => "no connection to the SMTP server".to_owned(),
    };
    let hope = if error.is_permanent() { Hope::Little } else { Hope::Soon };
    SendError { what, hope }
}

/// A file that is there whole or not at all, for its owner alone.
async fn write_whole(directory: &Path, name: &str, content: &[u8]) -> std::io::Result<()> {
    use tokio::io::AsyncWriteExt as _;
    tokio::fs::create_dir_all(directory).await?;
    let unfinished = directory.join(format!(".{name}"));
    let mut options = tokio::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    options.mode(0o600);
    let mut file = options.open(&unfinished).await?;
    file.write_all(content).await?;
    file.sync_all().await?;
    tokio::fs::rename(unfinished, directory.join(name)).await
}

/// Sends what waits in the outbox. Several may run, in several replicas.
#[derive(Clone)]
pub struct MailSender {
    /// The outbox.
    pub store: AuthStore,
    /// The way out.
    pub mailer: Arc<Mailer>,
    /// Nothing is looked for before the schema is there.
    pub readiness: Readiness,
}

impl MailSender {
    /// Until told to stop; a mail that is being sent is finished first.
    pub async fn run(self, stop: CancellationToken) -> Result<(), TaskError> {
        loop {
            let has_sent = self.is_ready()
                && self.next().await.unwrap_or_else(|error| {
                    tracing::warn!(%error, "the outbox of mails cannot be read");
                    false
                });
            // A full outbox is emptied without pause.
            if !has_sent && stopped_within(&stop, LOOK).await || stop.is_cancelled() {
                return Ok(());
            }
        }
    }

    /// Counts what waits, until told to stop: once in a replica, however many send.
    pub async fn count(self, stop: CancellationToken) -> Result<(), TaskError> {
        loop {
            if self.is_ready()
                && let Ok(waiting) = self.store.mails_waiting().await
            {
                metrics::gauge!("mails_waiting").set(waiting as f64);
            }
            if stopped_within(&stop, COUNT).await {
                return Ok(());
            }
        }
    }

    fn is_ready(&self) -> bool {
        self.readiness.is_set(SCHEMA)
    }

    /// Sends one mail that is due; whether there was one.
    async fn next(&self) -> Result<bool, TaskError> {
        // The token exists from here to the mail, nowhere else: if the mail is not sent, the next attempt makes another one.
        let token = OpaqueToken::generate()?;
        let now = Utc::now().trunc_subsecs(6);
        let hash = token.hash();
        let Some(claimed) = self.store.mail_claim(&hash, LEASE, now).await? else {
            return Ok(false);
        };
        let Some(kind) = claimed.kind else { return Ok(true) };
        let Some((email, username)) = claimed.to.clone() else {
            self.store.mail_remove(claimed.id).await?;
            return Ok(true);
        };
        match self.mailer.send(&Mail { kind, email, username, token }, claimed.id).await {
            Ok(()) => {
                metrics::counter!("mails_sent_total", "kind" => kind.as_str()).increment(1);
                self.store.mail_remove(claimed.id).await?;
            }
            Err(error) => self.failed(kind, &claimed, &hash, &error).await?,
        }
        Ok(true)
    }

    async fn failed(
        &self,
        kind: MailKind,
        claimed: &ClaimedMail,
        token_hash: &str,
        error: &SendError,
    ) -> Result<(), TaskError> {
        let now = Utc::now().trunc_subsecs(6);
        let waited = now - claimed.created_at;
        let is_over = match error.hope {
            Hope::Soon => waited > GIVE_UP_AFTER,
            Hope::Little => waited > GIVE_UP_REFUSED_AFTER,
            Hope::None => true,
        };
        let outcome = if is_over { "given_up" } else { "postponed" };
        metrics::counter!("mails_failed_total", "kind" => kind.as_str(), "outcome" => outcome).increment(1);
        let (id, attempt) = (claimed.id, claimed.attempt);
        tracing::warn!(kind = kind.as_str(), %id, attempt, outcome, %error, "a mail was not sent");
        if is_over {
            self.store.mail_remove(id).await?;
        } else {
            self.store.mail_postpone(id, token_hash, now + pause_after(attempt, FIRST_PAUSE, LONGEST_PAUSE)).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_goes_to_another_machine_only_encrypted() {
        let refused = |url: &str| Transport::smtp(url, None).err().map(|(variable, _)| variable);
        assert_eq!(refused("smtp://user:secret@mail.example.com:587"), Some("SMTP_URL"));
        assert_eq!(refused("smtp://:secret@mail.example.com:587"), Some("SMTP_URL"));
        assert_eq!(refused("smtp://user:secret@mail.example.com:587?tls=opportunistic"), Some("SMTP_URL"));
        for url in [
            "smtp://mail.example.com:25",
            "smtp://user:secret@127.0.0.1:2525",
            "smtp://user:secret@localhost:2525",
            "smtp://user:secret@[::1]:2525",
            "smtp://user:secret@mail.example.com:587?tls=required",
            "smtps://user:secret@mail.example.com",
        ] {
            assert_eq!(refused(url), None, "{url}");
        }
    }
}
