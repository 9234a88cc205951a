//! A proxy before PostgreSQL that understands where one statement ends and the next begins: it counts these boundaries over
//! all connections, and at a chosen one kills a process, cuts the connection, or stops answering. It can also delay.
//!
//! Only without TLS (`sslmode=disable`): the first message of a connection has no type byte, all others are a type byte and a
//! length. A boundary is a simple query, or an extended one up to its Sync; one that only prepares is none.
//! <https://www.postgresql.org/docs/current/protocol-message-formats.html>

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use local_pair::process::ProcessIdentity;
use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Where at a statement something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// The server never sees the statement.
    Before,
    /// The server has it, and may still be running it.
    Sent,
    /// The server has done it, and the client never hears of it.
    Answered,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strike {
    /// SIGKILL to [`Proxy::victim`]; the connections end as its sockets do.
    Kill,
    /// The connection is cut; new ones are let through.
    Cut,
    /// All connections are cut and no new one is let through, for so long.
    Away(Duration),
}

/// Something to be done at the boundary of this number, counted from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Number of the boundary.
    pub at: usize,
    /// Where at it.
    pub moment: Moment,
    /// What.
    pub strike: Strike,
}

/// A running proxy; it ends with the value.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    upstream: Mutex<SocketAddr>,
    plan: Option<Plan>,
    statements: Mutex<Vec<String>>,
    passed: watch::Sender<usize>,
    struck: watch::Sender<bool>,
    victim: watch::Sender<Option<ProcessIdentity>>,
    /// Raised to cut every connection; odd while nobody is let through.
    era: watch::Sender<usize>,
    delay: Mutex<Duration>,
    ended: watch::Sender<bool>,
}

impl Proxy {
    /// A proxy on a free port of 127.0.0.1 before `upstream`.
    ///
    /// # Panics
    /// No port is free.
    pub async fn start(upstream: SocketAddr, plan: Option<Plan>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            upstream: Mutex::new(upstream),
            plan,
            statements: Mutex::default(),
            passed: watch::Sender::new(0),
            struck: watch::Sender::new(false),
            victim: watch::Sender::new(None),
            era: watch::Sender::new(0),
            delay: Mutex::default(),
            ended: watch::Sender::new(false),
        });
        // A thread of its own: a sign-in that is stuck half-way holds up every DROP DATABASE of the server, up to its
        // authentication_timeout, and a test that blocks on one would be what the sign-in waits for.
        let listener = listener.into_std().expect("a socket");
        let running = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("a socket that does not block");
                let mut ended = running.ended.subscribe();
                tokio::select! {
                    () = accept(listener, Arc::clone(&running)) => {}
                    _ended = ended.wait_for(|ended| *ended) => {}
                }
            });
        });
        Self { address, shared, thread: Some(thread) }
    }

    /// `url` of a server on 127.0.0.1 with the proxy's port.
    ///
    /// # Panics
    /// It has no port.
    pub fn url(&self, url: &str) -> String {
        let (head, tail) = url.split_once("@127.0.0.1:").expect("a URL on 127.0.0.1 with a port");
        let (_port, rest) = tail.split_once('/').expect("a URL with a database");
        format!("{head}@{}/{rest}", self.address)
    }

    /// Which process [`Strike::Kill`] ends. The strike waits for it.
    pub fn victim(&self, process: ProcessIdentity) {
        self.shared.victim.send_replace(Some(process));
    }

    /// The statements that came so far, shortened, in order.
    pub fn statements(&self) -> Vec<String> {
        self.shared.statements.lock().expect("no holder panics").clone()
    }

    /// Waits until a number of boundaries has been answered.
    pub async fn passed(&self, number: usize) {
        let mut passed = self.shared.passed.subscribe();
        let _ended = passed.wait_for(|passed| *passed >= number).await;
    }

    /// Whether the planned strike has been made.
    pub fn has_struck(&self) -> bool {
        *self.shared.struck.borrow()
    }

    /// Waits for the planned strike.
    pub async fn struck(&self) {
        let mut struck = self.shared.struck.subscribe();
        let _ended = struck.wait_for(|struck| *struck).await;
    }

    /// Where new connections go from now on.
    pub fn set_upstream(&self, upstream: SocketAddr) {
        *self.shared.upstream.lock().expect("no holder panics") = upstream;
    }

    /// Cuts every connection and lets nobody through until [`Self::open`].
    pub fn close(&self) {
        self.shared.era.send_modify(|era| *era += 1 + *era % 2);
    }

    /// Lets connections through again.
    pub fn open(&self) {
        self.shared.era.send_modify(|era| *era += *era % 2);
    }

    /// Holds every statement back for so long before it is passed on.
    pub fn delay(&self, delay: Duration) {
        *self.shared.delay.lock().expect("no holder panics") = delay;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.send_replace(true);
        // Its connections end with its runtime.
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

/// The numbers of the boundaries at which something may change: one that only reads leaves what its neighbour leaves.
pub fn writes(statements: &[String]) -> Vec<usize> {
    let reads = |text: &str| {
        let only = ["SELECT", "SET ", "BEGIN ISOLATION", "ROLLBACK"].iter().any(|word| text.starts_with(word));
        only && !text.contains("advisory")
    };
    (1..=statements.len()).filter(|at| !reads(&statements[at - 1])).collect()
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let mut era = shared.era.subscribe();
        let now = *era.borrow_and_update();
        if now % 2 == 1 {
            continue; // Dropped: nobody is let through.
        }
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            tokio::select! {
                // An error of either side ends both, which is all that a proxy has to say.
                _ended = pass(client, &shared) => {}
                _cut = era.wait_for(|era| *era != now) => {}
            }
        });
    }
}

