//! The way to another service: a channel that follows its TLS files, which may be renewed while this service runs. They are
//! read again whenever the channel is asked for; a changed certificate or authority gets a new connection.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tonic::transport::Channel;

use crate::config::TlsArgs;

const CERTIFICATE: &str = "TLS_CERT_FILE";
const KEY: &str = "TLS_KEY_FILE";

/// A setting of the way to another service cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{variable}: {reason}")]
pub struct PeerError {
    /// The environment variable.
    pub variable: &'static str,
    /// What is wrong and what is expected.
    pub reason: String,
}

/// What the files hold, PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerFiles {
    /// Authorities that may have signed the other service's certificate; `None`: those of the system.
    pub ca: Option<Vec<u8>>,
    /// This service's certificate chain.
    pub certificate: Option<Vec<u8>>,
    /// Its private key.
    pub key: Option<Vec<u8>>,
}

/// Makes a channel that connects at its first use; the error says what is wrong with the URL or the files.
pub type Connect = fn(&str, PeerFiles) -> Result<Channel, String>;

/// Where the other service is and which files secure the way there. This server's own certificate is also its client
/// certificate, should the other service ask for one.
#[derive(Debug, Clone)]
pub struct PeerSettings {
    url: (&'static str, String),
    ca: (&'static str, Option<PathBuf>),
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

struct Current {
    files: PeerFiles,
    channel: Channel,
    /// Files that were refused: said once, not at every use.
    refused: Option<PeerFiles>,
}

/// A channel that follows its TLS files.
pub struct Peer {
    settings: PeerSettings,
    connect: Connect,
    current: Mutex<Current>,
}

impl PeerSettings {
    /// Each value with the name of its variable.
    pub fn new(url: (&'static str, &str), ca: (&'static str, Option<&Path>), tls: &TlsArgs) -> Self {
        Self {
            url: (url.0, url.1.to_owned()),
            ca: (ca.0, ca.1.map(Path::to_owned)),
            certificate: tls.tls_cert_file.clone(),
            key: tls.tls_key_file.clone(),
        }
    }

    fn read(&self) -> Result<PeerFiles, PeerError> {
        Ok(PeerFiles {
            ca: read(self.ca.0, self.ca.1.as_deref())?,
            certificate: read(CERTIFICATE, self.certificate.as_deref())?,
            key: read(KEY, self.key.as_deref())?,
        })
    }

    /// What is wrong with a file is said of its own variable, also for an `http` URL.
    fn channel(&self, files: &PeerFiles, connect: Connect) -> Result<Channel, PeerError> {
        if let ((variable, Some(path)), Some(pem)) = (&self.ca, &files.ca) {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(variable, path, pem)? {
                roots
                    .add(certificate)
                    .map_err(|error| refused(variable, path, &format!("is no authority: {error}")))?;
            }
        }
        if let (Some(path), Some(pem)) = (&self.certificate, &files.certificate) {
            certificates(CERTIFICATE, path, pem)?;
        }
        if let (Some(path), Some(pem)) = (&self.key, &files.key) {
            PrivateKeyDer::from_pem_slice(pem).map_err(|_| refused(KEY, path, "holds no private key; expected PEM"))?;
        }
        // The authorities are sound by now: a client certificate whose key is another one is what is left, or else the URL.
        let without_identity = PeerFiles { certificate: None, key: None, ..files.clone() };
        let variable = if connect(&self.url.1, without_identity).is_ok() { CERTIFICATE } else { self.url.0 };
        connect(&self.url.1, files.clone()).map_err(|reason| PeerError { variable, reason })
    }
}

impl Peer {
    /// Reads the files and checks them. Opens no connection. Must run on a runtime, as channels do.
    ///
    /// # Errors
    /// A file that cannot be used, or the URL; the error names the variable.
    pub fn new(settings: PeerSettings, connect: Connect) -> Result<Self, PeerError> {
        let files = settings.read()?;
        let channel = settings.channel(&files, connect)?;
        Ok(Self { settings, connect, current: Mutex::new(Current { files, channel, refused: None }) })
    }

    /// The channel for what the files hold now. Files that cannot be used, as in the middle of a renewal, leave the one there is.
    pub fn channel(&self) -> Channel {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let url = &self.settings.url.1;
        match self.settings.read() {
            Err(error) => tracing::warn!(%error, url, "TLS files cannot be read; the connection stays"),
            Ok(files) if files == current.files || Some(&files) == current.refused.as_ref() => {}
            Ok(files) => match self.settings.channel(&files, self.connect) {
                Ok(channel) => {
                    tracing::info!(url, "TLS files have changed; the other service is connected to anew");
                    *current = Current { files, channel, refused: None };
                }
                Err(error) => {
                    tracing::warn!(%error, url, "changed TLS files are not usable; the connection stays");
                    current.refused = Some(files);
                }
            },
        }
        current.channel.clone()
    }
}

fn read(variable: &'static str, path: Option<&Path>) -> Result<Option<Vec<u8>>, PeerError> {
    let read = |path: &Path| {
        std::fs::read(path)
            .map_err(|error| refused(variable, path, &format!("cannot be read: {error}; expected a PEM file")))
    };
    path.map(read).transpose()
}

fn certificates(variable: &'static str, path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PeerError> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match parsed {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(refused(variable, path, "holds no certificate; expected PEM")),
    }
}

fn refused(variable: &'static str, path: &Path, reason: &str) -> PeerError {
    PeerError { variable, reason: format!("{} {reason}", path.display()) }
}

#[cfg(test)]
mod tests {
    use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

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

    fn connect(url: &str, files: PeerFiles) -> Result<Channel, String> {
        let mut tls = ClientTlsConfig::new();
        tls = files.ca.map_or(tls.clone(), |pem| tls.ca_certificate(Certificate::from_pem(pem)));
        let identity = files.certificate.zip(files.key).map(|(chain, key)| Identity::from_pem(chain, key));
        tls = identity.map_or(tls.clone(), |identity| tls.identity(identity));
        let endpoint = Endpoint::from_shared(url.to_owned()).and_then(|endpoint| endpoint.tls_config(tls));
        endpoint.map(|endpoint| endpoint.connect_lazy()).map_err(|error| error.to_string())
    }

    fn current(peer: &Peer) -> PeerFiles {
        let _used = peer.channel();
        peer.current.lock().unwrap().files.clone()
    }

    #[tokio::test]
    async fn changed_files_make_a_new_channel_and_bad_ones_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| Some(directory.path().join(name));
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        let settings = PeerSettings {
            url: ("PEER_URL", "https://localhost:1".to_owned()),
            ca: ("PEER_CA_FILE", file("ca")),
            certificate: file("certificate"),
            key: file("key"),
        };
        let ((certificate, key), (other_certificate, other_key)) = (pair(), pair());
        write("ca", &authority());
        write("certificate", &certificate);
        write("key", &key);
        let peer = Peer::new(settings.clone(), connect).unwrap();
        let first = current(&peer);
        assert!(current(&peer) == first);

        // Half renewed: the certificate is new, the key is not.
        write("certificate", &other_certificate);
        assert!(current(&peer) == first);
        assert_eq!(Peer::new(settings, connect).map(|_| ()).unwrap_err().variable, CERTIFICATE);
        write("key", &other_key);
        assert!(current(&peer).key == Some(other_key.into_bytes()));

        for bad in ["", "no PEM"] {
            let before = current(&peer);
            write("ca", bad);
            assert!(current(&peer) == before, "{bad}");
        }
        let renewed = authority();
        write("ca", &renewed);
        assert!(current(&peer).ca == Some(renewed.into_bytes()));
        std::fs::remove_file(directory.path().join("ca")).unwrap();
        assert!(current(&peer).ca.is_some());
    }
}
