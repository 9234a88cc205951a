//! The service's own settings, one struct per concern; those that every service has are in service-kit.
//!
//! | variable | struct | default |
//! |---|---|---|
//! | `JWT_ISSUER`, `JWT_AUDIENCE` | [`TokenArgs`] | auth-service, internal |
//! | `ACCESS_TOKEN_TTL`, `REFRESH_TOKEN_TTL`, `SESSION_TTL` | [`TokenArgs`] | 15m, 7d, 30d |
//! | `KEY_ENCRYPTION_KEY` | [`KeyArgs`] | required where keys are read |
//! | `SIGNING_ALGORITHM`, `SIGNING_KEY_MAX_AGE` | [`KeyArgs`], [`KeyAgeArgs`] | EdDSA, 90d |
//! | `PASSWORD_HASH_MEMORY_KIB`, `_ITERATIONS`, `_PARALLELISM` | [`PasswordArgs`] | 65536, 3, 4 |
//! | `PASSWORD_HASH_MAX_MEMORY_KIB`, `_MAX_ITERATIONS`, `_MAX_PARALLELISM` | [`PasswordArgs`] | 262144, 16, 16 |
//! | `HASHING_MEMORY_BUDGET_KIB`, `HASHING_QUEUE` | [`HashingArgs`] | 262144, 64 |
//! | `SIGN_UP` | [`AccountArgs`] | open |
//! | `TASK_SERVICE_URL` | [`PeerArgs`] | required |
//! | `TASK_SERVICE_CA_FILE` | [`PeerArgs`] | unset: the system's authorities |
//! | `SMTP_URL`, `SMTP_CA_FILE`, `MAIL_FROM`, `MAIL_DIR` | [`MailArgs`] | unset |
//! | `PASSWORD_RESET_LINK`, `EMAIL_VERIFICATION_LINK` | [`MailArgs`] | unset |

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use auth_client::KeyAlgorithm;
use lettre::message::Mailbox;
use service_kit::page_token::PageTokens;

use crate::domain::access_token::{LONGEST_LIFE, TokenSettings};
use crate::domain::password::{HashBounds, HashCost, HashingPoolConfig};
use crate::domain::sealing::{SealingKey, key_bytes};
use crate::mail::{Links, Mailer, Transport};

/// Access tokens, refresh tokens and sessions.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Tokens")]
pub struct TokenArgs {
    /// Issuer in access tokens; the same for all services that accept them.
    #[arg(long, env = "JWT_ISSUER", value_name = "NAME", default_value = "auth-service", value_parser = name)]
    pub jwt_issuer: String,
    /// Audience in access tokens; the same for all services that accept them.
    #[arg(long, env = "JWT_AUDIENCE", value_name = "NAME", default_value = "internal", value_parser = name)]
    pub jwt_audience: String,
    /// Life of an access token, 1s to 1d.
    #[arg(long, env = "ACCESS_TOKEN_TTL", value_name = "DURATION", default_value = "15m", value_parser = access_ttl)]
    pub access_token_ttl: Duration,
    /// Life of a refresh token that is not used, 1s to 365d.
    #[arg(long, env = "REFRESH_TOKEN_TTL", value_name = "DURATION", default_value = "7d", value_parser = session_ttl)]
    pub refresh_token_ttl: Duration,
    /// Life of a session, however often it is refreshed, 1s to 365d.
    #[arg(long, env = "SESSION_TTL", value_name = "DURATION", default_value = "30d", value_parser = session_ttl)]
    pub session_ttl: Duration,
}

/// The key that seals the signing keys.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Keys")]
pub struct KeyArgs {
    /// 32 random bytes in base64 that encrypt the signing keys at rest, the same on all replicas; make it with openssl rand -base64 32.
    #[arg(long, env = "KEY_ENCRYPTION_KEY", hide_env_values = true, value_name = "BASE64", value_parser = KeyEncryptionKey::parse)]
    pub key_encryption_key: KeyEncryptionKey,
    /// What kind of key the next one is: EdDSA (Ed25519) or ES256 (P-256). Keys that are there go on until they are rotated.
    #[arg(long, env = "SIGNING_ALGORITHM", value_name = "NAME", default_value = "EdDSA", value_parser = signing_algorithm)]
    pub signing_algorithm: KeyAlgorithm,
}

