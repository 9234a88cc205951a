//! Loads a plain SQL dump into one new database over the wire, without psql: the same everywhere, no shell escapes, and every
//! error with the line of the file. All or nothing: a failed load leaves neither the database nor the roles it made.

mod lexer;
mod pieces;
mod plan;

use std::collections::BTreeSet;
use std::fs;
use std::io::Cursor;
use std::path::Path;

use futures_util::SinkExt;
use tokio_postgres::error::{ErrorPosition, SqlState};
use tokio_postgres::{Client, SimpleQueryMessage};

use self::pieces::{Piece, PieceKind, cut};
use self::plan::{Decision, collect_roles, decide, decide_psql};
use super::error::sql_message;
use super::{
    DatabaseRoles, PostgresError, ServerAddress, connect, database_adopt, database_create, database_drop,
    quote_identifier,
};

/// Large enough to keep the server busy, small enough to notice an error early.
const COPY_CHUNK: usize = 1 << 16;

/// A plain SQL dump, read and cut into statements.
#[derive(Debug)]
pub struct Dump {
    name: String,
    text: String,
    pieces: Vec<Piece>,
}

/// What a load did besides running the file's statements.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct LoadReport {
    /// Statements run.
    pub statements: u64,
    /// Rows that came in COPY blocks.
    pub copied_rows: u64,
    /// Roles that the dump names and that were created, without the right to sign in.
    pub roles_created: Vec<String>,
    /// Statements left out because they act on the server or on another database.
    pub left_out: Vec<String>,
}

