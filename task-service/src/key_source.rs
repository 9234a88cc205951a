//! The auth service's keys over gRPC, with TLS files that may be renewed while the service runs: they are read again whenever the keys
//! are fetched, and a changed certificate or authority gets a new connection.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use auth_client::{BoxFuture, ChannelOptions, GrpcKeySource, KeySource, KeySourceError, PublicKey};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use service_kit::config::TlsArgs;

use crate::config::{ConfigurationError, PeerArgs};

const CA: &str = "AUTH_SERVICE_CA_FILE";
const CERTIFICATE: &str = "TLS_CERT_FILE";
const KEY: &str = "TLS_KEY_FILE";

/// Where the auth service is and which files secure the way there. This server's own certificate is also its client certificate,
/// should the auth service ask for one.
#[derive(Debug, Clone)]
pub struct PeerFiles {
    url: String,
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

/// What the files hold.
#[derive(Clone, PartialEq, Eq)]
struct Contents {
    ca: Option<Vec<u8>>,
    certificate: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
}

struct Current {
    contents: Contents,
    source: GrpcKeySource,
    /// Contents that were refused: said once, not at every fetch.
    refused: Option<Contents>,
}

/// Asks auth-service for its keys over a channel that follows its TLS files.
pub struct ReloadingKeySource {
    files: PeerFiles,
    current: Mutex<Current>,
}

impl PeerFiles {
    /// From the settings.
    pub fn new(peer: &PeerArgs, tls: &TlsArgs) -> Self {
        Self {
            url: peer.auth_service_url.clone(),
            ca: peer.auth_service_ca_file.clone(),
            certificate: tls.tls_cert_file.clone(),
            key: tls.tls_key_file.clone(),
        }
    }

    fn read(&self) -> Result<Contents, ConfigurationError> {
        Ok(Contents {
            ca: read(CA, self.ca.as_deref())?,
            certificate: read(CERTIFICATE, self.certificate.as_deref())?,
            key: read(KEY, self.key.as_deref())?,
        })
    }

    /// A source that connects at its first use. What is wrong with a file is said of its own variable, also for an `http` URL.
    fn source(&self, contents: &Contents) -> Result<GrpcKeySource, ConfigurationError> {
        if let (Some(path), Some(pem)) = (&self.ca, &contents.ca) {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(CA, path, pem)? {
                roots.add(certificate).map_err(|error| refused(CA, path, &format!("is no authority: {error}")))?;
            }
        }
        if let (Some(path), Some(pem)) = (&self.certificate, &contents.certificate) {
            certificates(CERTIFICATE, path, pem)?;
        }
        if let (Some(path), Some(pem)) = (&self.key, &contents.key) {
            PrivateKeyDer::from_pem_slice(pem).map_err(|_| refused(KEY, path, "holds no private key; expected PEM"))?;
        }
        let options = ChannelOptions {
            ca_pem: contents.ca.clone(),
            identity_pem: contents.certificate.clone().zip(contents.key.clone()),
            ..ChannelOptions::default()
        };
        // The authorities are sound by now: a client certificate whose key is another one is what is left, or else the URL.
        let variable = if self.connects_without_identity(contents) { CERTIFICATE } else { "AUTH_SERVICE_URL" };
        GrpcKeySource::connect_lazy(&self.url, options)
            .map_err(|error| ConfigurationError { variable, reason: error.to_string() })
    }

    fn connects_without_identity(&self, contents: &Contents) -> bool {
        let options = ChannelOptions { ca_pem: contents.ca.clone(), ..ChannelOptions::default() };
        GrpcKeySource::connect_lazy(&self.url, options).is_ok()
    }
}

impl ReloadingKeySource {
    /// Reads the files and checks them.
    ///
    /// # Errors
    /// A file that cannot be used, or the URL; the error names the variable.
    pub fn new(files: PeerFiles) -> Result<Self, ConfigurationError> {
        let contents = files.read()?;
        let source = files.source(&contents)?;
        Ok(Self { files, current: Mutex::new(Current { contents, source, refused: None }) })
    }

    /// The source for what the files hold now. Files that cannot be used, as in the middle of a renewal, leave the one there is.
    fn source(&self) -> GrpcKeySource {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match self.files.read() {
            Err(error) => tracing::warn!(%error, "TLS files cannot be read; the connection to the auth service stays"),
            Ok(contents) if contents == current.contents || Some(&contents) == current.refused.as_ref() => {}
            Ok(contents) => match self.files.source(&contents) {
                Ok(source) => {
                    tracing::info!("TLS files have changed; the auth service is connected to anew");
                    *current = Current { contents, source, refused: None };
                }
                Err(error) => {
                    tracing::warn!(%error, "changed TLS files are not usable; the connection to the auth service stays");
                    current.refused = Some(contents);
                }
            },
        }
        current.source.clone()
    }
}

impl KeySource for ReloadingKeySource {
    fn signing_keys(&self) -> BoxFuture<'_, Result<Vec<PublicKey>, KeySourceError>> {
        let source = self.source();
        Box::pin(async move { source.signing_keys().await })
    }
}

fn read(variable: &'static str, path: Option<&Path>) -> Result<Option<Vec<u8>>, ConfigurationError> {
    let read = |path: &Path| {
        std::fs::read(path)
            .map_err(|error| refused(variable, path, &format!("cannot be read: {error}; expected a PEM file")))
    };
    path.map(read).transpose()
}

fn certificates(
    variable: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, ConfigurationError> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match parsed {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(refused(variable, path, "holds no certificate; expected PEM")),
    }
}

fn refused(variable: &'static str, path: &Path, reason: &str) -> ConfigurationError {
    ConfigurationError { variable, reason: format!("{} {reason}", path.display()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> String {
        let mut params = rcgen::CertificateParams::new(vec!["ca".to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    }

    fn pair() -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn current(source: &ReloadingKeySource) -> Contents {
        let _used = source.source();
        source.current.lock().unwrap().contents.clone()
    }

    #[tokio::test]
    async fn changed_files_make_a_new_source_and_bad_ones_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| Some(directory.path().join(name));
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        let url = "https://localhost:1".to_owned();
        let files = PeerFiles { url, ca: file("ca"), certificate: file("certificate"), key: file("key") };
        let ((certificate, key), (other_certificate, other_key)) = (pair(), pair());
        write("ca", &authority());
        write("certificate", &certificate);
        write("key", &key);
        let source = ReloadingKeySource::new(files.clone()).unwrap();
        let first = current(&source);
        assert!(current(&source) == first);

        // Half renewed: the certificate is new, the key is not.
        write("certificate", &other_certificate);
        assert!(current(&source) == first);
        assert_eq!(ReloadingKeySource::new(files).map(|_| ()).unwrap_err().variable, CERTIFICATE);
        write("key", &other_key);
        assert!(current(&source).key == Some(other_key.into_bytes()));

        for bad in ["", "no PEM"] {
            let before = current(&source);
            write("ca", bad);
            assert!(current(&source) == before, "{bad}");
        }
        let renewed = authority();
        write("ca", &renewed);
        assert!(current(&source).ca == Some(renewed.into_bytes()));
        std::fs::remove_file(directory.path().join("ca")).unwrap();
        assert!(current(&source).ca.is_some());
    }
}
