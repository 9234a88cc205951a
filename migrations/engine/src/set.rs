//! A set of migrations: what a service embeds, checked once when it is built.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use sha2::{Digest, Sha256};

use crate::schema::Expected;
use crate::split::{Statement, split};

/// The files of one migration directory.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddedMigration {
    /// Directory name, `<yyyy-mm-dd-hhmmss>_<name>`.
    pub directory: &'static str,
    /// `up.sql`
    pub up: &'static str,
    /// `down.sql`
    pub down: &'static str,
    /// `metadata.toml`, where there is one.
    pub metadata: Option<&'static str>,
}

/// Why a set cannot be used. A test of the service finds it before anybody else does.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// A file of a migration breaks a rule.
    #[error("migration {0}: {1}")]
    Migration(String, String),
    /// The SQL text cannot be read.
    #[error("{0}")]
    Sql(String),
    /// `expected.json` cannot be read.
    #[error("expected.json: {0}")]
    Expected(#[from] serde_json::Error),
}

/// One migration, ready to run.
#[derive(Clone, Debug)]
pub struct Migration {
    /// Diesel's version: the digits of the directory name.
    pub version: String,
    /// What follows the version in the directory name.
    pub name: String,
    /// The statements of `up.sql`.
    pub statements: Vec<Statement>,
    /// The statements of `down.sql`.
    pub down: Vec<Statement>,
    /// Whether it runs in one transaction.
    pub in_transaction: bool,
    /// SHA-256 of the LF-normalised `up.sql`, hex.
    pub checksum: String,
}

impl Migration {
    fn parse(files: &EmbeddedMigration) -> Result<Self, SetError> {
        let fail = |what: String| SetError::Migration(files.directory.to_owned(), what);
        let (version, name) =
            files.directory.split_once('_').ok_or_else(|| fail("the name has no underscore".into()))?;
        let version = version.replace('-', "");
        if version.len() != 14 || !version.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(fail("the name must begin with yyyy-mm-dd-hhmmss".into()));
        }
        let up = files.up.replace("\r\n", "\n");
        let statements = split(&up).map_err(|error| fail(error.to_string()))?;
        let down = split(&files.down.replace("\r\n", "\n")).map_err(|error| fail(format!("down.sql: {error}")))?;
        let in_transaction = match files.metadata {
            None => true,
            Some(metadata) => run_in_transaction(metadata).ok_or_else(|| {
                fail("metadata.toml must say `run_in_transaction = true` or `= false`: without the key Diesel turns it off".into())
            })?,
        };
        if !in_transaction && (statements.len() != 1 || down.len() > 1) {
            return Err(fail("a migration outside a transaction must hold exactly one statement".into()));
        }
        if in_transaction && statements.iter().chain(&down).any(Statement::is_concurrent) {
            return Err(fail("CONCURRENTLY needs metadata.toml with `run_in_transaction = false`".into()));
        }
        Ok(Self {
            version,
            name: name.to_owned(),
            statements,
            down,
            in_transaction,
            checksum: hex::encode(Sha256::digest(up.as_bytes())),
        })
    }
}

fn run_in_transaction(metadata: &str) -> Option<bool> {
    metadata.lines().find_map(|line| {
        let (key, value) = line.split('#').next()?.split_once('=')?;
        if key.trim() != "run_in_transaction" {
            return None;
        }
        value.trim().parse().ok()
    })
}

/// A step in code that belongs to `up`: what SQL cannot compute. It runs after the SQL of every run that changes
/// something, under the lock, and must find nothing to do the second time.
pub trait DataStep: Send + Sync {
    /// One sentence for `data_changes`.
    fn description(&self) -> &str;
    /// Does the work; answers how many rows changed.
    fn run<'a>(&'a self, client: &'a tokio_postgres::Client) -> BoxFuture<'a, Result<u64, tokio_postgres::Error>>;
}

