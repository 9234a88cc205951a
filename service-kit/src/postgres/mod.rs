//! `DATABASE_URL`, TLS to PostgreSQL as libpq does it, and one connection with a classified error.
//!
//! Used by the pool ([`crate::database`]) and, through [`connect`], by whoever needs a plain `tokio_postgres` connection.

mod error;
mod libpq;
mod tls;
mod url;

use tokio_postgres::Socket;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres_rustls::MakeRustlsConnect;

pub use error::{ConnectError, ConnectErrorKind};
pub use tls::TlsSetup;
pub(crate) use url::mask_authority_and_query;
pub use url::{DatabaseUrl, DatabaseUrlError, TlsMode, TlsRoots};

/// The driver's half of a connection; it must be polled (spawned) for the client to make progress.
pub type Connection = tokio_postgres::Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// Opens one connection as the URL says; nothing is spawned. Reads `sslrootcert` each time, so a rotated file is taken up.
pub async fn connect(url: &DatabaseUrl) -> Result<(tokio_postgres::Client, Connection), ConnectError> {
    let tls = TlsSetup::load(url)?;
    connect_with(url, &tls).await
}

/// [`connect`] with TLS settings that were read before, for callers that connect often.
pub async fn connect_with(
    url: &DatabaseUrl,
    tls: &TlsSetup,
) -> Result<(tokio_postgres::Client, Connection), ConnectError> {
    let attempt = async |mode: SslMode| {
        let mut config = url.config().clone();
        config.ssl_mode(mode);
        // The driver's own limit ends with the TCP handshake; a listener that never answers must not hold us either.
        match tokio::time::timeout(url.patience(), config.connect(tls.connector())).await {
            Ok(connected) => connected.map_err(|error| ConnectError::classify(error, url)),
            Err(_) => Err(ConnectError::unreachable(format!(
                "PostgreSQL at {} does not answer; check that it runs and DATABASE_URL",
                url.place()
            ))),
        }
    };
    match url.tls_mode() {
        TlsMode::Disable => attempt(SslMode::Disable).await,
        // libpq: plain first, TLS only when the server refuses plain.
        TlsMode::Allow => match attempt(SslMode::Disable).await {
            Err(error) if error.kind() == ConnectErrorKind::Authentication => attempt(SslMode::Require).await,
            done => done,
        },
        // libpq: TLS first, plain when the handshake fails or the server refuses TLS connections.
        TlsMode::Prefer => match attempt(SslMode::Prefer).await {
            Err(error) if matches!(error.kind(), ConnectErrorKind::Tls | ConnectErrorKind::Authentication) => {
                attempt(SslMode::Disable).await.map_err(|_| error)
            }
            done => done,
        },
        TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => attempt(SslMode::Require).await,
    }
}