impl Dump {
    /// Reads and checks `path` without a server.
    ///
    /// # Errors
    /// Unreadable, not UTF-8, a binary archive, cut off, or without a statement: with the line.
    pub fn read(path: &Path) -> Result<Self, PostgresError> {
        let bytes = fs::read(path).map_err(|e| PostgresError::file("read", path, e))?;
        let name = path.display().to_string();
        let refuse =
            |line, message: &str| Err(PostgresError::Dump { file: name.clone(), line, message: message.to_owned() });
        if bytes.starts_with(b"PGDMP") {
            return refuse(1, "this is a pg_dump archive; make it plain with `pg_restore --file FILE.sql ARCHIVE`");
        }
        if bytes.starts_with(&[0x1f, 0x8b]) {
            return refuse(1, "this file is compressed; unpack it with gunzip first");
        }
        match String::from_utf8(bytes) {
            Ok(text) => Self::from_text(&name, text),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let line = 1 + error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count();
                refuse(line, "not UTF-8; dump again with `pg_dump --encoding=UTF8`")
            }
        }
    }

    /// As [`Self::read`] for a text in memory; `name` stands in errors.
    ///
    /// # Errors
    /// The text is cut off or holds no statement.
    pub fn from_text(name: &str, text: impl Into<String>) -> Result<Self, PostgresError> {
        let text = text.into();
        let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
        let refuse = |line, message: String| PostgresError::Dump { file: name.to_owned(), line, message };
        let pieces = cut(&text).map_err(|error| refuse(error.line, error.message))?;
        if !pieces.iter().any(|piece| piece.kind != PieceKind::PsqlCommand) {
            return Err(refuse(1, "the file holds no SQL statement".to_owned()));
        }
        let head: String = text.chars().take(400).collect();
        if head.contains("-- PostgreSQL database dump") && !text.contains("-- PostgreSQL database dump complete") {
            return Err(refuse(
                text.lines().count(),
                "the closing line of pg_dump is missing: the file is cut off".to_owned(),
            ));
        }
        Ok(Self { name: name.to_owned(), text, pieces })
    }

    /// Creates `database`, loads the dump into it and gives all of it to the migrator. On failure the database and the roles
    /// made for it are gone again.
    ///
    /// # Errors
    /// The database exists, or a statement failed: with file and line.
    pub async fn restore(
        &self,
        server: &ServerAddress,
        database: &str,
        roles: &DatabaseRoles,
    ) -> Result<LoadReport, PostgresError> {
        database_create(server, database, roles).await?;
        let mut report = LoadReport::default();
        let outcome = match self.load(server, database, &mut report).await {
            Ok(()) => database_adopt(server, database, roles).await,
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            database_drop(server, database).await?;
            let client = connect(&server.superuser_url(super::SUPERUSER)).await?;
            for role in &report.roles_created {
                super::databases::execute(
                    &client,
                    "dropping a role of the dump",
                    &format!("DROP ROLE IF EXISTS {}", quote_identifier(role)),
                )
                .await?;
            }
            return Err(error);
        }
        Ok(report)
    }

    async fn load(&self, server: &ServerAddress, database: &str, report: &mut LoadReport) -> Result<(), PostgresError> {
        // A connection of its own: the dump changes settings of its session.
        let client = connect(&server.superuser_url(database)).await?;
        self.create_roles(&client, report).await?;
        for piece in &self.pieces {
            let text = &self.text[piece.text.clone()];
            match &piece.kind {
                PieceKind::PsqlCommand => match decide_psql(text) {
                    Some(Decision::LeaveOut(what)) => report.left_out.push(what),
                    Some(Decision::Run) => {}
                    None => {
                        return Err(self.error(
                            piece.line,
                            format!("the psql command `{text}` is not understood; only plain SQL dumps can be loaded"),
                        ));
                    }
                },
                PieceKind::Statement => match decide(text) {
                    Decision::LeaveOut(what) => report.left_out.push(what),
                    Decision::Run => {
                        self.run(&client, piece, text, report).await?;
                        report.statements += 1;
                    }
                },
                PieceKind::Copy { data, data_line } => {
                    let rows = copy(&client, text, &self.text[data.clone()])
                        .await
                        .map_err(|e| self.error(copy_error_line(&e, piece.line, *data_line), sql_message(&e)))?;
                    report.statements += 1;
                    report.copied_rows += rows;
                }
            }
        }
        self.check_closed(&client).await
    }

    /// Runs one statement; a setting that this server's version does not know is left out, as newer dumps set some.
    async fn run(
        &self,
        client: &Client,
        piece: &Piece,
        text: &str,
        report: &mut LoadReport,
    ) -> Result<(), PostgresError> {
        match client.batch_execute(text).await {
            Ok(()) => Ok(()),
            Err(error)
                if error.code() == Some(&SqlState::UNDEFINED_OBJECT)
                    && text.to_ascii_lowercase().starts_with("set ") =>
            {
                report.left_out.push(text.to_owned());
                Ok(())
            }
            Err(error) => Err(self.error(piece.line + lines_before(&error, text), sql_message(&error))),
        }
    }

    async fn create_roles(&self, client: &Client, report: &mut LoadReport) -> Result<(), PostgresError> {
        let mut named = BTreeSet::new();
        for piece in self.pieces.iter().filter(|piece| piece.kind == PieceKind::Statement) {
            collect_roles(&self.text[piece.text.clone()], &mut named);
        }
        for role in named {
            let known = client
                .query_opt("SELECT FROM pg_roles WHERE rolname = $1", &[&role])
                .await
                .map_err(|e| PostgresError::sql("reading pg_roles", &e))?;
            if known.is_none() {
                let sql = format!("CREATE ROLE {} NOLOGIN", quote_identifier(&role));
                super::databases::execute(client, "creating a role of the dump", &sql).await?;
                report.roles_created.push(role);
            }
        }
        Ok(())
    }

    /// A transaction that is still open would be rolled back in silence: the file lacks its COMMIT.
    async fn check_closed(&self, client: &Client) -> Result<(), PostgresError> {
        let last = self.text.lines().count();
        // Both times are one in a simple query of its own transaction.
        let answer = client
            .simple_query("SELECT pg_catalog.now() < pg_catalog.statement_timestamp()")
            .await
            .map_err(|e| self.error(last, sql_message(&e)))?;
        let is_open =
            answer.iter().any(|message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("t")));
        if is_open {
            Err(self.error(last, "the transaction is not committed: the file is cut off".to_owned()))
        } else {
            Ok(())
        }
    }

    fn error(&self, line: usize, message: String) -> PostgresError {
        PostgresError::Dump { file: self.name.clone(), line, message }
    }
}

async fn copy(client: &Client, statement: &str, rows: &str) -> Result<u64, tokio_postgres::Error> {
    let sink = client.copy_in::<_, Cursor<Vec<u8>>>(statement).await?;
    futures_util::pin_mut!(sink);
    for chunk in rows.as_bytes().chunks(COPY_CHUNK) {
        sink.send(Cursor::new(chunk.to_vec())).await?;
    }
    sink.finish().await
}

/// How many lines the server's error position lies below the first line of the statement.
fn lines_before(error: &tokio_postgres::Error, statement: &str) -> usize {
    match error.as_db_error().and_then(|db| db.position()) {
        Some(ErrorPosition::Original(position)) => {
            statement.chars().take(*position as usize).filter(|c| *c == '\n').count()
        }
        _ => 0,
    }
}

/// The line of the row that the server names in its context ("COPY tasks, line 3, column id: …").
fn copy_error_line(error: &tokio_postgres::Error, statement_line: usize, data_line: usize) -> usize {
    let context = error.as_db_error().and_then(|db| db.where_()).unwrap_or_default();
    let row = context
        .split_once(", line ")
        .and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<usize>().ok());
    row.map_or(statement_line, |row| data_line + row - 1)
}