/// How many answers a connection owes, so that the one to a certain statement is known.
#[derive(Default)]
struct Answers {
    asked: AtomicUsize,
    struck_at: AtomicUsize,
}

async fn pass(client: TcpStream, shared: &Shared) -> io::Result<()> {
    let upstream = *shared.upstream.lock().expect("no holder panics");
    let server = TcpStream::connect(upstream).await?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    // The first answer ends the sign-in.
    let answers = Answers { asked: AtomicUsize::new(1), struck_at: AtomicUsize::new(0) };
    tokio::select! {
        ended = frontend(from_client, to_server, shared, &answers) => ended,
        ended = backend(from_server, to_client, shared, &answers) => ended,
    }
}

async fn frontend(
    client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    shared: &Shared,
    answers: &Answers,
) -> io::Result<()> {
    let mut client = BufReader::new(client);
    server.write_all(&read_body(&mut client, Vec::new()).await?).await?;
    let mut group: Vec<u8> = Vec::new();
    let mut prepared: HashMap<Vec<u8>, String> = HashMap::new();
    let (mut bound, mut statement) = (String::new(), None);
    loop {
        let message = read_message(&mut client).await?;
        let (kind, body) = (message[0], &message[5..]);
        match kind {
            b'Q' => statement = Some(text(body)),
            b'P' => {
                let (name, sql) = split(body);
                prepared.insert(name.to_vec(), text(sql));
            }
            b'B' => {
                let (_portal, rest) = split(body);
                bound = prepared.get(split(rest).0).cloned().unwrap_or_default();
            }
            b'E' => statement = Some(bound.clone()),
            _ => {}
        }
        group.extend(&message);
        match kind {
            b'Q' | b'S' => {}
            // Collected up to the Sync.
            b'P' | b'B' | b'D' | b'E' | b'C' => continue,
            _ => {
                server.write_all(&std::mem::take(&mut group)).await?;
                continue;
            }
        }
        let delay = *shared.delay.lock().expect("no holder panics");
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let number = match statement.take() {
            Some(statement) => {
                let mut statements = shared.statements.lock().expect("no holder panics");
                statements.push(statement);
                statements.len()
            }
            // Only prepares, or closes what is no longer used.
            None => 0,
        };
        let plan = shared.plan.filter(|plan| plan.at == number);
        let asked = answers.asked.fetch_add(1, Ordering::SeqCst) + 1;
        match plan.map(|plan| (plan.moment, plan.strike)) {
            Some((Moment::Before, strike)) => return strike_now(shared, strike).await,
            Some((Moment::Sent, strike)) => {
                server.write_all(&group).await?;
                server.flush().await?;
                return strike_now(shared, strike).await;
            }
            Some((Moment::Answered, _)) => answers.struck_at.store(asked, Ordering::SeqCst),
            None => {}
        }
        server.write_all(&std::mem::take(&mut group)).await?;
    }
}

async fn backend(
    server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    shared: &Shared,
    answers: &Answers,
) -> io::Result<()> {
    let mut server = BufReader::new(server);
    let mut answered = 0;
    let mut waiting = Vec::new();
    loop {
        let message = read_message(&mut server).await?;
        let ready = message.first() == Some(&b'Z');
        answered += usize::from(ready);
        if ready && answered == answers.struck_at.load(Ordering::SeqCst) {
            let strike = shared.plan.map_or(Strike::Cut, |plan| plan.strike);
            return strike_now(shared, strike).await;
        }
        waiting.extend(message);
        // One write per answer: sign-in asks in between, and notices may come at any time.
        if server.buffer().is_empty() || ready {
            client.write_all(&std::mem::take(&mut waiting)).await?;
        }
        if ready {
            let seen = shared.statements.lock().expect("no holder panics").len();
            shared.passed.send_replace(seen);
        }
    }
}

async fn strike_now(shared: &Shared, strike: Strike) -> io::Result<()> {
    match strike {
        Strike::Kill => {
            let mut victim = shared.victim.subscribe();
            if let Ok(process) = victim.wait_for(Option::is_some).await
                && let Some(process) = process.as_ref()
            {
                process.signal(Signal::KILL);
            }
        }
        Strike::Cut => {}
        Strike::Away(pause) => {
            shared.era.send_modify(|era| *era += 1 + *era % 2);
            let era = shared.era.clone();
            tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                era.send_modify(|era| *era += *era % 2);
            });
        }
    }
    shared.struck.send_replace(true);
    Ok(())
}

/// A message with its type byte.
async fn read_message(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let kind = from.read_u8().await?;
    read_body(from, vec![kind]).await
}

/// The length and what it counts, behind what is there already.
async fn read_body(from: &mut (impl AsyncRead + Unpin), mut message: Vec<u8>) -> io::Result<Vec<u8>> {
    let length = from.read_u32().await?;
    message.extend(length.to_be_bytes());
    let start = message.len();
    let body = usize::try_from(length).unwrap_or_default().saturating_sub(4);
    message.resize(start + body, 0);
    from.read_exact(&mut message[start..]).await?;
    Ok(message)
}

/// What stands before the first zero byte, and what behind it.
fn split(body: &[u8]) -> (&[u8], &[u8]) {
    match body.iter().position(|byte| *byte == 0) {
        Some(end) => (&body[..end], &body[end + 1..]),
        None => (body, &[]),
    }
}

/// The beginning of a statement on one line.
fn text(body: &[u8]) -> String {
    let words = String::from_utf8_lossy(split(body).0).split_whitespace().collect::<Vec<_>>().join(" ");
    words.chars().take(120).collect()
}