/// When the signing key is rotated by itself.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Keys")]
pub struct KeyAgeArgs {
    /// Age at which a signing key gets a successor, 1h to 3650d; 0s: only by RotateSigningKey or keys rotate.
    #[arg(long, env = "SIGNING_KEY_MAX_AGE", value_name = "DURATION", default_value = "90d", value_parser = key_age)]
    pub signing_key_max_age: Duration,
}

/// The parsed key, for each of its uses. `Debug` does not show it.
#[derive(Clone)]
pub struct KeyEncryptionKey {
    /// Seals what is stored.
    pub sealing: Arc<SealingKey>,
    /// Authenticates page tokens; derived, so that neither use says anything of the other.
    pub page_tokens: Arc<PageTokens>,
}

/// Separates this use of the key from every other one.
const PAGE_TOKENS: &str = "auth.v1 page token 1";

impl KeyEncryptionKey {
    fn parse(text: &str) -> Result<Self, String> {
        let bytes = key_bytes(text)?;
        let page_tokens = PageTokens::from_secret(&bytes, PAGE_TOKENS).map_err(|error| error.to_string())?;
        let sealing = SealingKey::new(&bytes).map_err(|error| error.to_string())?;
        Ok(Self { sealing: Arc::new(sealing), page_tokens: Arc::new(page_tokens) })
    }
}

impl std::fmt::Debug for KeyEncryptionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyEncryptionKey")
    }
}

/// What a password hash costs.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Passwords")]
pub struct PasswordArgs {
    /// Memory of a new Argon2id hash in KiB, 19456 (OWASP's minimum) or more.
    #[arg(long, env = "PASSWORD_HASH_MEMORY_KIB", value_name = "KIB", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(19_456..=4_194_304))]
    pub password_hash_memory_kib: u32,
    /// Passes of a new Argon2id hash, 2 or more.
    #[arg(long, env = "PASSWORD_HASH_ITERATIONS", value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..=64))]
    pub password_hash_iterations: u32,
    /// Lanes of a new Argon2id hash; each hash is computed by one thread all the same.
    #[arg(long, env = "PASSWORD_HASH_PARALLELISM", value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub password_hash_parallelism: u32,
    /// Most memory a stored hash may ask for in KiB; above, it is refused unread.
    #[arg(long, env = "PASSWORD_HASH_MAX_MEMORY_KIB", value_name = "KIB", default_value_t = 262_144, value_parser = clap::value_parser!(u32).range(19_456..=4_194_304))]
    pub password_hash_max_memory_kib: u32,
    /// Most passes a stored hash may ask for.
    #[arg(long, env = "PASSWORD_HASH_MAX_ITERATIONS", value_name = "COUNT", default_value_t = 16, value_parser = clap::value_parser!(u32).range(2..=64))]
    pub password_hash_max_iterations: u32,
    /// Most lanes a stored hash may ask for.
    #[arg(long, env = "PASSWORD_HASH_MAX_PARALLELISM", value_name = "COUNT", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub password_hash_max_parallelism: u32,
}

/// The threads that hash.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Passwords")]
pub struct HashingArgs {
    /// Memory for hashing in KiB: as many threads as fit into it, at least one, at most one per core.
    #[arg(long, env = "HASHING_MEMORY_BUDGET_KIB", value_name = "KIB", default_value_t = 262_144, value_parser = clap::value_parser!(u32).range(19_456..))]
    pub hashing_memory_budget_kib: u32,
    /// Most passwords that wait to be hashed; beyond that callers are told to come back.
    #[arg(long, env = "HASHING_QUEUE", value_name = "COUNT", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub hashing_queue: u32,
}

/// Whether strangers may make accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SignUpPolicy {
    /// Anybody may; a taken e-mail address or name is told.
    Open,
    /// Nobody may from outside.
    Closed,
}

