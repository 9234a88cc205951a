//! `DATABASE_URL`: a PostgreSQL URL with libpq's `sslmode` and `sslrootcert`, and the way to show it without its password.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tokio_postgres::config::Host;

/// How much TLS is asked for; names and meaning are libpq's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// Never TLS.
    Disable,
    /// Plain; TLS when the server insists.
    Allow,
    /// TLS; plain when the server has none. The default.
    Prefer,
    /// TLS or nothing; the certificate is checked only when `sslrootcert` is given.
    Require,
    /// TLS with a certificate of a trusted authority.
    VerifyCa,
    /// TLS with a certificate of a trusted authority for this very host.
    VerifyFull,
}

impl TlsMode {
    /// The word in `sslmode=`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// Whom to trust: `sslrootcert`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsRoots {
    /// The authorities of the operating system: `sslrootcert=system`, or verification without `sslrootcert`.
    System,
    /// A PEM file.
    File(PathBuf),
}

/// A parsed PostgreSQL URL. `Display` and `Debug` mask the password.
#[derive(Clone)]
pub struct DatabaseUrl {
    text: SecretString,
    shown: String,
    config: tokio_postgres::Config,
    mode: TlsMode,
    roots: Option<TlsRoots>,
}

/// What is wrong with a URL, in one line without its password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DatabaseUrlError(String);

const EXPECTED: &str = "expected postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=...";

/// Said instead of any value when an "@" stands where none can.
const AT_SIGN: &str = "it has an \"@\" too many; percent-encode @ in the user name and in the password as %40";

/// A connection attempt to one address, sign-in included, takes no longer than this unless the URL says `connect_timeout`.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

impl FromStr for DatabaseUrl {
    type Err = DatabaseUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // With two "@" the driver takes the first for the end of the password: no error may show what it read after that.
        let ambiguous = text.split_once("://").is_some_and(|(_, rest)| rest.matches('@').count() > 1);
        Self::parse(text).map_err(|error| if ambiguous { DatabaseUrlError(AT_SIGN.to_owned()) } else { error })
    }
}