/// A question about the data that is asked after a successful `up`: what a person should know or do.
#[derive(Clone, Copy, Debug)]
pub struct Finding {
    /// Stable name, UPPER_SNAKE.
    pub code: &'static str,
    /// One query that answers `count bigint, sample text[]`; a count of zero is no finding.
    pub query: &'static str,
    /// What was found; `{count}` stands for the number.
    pub message: &'static str,
    /// What to do.
    pub advice: &'static str,
}

/// All migrations of one service with the schema they lead to.
#[derive(Clone)]
pub struct MigrationSet {
    /// The service's name, as in reports and in the lock.
    pub service: &'static str,
    /// Ordered by version.
    pub migrations: Vec<Migration>,
    /// The committed expected schema.
    pub expected: Expected,
    /// Versions of other sets that may share the history table.
    pub siblings: BTreeSet<String>,
    /// Steps in code.
    pub steps: Vec<Arc<dyn DataStep>>,
    /// Questions asked after `up`.
    pub findings: Vec<Finding>,
}

impl MigrationSet {
    /// Parses what a service embeds.
    ///
    /// # Errors
    /// When a migration breaks a rule of the format or `expected.json` cannot be read.
    pub fn new(
        service: &'static str,
        files: &[EmbeddedMigration],
        expected: &str,
        siblings: &[&str],
    ) -> Result<Self, SetError> {
        let migrations = files.iter().map(Migration::parse).collect::<Result<Vec<_>, _>>()?;
        let siblings: BTreeSet<String> = siblings.iter().map(|&version| version.to_owned()).collect();
        if let Some(clash) = migrations.iter().find(|migration| siblings.contains(&migration.version)) {
            return Err(SetError::Migration(
                clash.version.clone(),
                "another service has a migration of this version".into(),
            ));
        }
        Ok(Self {
            service,
            migrations,
            expected: serde_json::from_str(expected)?,
            siblings,
            steps: Vec::new(),
            findings: Vec::new(),
        })
    }

    /// Adds a step in code.
    #[must_use]
    pub fn with_step(mut self, step: impl DataStep + 'static) -> Self {
        self.steps.push(Arc::new(step));
        self
    }

    /// Adds questions that are asked after `up`.
    #[must_use]
    pub fn with_findings(mut self, findings: &[Finding]) -> Self {
        self.findings.extend_from_slice(findings);
        self
    }

    /// The versions, in order.
    #[must_use]
    pub fn versions(&self) -> Vec<String> {
        self.migrations.iter().map(|migration| migration.version.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(directory: &'static str, up: &'static str, metadata: Option<&'static str>) -> Result<Migration, SetError> {
        Migration::parse(&EmbeddedMigration { directory, up, down: "", metadata })
    }

    #[test]
    fn metadata_without_the_key_or_malformed_is_refused() {
        let name = "2026-01-02-030405_a";
        assert!(parse(name, "SELECT 1", None).unwrap().in_transaction);
        assert!(!parse(name, "SELECT 1", Some("run_in_transaction = false")).unwrap().in_transaction);
        assert!(parse(name, "SELECT 1", Some("")).is_err());
        assert!(parse(name, "SELECT 1", Some("run_in_transaction = fals")).is_err());
    }

    #[test]
    fn concurrent_statements_stand_alone() {
        let name = "2026-01-02-030405_a";
        let outside = Some("run_in_transaction = false");
        assert!(parse(name, "CREATE INDEX CONCURRENTLY a ON b (c)", None).is_err());
        assert!(parse(name, "CREATE INDEX CONCURRENTLY a ON b (c)", outside).is_ok());
        assert!(parse(name, "SELECT 1; CREATE INDEX CONCURRENTLY a ON b (c)", outside).is_err());
    }

    #[test]
    fn names_carry_a_version_and_line_endings_do_not_count() {
        assert!(parse("create_users", "SELECT 1", None).is_err());
        assert!(parse("2026-01-02_a", "SELECT 1", None).is_err());
        let (unix, windows) = ("SELECT 1;\nSELECT 2;\n", "SELECT 1;\r\nSELECT 2;\r\n");
        let name = "2026-01-02-030405_a";
        assert_eq!(parse(name, unix, None).unwrap().checksum, parse(name, windows, None).unwrap().checksum);
    }
}