/// Accounts.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Accounts")]
pub struct AccountArgs {
    /// Whether strangers may sign up.
    #[arg(long, env = "SIGN_UP", value_name = "POLICY", value_enum, default_value_t = SignUpPolicy::Open)]
    pub sign_up: SignUpPolicy,
}

/// The other service.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Other services")]
pub struct PeerArgs {
    /// The task service: http://HOST:PORT or https://HOST:PORT.
    #[arg(long, env = "TASK_SERVICE_URL", value_name = "URL", value_parser = service_url)]
    pub task_service_url: String,
    /// Authorities of the task service's certificate, PEM [default: those of the system].
    #[arg(long, env = "TASK_SERVICE_CA_FILE", value_name = "FILE")]
    pub task_service_ca_file: Option<PathBuf>,
}

/// Mail.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Mail")]
pub struct MailArgs {
    /// SMTP server: smtps://USER:PASSWORD@HOST:465, or smtp://...:587?tls=required for STARTTLS; smtp:// alone is not encrypted.
    #[arg(long, env = "SMTP_URL", hide_env_values = true, value_name = "URL", value_parser = smtp_url)]
    pub smtp_url: Option<String>,
    /// Certificate authorities of the SMTP server in PEM, beside the system's.
    #[arg(long, env = "SMTP_CA_FILE", value_name = "FILE")]
    pub smtp_ca_file: Option<PathBuf>,
    /// Sender of mails, such as Example <no-reply@example.com>; required with SMTP_URL.
    #[arg(long, env = "MAIL_FROM", value_name = "ADDRESS", value_parser = sender)]
    pub mail_from: Option<Mailbox>,
    /// Directory into which mails are written when no SMTP server is set.
    #[arg(long, env = "MAIL_DIR", value_name = "DIR")]
    pub mail_dir: Option<PathBuf>,
    /// Page on which people set a new password, with {token} in it; without one a mail has the token alone.
    #[arg(long, env = "PASSWORD_RESET_LINK", value_name = "URL", value_parser = link)]
    pub password_reset_link: Option<String>,
    /// Page that confirms an e-mail address, with {token} in it.
    #[arg(long, env = "EMAIL_VERIFICATION_LINK", value_name = "URL", value_parser = link)]
    pub email_verification_link: Option<String>,
}

impl MailArgs {
    /// What sends mails as these settings say; otherwise the variable and what is wrong with it.
    pub fn mailer(&self) -> Result<Mailer, (&'static str, String)> {
        let transport = match (&self.smtp_url, &self.mail_dir) {
            (Some(url), _) => {
                if self.mail_from.is_none() {
                    return Err(("MAIL_FROM", "is missing; expected the sender, since SMTP_URL is set".to_owned()));
                }
                let authorities = self.smtp_ca_file.as_ref().map(std::fs::read).transpose();
                let authorities = authorities.map_err(|error| ("SMTP_CA_FILE", error.to_string()))?;
                Transport::smtp(url, authorities.as_deref())?
            }
            (None, Some(directory)) => Transport::Directory(directory.clone()),
            (None, None) => Transport::Log,
        };
        let links = Links {
            password_reset: self.password_reset_link.clone(),
            email_verification: self.email_verification_link.clone(),
        };
        Ok(Mailer::new(transport, self.mail_from.clone(), links))
    }
}

impl TokenArgs {
    /// For the domain.
    pub fn settings(&self) -> TokenSettings {
        TokenSettings {
            issuer: self.jwt_issuer.clone(),
            audience: self.jwt_audience.clone(),
            access_ttl: self.access_token_ttl,
            refresh_ttl: self.refresh_token_ttl,
            session_ttl: self.session_ttl,
        }
    }
}

impl PasswordArgs {
    /// Cost of new hashes.
    pub fn cost(&self) -> HashCost {
        HashCost {
            memory_kib: self.password_hash_memory_kib,
            iterations: self.password_hash_iterations,
            parallelism: self.password_hash_parallelism,
        }
    }

