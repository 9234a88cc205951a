//! The service's own settings, one struct per concern; those that every service has are in service-kit.
//!
//! | variable | struct | default |
//! |---|---|---|
//! | `JWT_ISSUER`, `JWT_AUDIENCE` | [`TokenArgs`] | auth-service, internal |
//! | `AUTH_SERVICE_URL` | [`PeerArgs`] | required |
//! | `AUTH_SERVICE_CA_FILE` | [`PeerArgs`] | unset: the system's authorities |
//! | `AUTH_CLIENT_ID`, `AUTH_CLIENT_SECRET` | [`PeerArgs`] | unset: revocations are not followed |
//! | `PAGE_TOKEN_KEY` | [`PagingArgs`] | unset: derived from the password in `DATABASE_URL` |

use std::path::PathBuf;

use auth_client::ServiceCredentials;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tonic::codegen::http::Uri;

/// Which access tokens are accepted.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Tokens")]
pub struct TokenArgs {
    /// Issuer in access tokens; the same for all services that accept them.
    #[arg(long, env = "JWT_ISSUER", value_name = "NAME", default_value = "auth-service", value_parser = name)]
    pub jwt_issuer: String,
    /// Audience in access tokens; the same for all services that accept them.
    #[arg(long, env = "JWT_AUDIENCE", value_name = "NAME", default_value = "internal", value_parser = name)]
    pub jwt_audience: String,
}

/// The other service.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Other services")]
pub struct PeerArgs {
    /// The auth service: http://HOST:PORT or https://HOST:PORT.
    #[arg(long, env = "AUTH_SERVICE_URL", value_name = "URL", value_parser = service_url)]
    pub auth_service_url: String,
    /// Authorities of the auth service's certificate, PEM [default: those of the system].
    #[arg(long, env = "AUTH_SERVICE_CA_FILE", value_name = "FILE")]
    pub auth_service_ca_file: Option<PathBuf>,
    /// Service account with tokens.introspect that follows revocations; without one a token is good until it expires.
    #[arg(long, env = "AUTH_CLIENT_ID", value_name = "ID", requires = "auth_client_secret", value_parser = name)]
    pub auth_client_id: Option<String>,
    /// Secret of that service account.
    #[arg(long, env = "AUTH_CLIENT_SECRET", hide_env_values = true, value_name = "SECRET", requires = "auth_client_id", value_parser = Secret::parse)]
    pub auth_client_secret: Option<Secret>,
}

/// A secret. `Debug` does not show it.
#[derive(Clone)]
pub struct Secret(pub String);

impl Secret {
    fn parse(text: &str) -> Result<Self, String> {
        let fits = !text.is_empty() && text.len() <= 1024 && !text.contains(char::is_whitespace);
        fits.then(|| Self(text.to_owned())).ok_or_else(|| "expected a secret without white space".to_owned())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl PeerArgs {
    /// The account that follows revocations.
    pub fn credentials(&self) -> Option<ServiceCredentials> {
        let (client_id, secret) = self.auth_client_id.clone().zip(self.auth_client_secret.clone())?;
        Some(ServiceCredentials { client_id, client_secret: secret.0 })
    }
}

/// Page tokens.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Paging")]
pub struct PagingArgs {
    /// Secret of the page tokens, 32 bytes in base64, the same on all replicas [default: derived from the password in DATABASE_URL].
    #[arg(long, env = "PAGE_TOKEN_KEY", hide_env_values = true, value_name = "BASE64", value_parser = PageTokenKey::parse)]
    pub page_token_key: Option<PageTokenKey>,
}

/// The parsed key. `Debug` does not show it.
#[derive(Clone)]
pub struct PageTokenKey(pub [u8; 32]);

impl PageTokenKey {
    fn parse(text: &str) -> Result<Self, String> {
        let bytes = STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| "expected 32 bytes in base64, as openssl rand -base64 32 makes them".to_owned())
    }
}

impl std::fmt::Debug for PageTokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PageTokenKey")
    }
}

fn name(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.len() <= 200 && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned()).ok_or_else(|| "expected a name of 1 to 200 characters".to_owned())
}

fn service_url(text: &str) -> Result<String, String> {
    let url: Option<Uri> = text.parse().ok();
    let fits = url.is_some_and(|url| {
        matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some_and(|host| !host.is_empty())
    });
    fits.then(|| text.to_owned())
        .ok_or_else(|| "expected a URL such as http://auth:50051 or https://auth.example.com:443".to_owned())
}