impl DatabaseUrl {
    fn parse(text: &str) -> Result<Self, DatabaseUrlError> {
        let rest = ["postgres://", "postgresql://"].iter().find_map(|scheme| text.strip_prefix(scheme));
        let rest = rest.ok_or_else(|| DatabaseUrlError(format!("it does not start with postgres://; {EXPECTED}")))?;
        let (base, query) = split_query(rest);
        let mut mode = None;
        let mut roots = None;
        let mut others = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match key {
                "sslmode" => mode = Some(parse_mode(&percent_decode(value))?),
                "sslrootcert" => roots = Some(parse_roots(percent_decode(value))),
                // libpq takes it, we have no GSSAPI to turn off.
                "gssencmode" => {}
                _ => others.push(pair),
            }
        }
        let mut plain = format!("postgres://{base}");
        if !others.is_empty() {
            plain = format!("{plain}?{}", others.join("&"));
        }
        let mut config: tokio_postgres::Config = plain.parse().map_err(|error| refused(&error))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(DatabaseUrlError(format!("it names no host; {EXPECTED}")));
        }
        if config.get_dbname().is_none_or(str::is_empty) {
            return Err(DatabaseUrlError(format!("it names no database; {EXPECTED}")));
        }
        let in_host = config.get_hosts().iter().any(|host| matches!(host, Host::Tcp(name) if name.contains('@')));
        if in_host || base.matches('@').count() > 1 {
            return Err(DatabaseUrlError(AT_SIGN.to_owned()));
        }
        let mut mode = match (mode, &roots) {
            // libpq: the system's authorities make sense only with full verification.
            (None, Some(TlsRoots::System)) => TlsMode::VerifyFull,
            (Some(mode), Some(TlsRoots::System)) if mode != TlsMode::VerifyFull => {
                return Err(DatabaseUrlError("sslrootcert=system needs sslmode=verify-full".to_owned()));
            }
            (mode, _) => mode.unwrap_or(TlsMode::Prefer),
        };
        let sockets_only =
            config.get_hostaddrs().is_empty() && config.get_hosts().iter().all(|host| !matches!(host, Host::Tcp(_)));
        if sockets_only {
            // libpq ignores sslmode on Unix sockets; the server offers no TLS there.
            mode = TlsMode::Disable;
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        // A peer that vanished without a word is noticed in well under a minute.
        config
            .keepalives_idle(Duration::from_secs(15))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3)
            // Keepalives are not sent while an answer to data is awaited.
            .tcp_user_timeout(Duration::from_secs(30));
        if config.get_application_name().is_none()
            && let Some(program) = std::env::args_os().next()
            && let Some(name) = std::path::Path::new(&program).file_stem()
        {
            config.application_name(name.to_string_lossy().into_owned());
        }
        let shown = format!("postgres://{}", mask_authority_and_query(rest, "********"));
        Ok(Self { text: SecretString::from(text), shown, config, mode, roots })
    }

    /// The same URL with another `application_name`, unless the URL names one.
    #[must_use]
    pub fn with_application_name(mut self, name: &str) -> Self {
        if !self.text.expose_secret().contains("application_name=") {
            self.config.application_name(name);
        }
        self
    }

    /// The driver's settings, without TLS: `sslmode` in it means nothing.
    pub fn config(&self) -> &tokio_postgres::Config {
        &self.config
    }

    /// How much TLS is asked for.
    pub fn tls_mode(&self) -> TlsMode {
        self.mode
    }

    /// Whom to trust, when the URL says so.
    pub fn tls_roots(&self) -> Option<&TlsRoots> {
        self.roots.as_ref()
    }

    /// The whole URL with its password, for a child process; never to be printed.
    pub fn expose(&self) -> &str {
        self.text.expose_secret()
    }

    /// Longest time for one attempt: `connect_timeout` for each address.
    pub(super) fn patience(&self) -> Duration {
        let addresses = self.config.get_hosts().len().max(self.config.get_hostaddrs().len()).max(1);
        let each = self.config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT);
        each.saturating_mul(u32::try_from(addresses).unwrap_or(u32::MAX))
    }

    /// Host and port (or socket directory) and database, for messages.
    pub fn place(&self) -> String {
        let ports = self.config.get_ports();
        let hosts = self.config.get_hosts().iter().enumerate().map(|(index, host)| {
            let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(name) => format!("{name}:{port}"),
                #[cfg(unix)]
                Host::Unix(directory) => format!("{}:{port}", directory.display()),
            }
        });
        let hosts: Vec<_> = hosts.collect();
        let hosts = if hosts.is_empty() { format!("{:?}", self.config.get_hostaddrs()) } else { hosts.join(",") };
        format!("{hosts}/{}", self.config.get_dbname().unwrap_or_default())
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({})", self.shown)
    }
}

fn parse_mode(value: &str) -> Result<TlsMode, DatabaseUrlError> {
    Ok(match value {
        "disable" => TlsMode::Disable,
        "allow" => TlsMode::Allow,
        "prefer" => TlsMode::Prefer,
        "require" => TlsMode::Require,
        "verify-ca" => TlsMode::VerifyCa,
        "verify-full" => TlsMode::VerifyFull,
        other => {
            let modes = "disable, allow, prefer, require, verify-ca or verify-full";
            return Err(DatabaseUrlError(format!("sslmode={} is unknown; expected {modes}", other.escape_debug())));
        }
    })
}

fn parse_roots(value: String) -> TlsRoots {
    if value == "system" { TlsRoots::System } else { TlsRoots::File(PathBuf::from(value)) }
}

/// The driver's complaint. Its cause names an option, never a value, except for a bad port.
fn refused(error: &tokio_postgres::Error) -> DatabaseUrlError {
    let cause = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    DatabaseUrlError(format!("{}; {EXPECTED}", cause.replace('\n', " ")))
}

/// Everything up to the query, and the query. A `?` inside the password does not start it (libpq reads the user part up to `@`).
fn split_query(rest: &str) -> (&str, Option<&str>) {
    let after_user = match rest.find(['@', '/']) {
        Some(at) if rest.as_bytes().get(at) == Some(&b'@') => at,
        _ => 0,
    };
    match rest.get(after_user..).and_then(|tail| tail.find('?')) {
        Some(mark) => (rest.get(..after_user + mark).unwrap_or(rest), rest.get(after_user + mark + 1..)),
        None => (rest, None),
    }
}

