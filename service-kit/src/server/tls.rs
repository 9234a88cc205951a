//! TLS of the gRPC server: certificate, key and client authorities from files, read again when they change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::ServeError;
use crate::config::TlsArgs;

/// How often the files are looked at. They are small; reading them is cheaper than trusting time stamps of mounted secrets.
const LOOK: Duration = Duration::from_secs(2);

/// The TLS settings of the moment. Cheap to clone.
#[derive(Clone)]
pub(super) struct Reloading {
    files: Files,
    current: Arc<RwLock<(Contents, Arc<ServerConfig>)>>,
}

#[derive(Clone)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

/// The files as read. Not `Debug`: the key is in it.
#[derive(PartialEq, Eq, Clone)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Reloading {
    /// `None` when TLS is off. Fails with the variable's name when a file is missing or no good.
    pub(super) fn load(args: &TlsArgs) -> Result<Option<Self>, ServeError> {
        let (Some(certificate), Some(key)) = (args.tls_cert_file.clone(), args.tls_key_file.clone()) else {
            return Ok(None);
        };
        let files = Files { certificate, key, client_ca: args.tls_client_ca_file.clone() };
        let contents = files.read().map_err(ServeError::Tls)?;
        let config = files.config(&contents).map_err(ServeError::Tls)?;
        Ok(Some(Self { files, current: Arc::new(RwLock::new((contents, config))) }))
    }

    /// An acceptor with the settings of the moment.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&current.1))
    }

    /// Takes up changed files until `stop`. Files that do not fit together (yet) leave the old settings in place.
    pub(super) async fn watch(self, stop: CancellationToken) {
        let mut refused = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = stop.cancelled() => return,
            }
            let contents = match self.files.read() {
                Ok(contents) => contents,
                // A secret is being replaced, or gone: the next look tells.
                Err(error) => {
                    tracing::debug!(error, "TLS files cannot be read; the old certificate stays");
                    continue;
                }
            };
            let unchanged = self.current.read().unwrap_or_else(PoisonError::into_inner).0 == contents;
            if unchanged || refused.as_ref() == Some(&contents) {
                continue;
            }
            match self.files.config(&contents) {
                Ok(config) => {
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = (contents, config);
                    refused = None;
                    tracing::info!("TLS files changed; new connections use the new certificate");
                }
                Err(error) => {
                    tracing::warn!(error, "changed TLS files are not usable; the old certificate stays");
                    refused = Some(contents);
                }
            }
        }
    }
}

impl Files {
    fn read(&self) -> Result<Contents, String> {
        let read = |variable: &str, path: &Path| {
            std::fs::read(path).map_err(|error| format!("{variable}: {} cannot be read: {error}", path.display()))
        };
        Ok(Contents {
            certificate: read("TLS_CERT_FILE", &self.certificate)?,
            key: read("TLS_KEY_FILE", &self.key)?,
            client_ca: self.client_ca.as_deref().map(|path| read("TLS_CLIENT_CA_FILE", path)).transpose()?,
        })
    }

    fn config(&self, contents: &Contents) -> Result<Arc<ServerConfig>, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chain = certificates("TLS_CERT_FILE", &self.certificate, &contents.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&contents.key)
            .map_err(|_| format!("TLS_KEY_FILE: {} holds no private key; expected PEM", self.key.display()))?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS cannot be set up: {error}"))?;
        let builder = match (&self.client_ca, &contents.client_ca) {
            (Some(path), Some(pem)) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates("TLS_CLIENT_CA_FILE", path, pem)? {
                    roots
                        .add(certificate)
                        .map_err(|error| format!("TLS_CLIENT_CA_FILE: {}: {error}", path.display()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(
                    verifier.map_err(|error| format!("TLS_CLIENT_CA_FILE: {}: {error}", path.display()))?,
                )
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| format!("TLS_CERT_FILE and TLS_KEY_FILE do not fit together: {error}"))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }
}

fn certificates(variable: &str, path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match parsed {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(format!("{variable}: {} holds no certificate; expected PEM", path.display())),
    }
}
