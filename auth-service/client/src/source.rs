//! Where the public keys come from.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use proto::auth::v1::ListSigningKeysRequest;
use proto::auth::v1::token_service_client::TokenServiceClient;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::keys::{KeyError, PublicKey};

/// A future on the heap, so that [`KeySource`] can be used as a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why the keys could not be read; the verifier goes on with those it has.
#[derive(Debug, thiserror::Error)]
pub enum KeySourceError {
    /// auth-service did not answer, or answered with an error.
    #[error("auth-service did not list its signing keys: {0}")]
    Rpc(#[source] Box<tonic::Status>),
    /// The in-process source failed.
    #[error("the signing keys cannot be read: {0}")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No key of the list is usable.
    #[error("no usable signing key: {0}")]
    Unusable(#[source] KeyError),
}

/// Lists the keys that may have signed a token that is valid now.
pub trait KeySource: Send + Sync + 'static {
    /// All published keys. Called by one task at a time.
    fn signing_keys(&self) -> BoxFuture<'_, Result<Vec<PublicKey>, KeySourceError>>;
}

impl<S: KeySource + ?Sized> KeySource for Arc<S> {
    fn signing_keys(&self) -> BoxFuture<'_, Result<Vec<PublicKey>, KeySourceError>> {
        (**self).signing_keys()
    }
}

/// TLS of the channel to auth-service; only looked at for an `https` URL.
#[derive(Debug, Clone, Default)]
pub struct ChannelOptions {
    /// Authorities that may have signed auth-service's certificate, PEM; `None`: those of the system.
    pub ca_pem: Option<Vec<u8>>,
    /// Certificate chain and private key of this client, PEM, for mutual TLS.
    pub identity_pem: Option<(Vec<u8>, Vec<u8>)>,
    /// Name to expect in the certificate when it is not the URL's host.
    pub server_name: Option<String>,
}

/// `AUTH_SERVICE_URL` cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("expected a URL such as http://auth:50051 or https://auth.example.com:443: {reason}")]
pub struct SourceUrlError {
    reason: String,
}

/// The channel to auth-service, asked for at every use: one whose TLS files were renewed may take its place.
pub type ChannelSource = Arc<dyn Fn() -> Channel + Send + Sync>;

/// A channel to auth-service that connects at its first use and again whenever the connection was lost.
///
/// # Errors
/// The URL has no scheme `http` or `https` or no host, or the TLS options are not usable.
pub fn channel_lazy(url: &str, options: ChannelOptions) -> Result<Channel, SourceUrlError> {
    let refuse = |error: &dyn std::error::Error| SourceUrlError { reason: innermost(error) };
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| refuse(&error))?;
    let secure = match (endpoint.uri().scheme_str(), endpoint.uri().host()) {
        (Some("http"), Some(_)) => false,
        (Some("https"), Some(_)) => true,
        _ => {
            return Err(SourceUrlError { reason: "the scheme is not http or https, or there is no host".to_owned() });
        }
    };
    let endpoint = endpoint
        .connect_timeout(Duration::from_secs(2))
        .tcp_nodelay(true)
        // A peer that vanished without a word is noticed in seconds, not at the next TCP timeout.
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(5));
    let endpoint = if secure { endpoint.tls_config(tls(options)).map_err(|error| refuse(&error))? } else { endpoint };
    Ok(endpoint.connect_lazy())
}

/// Asks auth-service (`auth.v1.TokenService/ListSigningKeys`).
#[derive(Clone)]
pub struct GrpcKeySource {
    channel: ChannelSource,
}

impl GrpcKeySource {
    /// A source with a channel of its own.
    ///
    /// # Errors
    /// As [`channel_lazy`].
    pub fn connect_lazy(url: &str, options: ChannelOptions) -> Result<Self, SourceUrlError> {
        let channel = channel_lazy(url, options)?;
        Ok(Self::new(Arc::new(move || channel.clone())))
    }

    /// A source on a channel that others use too.
    pub fn new(channel: ChannelSource) -> Self {
        Self { channel }
    }
}

impl KeySource for GrpcKeySource {
    fn signing_keys(&self) -> BoxFuture<'_, Result<Vec<PublicKey>, KeySourceError>> {
        let mut client = TokenServiceClient::new((self.channel)());
        Box::pin(async move {
            let answer = client.list_signing_keys(ListSigningKeysRequest::default()).await;
            let answer = answer.map_err(|status| KeySourceError::Rpc(Box::new(status)))?.into_inner();
            PublicKey::usable_of(&answer.keys).map_err(KeySourceError::Unusable)
        })
    }
}

fn tls(options: ChannelOptions) -> ClientTlsConfig {
    let tls = ClientTlsConfig::new();
    let tls = match options.ca_pem {
        Some(pem) => tls.ca_certificate(Certificate::from_pem(pem)),
        None => tls.with_native_roots(),
    };
    let tls = match options.identity_pem {
        Some((chain, key)) => tls.identity(Identity::from_pem(chain, key)),
        None => tls,
    };
    match options.server_name {
        Some(name) => tls.domain_name(name),
        None => tls,
    }
}

/// tonic's own texts say only "transport error"; the cause says why.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
