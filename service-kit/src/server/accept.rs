//! Accepting: plain or TLS, handshakes beside each other, connections dealt to the lanes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
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

/// Accepts until `stop`; then the port is free again and unfinished handshakes end.
pub(super) async fn accept(listener: TcpListener, tls: Option<Reloading>, lanes: Lanes, stop: CancellationToken) {
    let lanes = Arc::new(lanes);
    let permits = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    let mut handshakes = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = handshakes.join_next() => continue,
            accepted = listener.accept() => accepted,
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
        let Some(tls) = &tls else {
            lanes.deal(Io::Plain(stream)).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let (acceptor, lanes) = (tls.acceptor(), Arc::clone(&lanes));
        handshakes.spawn(async move {
            let _permit = permit;
            let peer = stream.peer_addr().map_or_else(|_| "unknown".to_owned(), |peer| peer.to_string());
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => lanes.deal(Io::Tls(Box::new(stream))).await,
                Ok(Err(error)) => tracing::debug!(%error, peer, "TLS handshake failed"),
                Err(_) => tracing::debug!(peer, "TLS handshake took too long"),
            }
        });
    }
}

/// An accepted connection.
pub(super) enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connected for Io {
    // Of both kinds the same, so that `Request::remote_addr` works in every handler.
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        match self {
            Self::Plain(stream) => stream.connect_info(),
            Self::Tls(stream) => stream.get_ref().0.connect_info(),
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }
}