/// What follows `scheme://`, with the password of the authority and of the query replaced.
pub(crate) fn mask_authority_and_query(rest: &str, mask: &str) -> String {
    let authority_end = rest.rfind('@').filter(|at| !rest.get(..*at).is_some_and(|head| head.contains("://")));
    let (user_part, tail) = match authority_end {
        Some(at) => (rest.get(..at), rest.get(at..).unwrap_or_default()),
        None => (None, rest),
    };
    let user_part = user_part.map(|user_part| match user_part.split_once(':') {
        Some((user, _)) => format!("{user}:{mask}"),
        None => user_part.to_owned(),
    });
    let tail = match tail.split_once('?') {
        Some((path, query)) => {
            let secret = |key: &str| key.to_ascii_lowercase().contains("password");
            let pairs = query.split('&').map(|pair| match pair.split_once('=') {
                Some((key, _)) if secret(key) => format!("{key}={mask}"),
                _ => pair.to_owned(),
            });
            format!("{path}?{}", pairs.collect::<Vec<_>>().join("&"))
        }
        None => tail.to_owned(),
    };
    format!("{}{tail}", user_part.unwrap_or_default())
}

fn percent_decode(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped =
            (byte == b'%').then(|| tail.get(..2)).flatten().and_then(|digits| std::str::from_utf8(digits).ok());
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(decoded) => {
                bytes.push(decoded);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<DatabaseUrl, String> {
        text.parse::<DatabaseUrl>().map_err(|error| error.to_string())
    }

    #[test]
    fn reads_modes_and_roots() {
        let url = parse(
            "postgres://me:pw@db.example:6432/app?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem&application_name=x",
        )
        .unwrap();
        assert_eq!(url.tls_mode(), TlsMode::VerifyFull);
        assert_eq!(url.tls_roots(), Some(&TlsRoots::File(PathBuf::from("/etc/ca.pem"))));
        assert_eq!(url.config().get_application_name(), Some("x"));
        assert_eq!(url.place(), "db.example:6432/app");
        assert_eq!(parse("postgresql://db/app").unwrap().tls_mode(), TlsMode::Prefer);
        assert_eq!(parse("postgresql://db/app?sslrootcert=system").unwrap().tls_mode(), TlsMode::VerifyFull);
    }

    #[test]
    fn unix_sockets_never_use_tls() {
        let url = parse("postgres://me@%2Fvar%2Frun%2Fpostgresql/app?sslmode=require").unwrap();
        assert_eq!((url.tls_mode(), url.place().as_str()), (TlsMode::Disable, "/var/run/postgresql:5432/app"));
        assert_eq!(parse("postgres:///app?host=/tmp/s&port=6000&user=me").unwrap().place(), "/tmp/s:6000/app");
    }

    #[test]
    fn errors_are_one_line_and_keep_the_password() {
        let bad = [
            "mysql://me:s3cret@db/app",
            "postgres://me:s3cret@db:port/app",
            "postgres://me:s3cret@db/app?sslmode=on",
            "postgres://me:s3cret@db/app?colour=red",
            "postgres://me:s3cret@db",
            "postgres://me:s3cret@db/app?sslmode=require&sslrootcert=system",
            "",
            // The password is s3cr@tpw, or worse.
            "postgres://me:s3cr@tpw@127.0.0.1:1/app",
            "postgres://me:s3cr@t/tpw@127.0.0.1:1/app",
            "postgres://me:s3cr@t?tpw@127.0.0.1:1/app",
            "postgres://me:s3cr@t?sslmode=tpw@127.0.0.1:1/app",
            "postgres://me:s3cr@t:tpw@127.0.0.1:1/app",
            "postgres://me:s3cr@/tpw@127.0.0.1:1/app",
            "postgres://me:s3cr@t%40tpw/app",
        ];
        for text in bad {
            let error = parse(text).unwrap_err();
            assert!(!error.contains("s3cr") && !error.contains("tpw"), "{text}: {error}");
            assert!(!error.contains('\n') && error.contains("s"), "{text}: {error}");
        }
        let error = parse("postgres://me:s3cr@tpw@127.0.0.1:1/app").unwrap_err();
        assert!(error.contains("%40"), "{error}");
        assert_eq!(parse("postgres://me:s3cr%40tpw@db:1/app").unwrap().place(), "db:1/app");
        assert!(parse("postgres://me@db/app?application_name=a@b").is_ok(), "values may have an @");
    }

    #[test]
    fn shows_no_password() {
        let url = parse("postgres://me:s3?c@ret@db/app?password=s3cret")
            .unwrap_or_else(|_| parse("postgres://me:s3cret@db/app?password=s3cret").unwrap());
        for shown in [format!("{url}"), format!("{url:?}")] {
            assert!(!shown.contains("s3"), "{shown}");
        }
    }
}