    /// Bounds of stored hashes.
    pub fn bounds(&self) -> HashBounds {
        let ceiling = HashCost {
            memory_kib: self.password_hash_max_memory_kib,
            iterations: self.password_hash_max_iterations,
            parallelism: self.password_hash_max_parallelism,
        };
        HashBounds { floor: HashCost::OWASP_MINIMUM, ceiling }
    }

    /// A variable whose value does not fit the others, and why.
    pub fn conflict(&self) -> Option<(&'static str, String)> {
        let refused = self.bounds().check(self.cost()).err()?;
        let variable = match refused.parameter {
            "m" => "PASSWORD_HASH_MEMORY_KIB",
            "t" => "PASSWORD_HASH_ITERATIONS",
            _ => "PASSWORD_HASH_PARALLELISM",
        };
        Some((variable, format!("{refused}; the most is set by its _MAX_ variable")))
    }

    /// The pool that `serve` runs.
    pub fn pool(&self, hashing: &HashingArgs) -> HashingPoolConfig {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let fitting = usize::try_from(hashing.hashing_memory_budget_kib / self.password_hash_memory_kib).unwrap_or(1);
        HashingPoolConfig {
            cost: self.cost(),
            bounds: self.bounds(),
            threads: cores.min(fitting).max(1),
            queue: usize::try_from(hashing.hashing_queue).unwrap_or(usize::MAX),
        }
    }

    /// A pool for one password.
    pub fn pool_of_one(&self) -> HashingPoolConfig {
        HashingPoolConfig { cost: self.cost(), bounds: self.bounds(), threads: 1, queue: 1 }
    }
}

fn name(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.len() <= 200 && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned()).ok_or_else(|| "expected a name of 1 to 200 characters".to_owned())
}

/// A duration between bounds.
fn within(text: &str, most: Duration, expected: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).ok();
    let fits = duration.filter(|duration| (Duration::from_secs(1)..=most).contains(duration));
    fits.ok_or_else(|| expected.to_owned())
}

fn access_ttl(text: &str) -> Result<Duration, String> {
    within(text, LONGEST_LIFE.to_std().unwrap_or_default(), "expected a duration from 1s to 1d, such as 15m")
}

fn key_age(text: &str) -> Result<Duration, String> {
    let expected = "expected a duration from 1h to 3650d, such as 90d, or 0s for never";
    let age = humantime::parse_duration(text).map_err(|_| expected.to_owned())?;
    let fits = age.is_zero() || (Duration::from_secs(3600)..=Duration::from_secs(3650 * 24 * 3600)).contains(&age);
    fits.then_some(age).ok_or_else(|| expected.to_owned())
}

fn signing_algorithm(text: &str) -> Result<KeyAlgorithm, String> {
    KeyAlgorithm::of_name(text).ok_or_else(|| "expected EdDSA or ES256".to_owned())
}

fn session_ttl(text: &str) -> Result<Duration, String> {
    within(text, Duration::from_secs(365 * 24 * 3600), "expected a duration from 1s to 365d, such as 7d")
}

fn service_url(text: &str) -> Result<String, String> {
    url_of(text, &["http", "https"])
        .ok_or_else(|| "expected a URL such as http://task:50052 or https://task.example.com:443".to_owned())
}

fn smtp_url(text: &str) -> Result<String, String> {
    url_of(text, &["smtp", "smtps"])
        .ok_or_else(|| "expected a URL such as smtp://user:password@mail.example.com:587".to_owned())
}

fn sender(text: &str) -> Result<Mailbox, String> {
    text.parse()
        .map_err(|_| "expected an address such as no-reply@example.com or Example <no-reply@example.com>".to_owned())
}

fn link(text: &str) -> Result<String, String> {
    url_of(text, &["http", "https"])
        .filter(|link| link.contains("{token}"))
        .ok_or_else(|| "expected a URL with {token} in it, such as https://example.com/reset?token={token}".to_owned())
}

fn url_of(text: &str, schemes: &[&str]) -> Option<String> {
    let url = url::Url::parse(text).ok()?;
    (schemes.contains(&url.scheme()) && url.host_str().is_some_and(|host| !host.is_empty())).then(|| text.to_owned())
}
