//! Why a connection to PostgreSQL could not be opened, by what the operator has to do about it.

use std::error::Error as _;

use tokio_postgres::error::SqlState;

use super::DatabaseUrl;

/// What kind of failure it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectErrorKind {
    /// Nobody answers, or the server is starting, stopping or full: waiting may help.
    Unreachable,
    /// The server answers and refuses this user, password or database: waiting does not help.
    Authentication,
    /// TLS could not be agreed on or the certificate is not trusted.
    Tls,
    /// Anything else.
    Other,
}

/// A failed connection in one line without any secret; the driver's error is its source.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ConnectError {
    kind: ConnectErrorKind,
    message: String,
    #[source]
    source: Option<tokio_postgres::Error>,
}

impl ConnectError {
    /// What kind of failure it was.
    pub fn kind(&self) -> ConnectErrorKind {
        self.kind
    }

    /// The server's SQLSTATE, when it was the server that refused.
    pub fn sql_state(&self) -> Option<&str> {
        self.source.as_ref().and_then(tokio_postgres::Error::code).map(SqlState::code)
    }

    pub(super) fn tls(message: String) -> Self {
        Self { kind: ConnectErrorKind::Tls, message, source: None }
    }

    pub(crate) fn unreachable(message: String) -> Self {
        Self { kind: ConnectErrorKind::Unreachable, message, source: None }
    }

    pub(super) fn classify(error: tokio_postgres::Error, url: &DatabaseUrl) -> Self {
        let place = url.place();
        let cause = error.source().map_or_else(|| error.to_string(), |source| innermost(source).replace('\n', " "));
        let (kind, message) = match error.code() {
            Some(code) if *code == SqlState::INVALID_PASSWORD => (
                ConnectErrorKind::Authentication,
                format!(
                    "PostgreSQL at {place} refused the user name or password: {cause}; check the credentials in DATABASE_URL"
                ),
            ),
            Some(code) if *code == SqlState::INVALID_CATALOG_NAME => (
                ConnectErrorKind::Authentication,
                format!("PostgreSQL at {place} has no such database: {cause}; create it or mend DATABASE_URL"),
            ),
            Some(code) if code.code().starts_with("28") || *code == SqlState::INSUFFICIENT_PRIVILEGE => (
                ConnectErrorKind::Authentication,
                format!("PostgreSQL at {place} refused the connection: {cause}; check pg_hba.conf and DATABASE_URL"),
            ),
            // 57P03 starting up or shutting down, 53300 too many connections, 08xxx connection exceptions.
            Some(code)
                if code.code().starts_with("57P") || code.code().starts_with("53") || code.code().starts_with("08") =>
            {
                (ConnectErrorKind::Unreachable, format!("PostgreSQL at {place} takes no connection now: {cause}"))
            }
            Some(code) => (ConnectErrorKind::Other, format!("PostgreSQL at {place} answered {}: {cause}", code.code())),
            None => Self::without_code(&error, &place, &cause),
        };
        Self { kind, message, source: Some(error) }
    }

    /// The driver keeps its kinds to itself; its own texts tell them apart, and those are its constants, not a server's words.
    fn without_code(error: &tokio_postgres::Error, place: &str, cause: &str) -> (ConnectErrorKind, String) {
        let text = error.to_string();
        if text.starts_with("error performing TLS handshake") {
            let advice = "check sslmode and sslrootcert in DATABASE_URL";
            return (ConnectErrorKind::Tls, format!("no TLS connection to PostgreSQL at {place}: {cause}; {advice}"));
        }
        if text.starts_with("authentication error") || text.starts_with("invalid configuration") {
            return (
                ConnectErrorKind::Authentication,
                format!("PostgreSQL at {place} could not sign in: {cause}; check the credentials in DATABASE_URL"),
            );
        }
        if text.starts_with("unexpected message") || text.starts_with("error parsing") {
            return (
                ConnectErrorKind::Other,
                format!("what answers at {place} does not speak PostgreSQL: {cause}; check DATABASE_URL"),
            );
        }
        (
            ConnectErrorKind::Unreachable,
            format!("PostgreSQL at {place} cannot be reached: {cause}; check that it runs and DATABASE_URL"),
        )
    }
}

/// The text of the last error in the chain: the one that says what happened.
fn innermost(mut error: &(dyn std::error::Error + 'static)) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    match error.downcast_ref::<tokio_postgres::error::DbError>() {
        Some(refusal) => refusal.message().to_owned(),
        None => error.to_string(),
    }
}
