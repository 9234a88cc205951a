//! Accepting: plain or TLS, handshakes beside each other, connections dealt to the lanes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::tls::Reloading;

/// Servers beside each other, each with its own connection age.
pub(super) const LANES: usize = 8;
/// A client that does not finish its handshake by then is no client.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes at once; each costs a signature, so a flood of them must queue.
const MAX_HANDSHAKES: usize = 128;
/// Connections open at once; newcomers beyond wait in the kernel's queue. An idle one costs some 20 KiB, so that these stay
/// within 200 MiB; a replica that needs more is better split in two. Mind the limit of file descriptors.
const MAX_CONNECTIONS: usize = 10_000;
/// From the (TLS) connection to the end of HTTP/2's preface; after it, keepalive finds dead peers.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);
/// What a client sends first (RFC 9113, 3.4).
const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();
/// Pause after a failed accept (out of file descriptors), instead of a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The ways to the lanes.
pub(super) struct Lanes {
    senders: Vec<mpsc::Sender<Io>>,
}

impl Lanes {
    pub(super) fn new(senders: Vec<mpsc::Sender<Io>>) -> Self {
        Self { senders }
    }

    /// Gives a connection to a random lane.
    async fn deal(&self, io: Io) {
        let lane = usize::try_from(crate::jitter_below(self.senders.len() as u64)).unwrap_or_default();
        if let Some(sender) = self.senders.get(lane) {
            // A lane that is gone drains; the connection is closed by being dropped.
            let _ = sender.send(io).await;
        }
    }
}

/// What a server bears.
pub(super) struct Limits {
    connections: usize,
    preface: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: MAX_CONNECTIONS, preface: PREFACE_TIMEOUT }
    }
}

/// Accepts until `stop`; then the port is free again and unfinished handshakes end.
pub(super) async fn accept(
    listener: TcpListener,
    tls: Option<Reloading>,
    lanes: Lanes,
    limits: Limits,
    stop: CancellationToken,
) {
    let lanes = Arc::new(lanes);
    let permits = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut handshakes = JoinSet::new();
    loop {
        let next = async {
            // Never closed, so always had in the end.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = handshakes.join_next() => continue,
            next = next => next,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Small messages must not wait for more; failing means the peer is gone already.
        let _ = stream.set_nodelay(true);
        let open = move |stream| Io { stream, opening: Some(Opening::new(limits.preface)), _place: place };
        let Some(tls) = &tls else {
            lanes.deal(open(Stream::Plain(stream))).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let (acceptor, lanes) = (tls.acceptor(), Arc::clone(&lanes));
        handshakes.spawn(async move {
            let _permit = permit;
            let peer = stream.peer_addr().map_or_else(|_| "unknown".to_owned(), |peer| peer.to_string());
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => lanes.deal(open(Stream::Tls(Box::new(stream)))).await,
                Ok(Err(error)) => tracing::debug!(%error, peer, "TLS handshake failed"),
                Err(_) => tracing::debug!(peer, "TLS handshake took too long"),
            }
        });
    }
}

/// An accepted connection. Its place is free again when it is dropped.
pub(super) struct Io {
    stream: Stream,
    opening: Option<Opening>,
    _place: Option<OwnedSemaphorePermit>,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection whose client has not said yet that it speaks HTTP/2.
struct Opening {
    missing: usize,
    deadline: Pin<Box<Sleep>>,
}

impl Opening {
    fn new(patience: Duration) -> Self {
        Self { missing: PREFACE, deadline: Box::pin(tokio::time::sleep(patience)) }
    }
}

impl Connected for Io {
    // Of both kinds the same, so that `Request::remote_addr` works in every handler.
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        match &self.stream {
            Stream::Plain(stream) => stream.connect_info(),
            Stream::Tls(stream) => stream.get_ref().0.connect_info(),
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let Self { stream, opening, .. } = self.get_mut();
        let before = buf.filled().len();
        let polled = match stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        if let Some(client) = opening {
            client.missing = client.missing.saturating_sub(buf.filled().len().saturating_sub(before));
            if client.missing == 0 {
                *opening = None;
            } else if polled.is_pending() && client.deadline.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(std::io::ErrorKind::TimedOut.into()));
            }
        }
        polled
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Accepts on a free port with these limits; gives the connections.
    async fn accepting(limits: Limits) -> (std::net::SocketAddr, mpsc::Receiver<Io>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, connections) = mpsc::channel(16);
        tokio::spawn(accept(listener, None, Lanes::new(vec![sender]), limits, CancellationToken::new()));
        (address, connections)
    }

    #[tokio::test]
    async fn connections_are_bounded_and_places_come_back() {
        let (address, mut connections) = accepting(Limits { connections: 2, ..Limits::default() }).await;
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(TcpStream::connect(address).await.unwrap());
        }
        let one = connections.recv().await.unwrap();
        let _two = connections.recv().await.unwrap();
        let third = tokio::time::timeout(Duration::from_millis(200), connections.recv()).await;
        assert!(third.is_err(), "a third was taken");
        drop(one);
        assert!(tokio::time::timeout(Duration::from_secs(5), connections.recv()).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_client_that_does_not_begin_is_let_go_and_one_that_has_begun_may_wait() {
        let limits = Limits { preface: Duration::from_millis(200), ..Limits::default() };
        let (address, mut connections) = accepting(limits).await;
        for (sent, begun) in [(0, false), (PREFACE - 1, false), (PREFACE, true)] {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(&vec![b'x'; sent]).await.unwrap();
            let mut connection = connections.recv().await.unwrap();
            let mut received = Vec::new();
            let read = tokio::time::timeout(Duration::from_secs(1), connection.read_to_end(&mut received)).await;
            match read {
                Err(_) => assert!(begun, "{sent} bytes kept it open"),
                Ok(ended) => {
                    assert!(!begun, "{sent} bytes were not enough");
                    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
                }
            }
        }
    }
}
