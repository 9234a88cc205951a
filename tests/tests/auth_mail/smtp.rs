//! A mail server for the suite: the protocol is mailin's, the sockets and TLS are ours.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mailin::{Action, AuthMechanism, Handler, Response, Session, SessionBuilder, response};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Nothing here takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);
/// The account of a server that asks for one.
pub(crate) const USER: &str = "auth";
pub(crate) const PASSWORD: &str = "s3cret-smtp";

/// When the server speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encryption {
    Never,
    /// After STARTTLS, without which no mail is taken.
    StartTls,
    /// From the first byte.
    Always,
}

/// A mail as the server took it.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) from: String,
    pub(crate) to: Vec<String>,
    pub(crate) data: String,
    pub(crate) encrypted: bool,
    pub(crate) authenticated: bool,
}

impl Received {
    /// The token of the mail's text, as its reader finds it.
    pub(crate) fn token(&self) -> String {
        let lines = self.data.lines().map(str::trim);
        let mut tokens = lines
            .filter(|line| line.len() == 43 && line.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)));
        tokens.next().unwrap_or_else(|| panic!("no token on a line of its own: {}", self.data)).to_owned()
    }
}

#[derive(Default)]
struct Shared {
    received: Mutex<Vec<Received>>,
    /// What the next mails are answered instead of being taken.
    refusals: Mutex<VecDeque<u16>>,
}

/// A running server; it ends with the value.
pub(crate) struct SmtpServer {
    address: SocketAddr,
    /// The certificate that a client must trust, PEM.
    pub(crate) certificate: String,
    encryption: Encryption,
    with_account: bool,
    shared: Arc<Shared>,
    accepts: tokio::task::JoinHandle<()>,
}

impl Drop for SmtpServer {
    fn drop(&mut self) {
        self.accepts.abort();
    }
}

impl SmtpServer {
    pub(crate) async fn start(encryption: Encryption, with_account: bool) -> Self {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        let accepts = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, acceptor) = (Arc::clone(&accepting), acceptor.clone());
                // A client that breaks off ends only its own conversation.
                tokio::spawn(async move {
                    let _ended = converse(stream, acceptor, encryption, with_account, shared).await;
                });
            }
        });
        Self { address, certificate: certified.cert.pem(), encryption, with_account, shared, accepts }
    }

    /// For `SMTP_URL`.
    pub(crate) fn url(&self) -> String {
        let account = if self.with_account { format!("{USER}:{PASSWORD}@") } else { String::new() };
        let port = self.address.port();
        match self.encryption {
            Encryption::Never => format!("smtp://{account}localhost:{port}"),
            Encryption::StartTls => format!("smtp://{account}localhost:{port}?tls=required"),
            Encryption::Always => format!("smtps://{account}localhost:{port}"),
        }
    }

    /// The next mails are refused with these codes.
    pub(crate) fn refuse(&self, codes: &[u16]) {
        self.shared.refusals.lock().unwrap().extend(codes);
    }

    /// How many refusals are still to come.
    pub(crate) fn refusals_left(&self) -> usize {
        self.shared.refusals.lock().unwrap().len()
    }

    pub(crate) fn count(&self) -> usize {
        self.shared.received.lock().unwrap().len()
    }

    /// The mail of this number, from 1, when it has come.
    pub(crate) async fn mail(&self, number: usize) -> Received {
        let started = Instant::now();
        loop {
            if let Some(mail) = self.shared.received.lock().unwrap().get(number - 1) {
                return mail.clone();
            }
            assert!(started.elapsed() < PATIENCE, "mail {number} does not come");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What a conversation has so far.
struct Conversation {
    shared: Arc<Shared>,
    mail: Received,
    with_account: bool,
}

impl Handler for Conversation {
    fn mail(&mut self, _: IpAddr, _: &str, from: &str) -> Response {
        if self.with_account && !self.mail.authenticated {
            return response::AUTHENTICATION_REQUIRED;
        }
        from.clone_into(&mut self.mail.from);
        self.mail.to.clear();
        self.mail.data.clear();
        response::OK
    }

    fn rcpt(&mut self, to: &str) -> Response {
        match self.shared.refusals.lock().unwrap().pop_front() {
            // As real servers do, with the address in the answer.
            Some(code) => Response::custom(code, format!("not now: <{to}>")),
            None => {
                self.mail.to.push(to.to_owned());
                response::OK
            }
        }
    }

    fn data(&mut self, line: &[u8]) -> std::io::Result<()> {
        self.mail.data.push_str(&String::from_utf8_lossy(line));
        Ok(())
    }

    fn data_end(&mut self) -> Response {
        self.shared.received.lock().unwrap().push(self.mail.clone());
        response::OK
    }

    fn auth_plain(&mut self, _: &str, user: &str, password: &str) -> Response {
        self.mail.authenticated = user == USER && password == PASSWORD;
        if self.mail.authenticated { response::AUTH_OK } else { response::INVALID_CREDENTIALS }
    }
}

async fn converse(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    encryption: Encryption,
    with_account: bool,
    shared: Arc<Shared>,
) -> std::io::Result<()> {
    let remote = stream.peer_addr()?.ip();
    let mail = Received {
        from: String::new(),
        to: Vec::new(),
        data: String::new(),
        encrypted: encryption != Encryption::Never,
        authenticated: false,
    };
    let mut builder = SessionBuilder::new("localhost");
    if with_account {
        builder.enable_auth(AuthMechanism::Plain);
    }
    if encryption == Encryption::StartTls {
        builder.enable_start_tls();
    }
    if encryption == Encryption::Never {
        builder.insecure_enable_plaintext_auth();
    }
    let mut session = builder.build(remote, Conversation { shared, mail, with_account });
    let greeting = builder.build(remote, Nobody).greeting();
    if encryption == Encryption::Always {
        session.tls_active();
        let mut stream = acceptor.accept(stream).await?;
        stream.write_all(&greeting.buffer()?).await?;
        lines(stream, &mut session).await?;
        return Ok(());
    }
    let mut stream = stream;
    stream.write_all(&greeting.buffer()?).await?;
    if let Some(stream) = lines(stream, &mut session).await? {
        session.tls_active();
        lines(acceptor.accept(stream).await?, &mut session).await?;
    }
    Ok(())
}

/// Answers line by line; gives the stream back when TLS begins.
async fn lines<S>(stream: S, session: &mut Session<Conversation>) -> std::io::Result<Option<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        if (&mut stream).take(1 << 20).read_until(b'\n', &mut line).await? == 0 {
            return Ok(None);
        }
        let answer = session.process(&line);
        if answer.action != Action::NoReply {
            stream.get_mut().write_all(&answer.buffer()?).await?;
            stream.get_mut().flush().await?;
        }
        match answer.action {
            Action::Close => return Ok(None),
            Action::UpgradeTls => return Ok(Some(stream.into_inner())),
            Action::NoReply | Action::Reply => {}
        }
    }
}

struct Nobody;
impl Handler for Nobody {}
