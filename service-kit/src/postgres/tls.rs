//! rustls settings for each `sslmode`, with libpq's meaning.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{ConnectError, DatabaseUrl, TlsMode, TlsRoots};

/// What [`super::connect_with`] needs for TLS; made once, used for many connections.
#[derive(Clone)]
pub struct TlsSetup {
    connector: MakeRustlsConnect,
}

impl TlsSetup {
    /// Reads the trusted authorities that the URL asks for. Fails when they cannot be read.
    pub fn load(url: &DatabaseUrl) -> Result<Self, ConnectError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let check = match (url.tls_mode(), url.tls_roots()) {
            (TlsMode::VerifyFull, roots) => Check::Host(read_roots(roots)?),
            // libpq: `require` with a root certificate file behaves like verify-ca.
            (TlsMode::VerifyCa, roots) | (TlsMode::Require, roots @ Some(TlsRoots::File(_))) => {
                Check::Chain(read_roots(roots)?)
            }
            _ => Check::Nothing,
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| ConnectError::tls(format!("TLS cannot be set up: {error}")))?;
        let mut config = match check {
            Check::Host(roots) => builder.with_root_certificates(roots).with_no_client_auth(),
            Check::Chain(roots) => {
                let verifier = Arc::new(ChainVerifier { roots, provider });
                builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
            }
            Check::Nothing => {
                let verifier = Arc::new(NoVerifier { provider });
                builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
            }
        };
        // PostgreSQL 17 checks it on direct TLS; older ones ignore it.
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(Self { connector: MakeRustlsConnect::new(config) })
    }

    pub(crate) fn connector(&self) -> MakeRustlsConnect {
        self.connector.clone()
    }
}

enum Check {
    Nothing,
    Chain(RootCertStore),
    Host(RootCertStore),
}

fn read_roots(roots: Option<&TlsRoots>) -> Result<RootCertStore, ConnectError> {
    let mut store = RootCertStore::empty();
    let source = match roots {
        Some(TlsRoots::File(path)) => {
            let name = path.display();
            let unreadable = |error: String| {
                ConnectError::tls(format!(
                    "sslrootcert {name} cannot be read: {error}; expected a PEM file of certificates"
                ))
            };
            let certificates = CertificateDer::pem_file_iter(path).map_err(|error| unreadable(error.to_string()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| unreadable(error.to_string()))?;
                store.add(certificate).map_err(|error| unreadable(error.to_string()))?;
            }
            format!("sslrootcert {name}")
        }
        Some(TlsRoots::System) | None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            "the system's certificate store".to_owned()
        }
    };
    if store.is_empty() {
        return Err(ConnectError::tls(format!("{source} holds no certificate; pass sslrootcert=FILE in DATABASE_URL")));
    }
    Ok(store)
}

/// `sslmode=verify-ca`: a trusted chain, whatever the host is called.
#[derive(Debug)]
struct ChainVerifier {
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
}

/// `sslmode=require` without a root file: encryption against listeners, no check of who answers.
#[derive(Debug)]
struct NoVerifier {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ChainVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for NoVerifier {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
