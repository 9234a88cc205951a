//! Splits a migration into statements with the lexical rules of PostgreSQL, never by looking for `;` alone.
//!
//! Knows quoted identifiers, standard and escape strings, dollar quotes, line comments and nested block comments.
//! Line comments that begin with `-- engine:` are directives for the statement that follows:
//! - `-- engine: data <sentence>`: the statement changes rows; a count above zero is reported with the sentence.
//! - `-- engine: resolves column <table>.<column>`: afterwards the column holds no NULL.
//! - `-- engine: resolves constraint <table>.<name> [where <predicate>]`: afterwards no row (of those) breaks it.
//!
//! A statement that may be run over one part of a table at a time says where the part comes in: see [`Batch`].

use crate::set::SetError;

/// One statement of a migration, with its directives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The SQL text without the closing semicolon and without leading comments.
    pub sql: String,
    /// The sentence of a `data` directive.
    pub data: Option<String>,
    /// What the statement makes true of the rows.
    pub resolves: Vec<Resolves>,
    /// How it may be run in parts.
    pub batch: Option<Batch>,
}

/// The table whose parts a statement may be run over: `/* engine: batch <table> [as <alias>] [by <expression>] */`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Table name.
    pub table: String,
    /// Its name within the statement.
    pub alias: String,
    /// Rows with one value of this expression belong together.
    pub by: Option<String>,
    /// The comment as it stands in the statement.
    comment: String,
}

impl Batch {
    /// Finds the comment in a statement.
    fn parse(sql: &str) -> Result<Option<Self>, SetError> {
        let Some((before, rest)) = sql.split_once("/* engine: batch ") else { return Ok(None) };
        let unknown = || {
            SetError::Sql(format!(
                "expected `/* engine: batch <table> [as <alias>] [by <expression>] */` in `{}`",
                summary(sql)
            ))
        };
        let (inside, _) = rest.split_once("*/").ok_or_else(unknown)?;
        let comment =
            sql[before.len()..before.len() + "/* engine: batch ".len() + inside.len() + "*/".len()].to_owned();
        let (names, by) = match inside.trim().split_once(" by ") {
            Some((names, by)) => (names, Some(by.trim().to_owned())),
            None => (inside.trim(), None),
        };
        let mut words = names.split_whitespace();
        let table = words.next().ok_or_else(unknown)?.to_owned();
        let alias = match (words.next(), words.next(), words.next()) {
            (None, None, None) => table.clone(),
            (Some("as"), Some(alias), None) => alias.to_owned(),
            _ => return Err(unknown()),
        };
        Ok(Some(Self { table, alias, by, comment }))
    }

    /// The statement over one part.
    pub(crate) fn within(&self, sql: &str, condition: &str) -> String {
        sql.replacen(&self.comment, condition, 1)
    }
}

impl Statement {
    /// Whether it cannot run inside a transaction block.
    #[must_use]
    pub fn is_concurrent(&self) -> bool {
        self.sql.to_ascii_uppercase().split_whitespace().any(|word| word == "CONCURRENTLY")
    }

    /// Whether it only reads.
    pub(crate) fn is_query(&self) -> bool {
        self.sql.get(..6).is_some_and(|word| word.eq_ignore_ascii_case("select"))
    }

    /// The first line, for people.
    #[must_use]
    pub fn summary(&self) -> String {
        summary(&self.sql)
    }
}

/// The statement on one line, shortened.
pub(crate) fn summary(sql: &str) -> String {
    const WIDTH: usize = 160; // Two lines of a wide terminal.
    let line = sql.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(WIDTH) {
        // ASCII: it is stored in the ledger, and the database may have another encoding than UTF-8.
        Some((at, _)) => format!("{}...", &line[..at]),
        None => line,
    }
}

/// A promise of a data statement about the rows it leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolves {
    /// No NULL is left in the column.
    Column {
        /// Table name.
        table: String,
        /// Column name.
        column: String,
    },
    /// No row that matches the predicate breaks the constraint.
    Constraint {
        /// Table name.
        table: String,
        /// Constraint name.
        constraint: String,
        /// Which rows; all when absent.
        predicate: Option<String>,
    },
}

/// Splits `source` into statements.
///
/// # Errors
/// When a string, a quoted name, a dollar quote or a comment does not end, or a directive is unknown.
pub fn split(source: &str) -> Result<Vec<Statement>, SetError> {
    let bytes = source.as_bytes();
    let mut statements = Vec::new();
    let mut directives: Vec<&str> = Vec::new();
    let mut start: Option<usize> = None;
    let mut at = 0;
    while at < bytes.len() {
        let rest = &source[at..];
        match bytes[at] {
            b'-' if rest.starts_with("--") => {
                let end = rest.find('\n').map_or(source.len(), |line| at + line);
                if let Some(directive) = source[at + 2..end].trim().strip_prefix("engine:") {
                    directives.push(directive.trim());
                }
                at = end;
            }
            b'/' if rest.starts_with("/*") => at = block_comment_end(source, at)?,
            b';' => {
                if let Some(from) = start.take() {
                    statements.push(statement(&source[from..at], &directives)?);
                }
                directives.clear();
                at += 1;
            }
            byte if byte.is_ascii_whitespace() => at += 1,
            byte => {
                start.get_or_insert(at);
                at = match byte {
                    b'\'' => quoted_end(source, at, b'\'', escapes(source, at))?,
                    b'"' => quoted_end(source, at, b'"', false)?,
                    b'$' => dollar_end(source, at)?,
                    _ => at + rest.chars().next().map_or(1, char::len_utf8),
                };
            }
        }
    }
    if let Some(from) = start {
        statements.push(statement(&source[from..], &directives)?);
    }
    Ok(statements)
}

/// Whether the string that opens at `at` is an escape string (`E'…'`), in which a backslash hides a quote.
pub(crate) fn escapes(source: &str, at: usize) -> bool {
    let before = &source.as_bytes()[..at];
    let named = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    matches!(before.last(), Some(b'e' | b'E')) && !before.iter().rev().nth(1).is_some_and(named)
}

pub(crate) fn quoted_end(source: &str, at: usize, quote: u8, backslash: bool) -> Result<usize, SetError> {
    let bytes = source.as_bytes();
    let mut end = at + 1;
    while end < bytes.len() {
        if backslash && bytes[end] == b'\\' {
            end += 2;
        } else if bytes[end] == quote {
            if bytes.get(end + 1) != Some(&quote) {
                return Ok(end + 1);
            }
            end += 2;
        } else {
            end += 1;
        }
    }
    Err(unfinished(source, at, "a quoted text"))
}

pub(crate) fn dollar_end(source: &str, at: usize) -> Result<usize, SetError> {
    let rest = &source[at + 1..];
    let tag = rest.find('$').map(|end| &source[at..=at + 1 + end]);
    let named = |tag: &str| {
        let name = &tag[1..tag.len() - 1];
        !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(|c| c.is_alphanumeric() || c == '_')
    };
    // `a$b` is an identifier and `$1` a parameter: neither opens a quote.
    let inside_name = at > 0 && source[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
    match tag {
        Some(tag) if !inside_name && named(tag) => {
            let body = at + tag.len();
            source[body..]
                .find(tag)
                .map(|end| body + end + tag.len())
                .ok_or_else(|| unfinished(source, at, "a dollar quote"))
        }
        _ => Ok(at + 1),
    }
}

fn block_comment_end(source: &str, at: usize) -> Result<usize, SetError> {
    let (mut depth, mut end) = (0_usize, at);
    while end < source.len() {
        if source.as_bytes()[end..].starts_with(b"/*") {
            depth += 1;
            end += 2;
        } else if source.as_bytes()[end..].starts_with(b"*/") {
            depth -= 1;
            end += 2;
            if depth == 0 {
                return Ok(end);
            }
        } else {
            end += 1;
        }
    }
    Err(unfinished(source, at, "a comment"))
}

fn unfinished(source: &str, at: usize, what: &str) -> SetError {
    let line = source[..at].matches('\n').count() + 1;
    SetError::Sql(format!("{what} that opens on line {line} does not end"))
}

fn statement(sql: &str, directives: &[&str]) -> Result<Statement, SetError> {
    let mut statement =
        Statement { sql: sql.trim().to_owned(), data: None, resolves: Vec::new(), batch: Batch::parse(sql.trim())? };
    for directive in directives {
        let unknown = || SetError::Sql(format!("unknown directive `-- engine: {directive}`"));
        let (word, rest) = directive.split_once(' ').ok_or_else(unknown)?;
        match word {
            "data" => statement.data = Some(rest.trim().to_owned()),
            "resolves" => statement.resolves.push(resolves(rest.trim()).ok_or_else(unknown)?),
            _ => return Err(unknown()),
        }
    }
    Ok(statement)
}

fn resolves(text: &str) -> Option<Resolves> {
    let (kind, rest) = text.split_once(' ')?;
    let (object, predicate) = match rest.split_once(" where ") {
        Some((object, predicate)) => (object, Some(predicate.trim().to_owned())),
        None => (rest, None),
    };
    let (table, name) = object.trim().split_once('.')?;
    let (table, name) = (table.to_owned(), name.to_owned());
    match (kind, &predicate) {
        ("column", None) => Some(Resolves::Column { table, column: name }),
        ("constraint", _) => Some(Resolves::Constraint { table, constraint: name, predicate }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<String> {
        split(source).unwrap().into_iter().map(|statement| statement.sql).collect()
    }

    #[test]
    fn semicolons_count_only_between_statements() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            (" ; ;; -- only a comment\n", &[]),
            ("SELECT 1", &["SELECT 1"]),
            ("SELECT 1; SELECT 2;", &["SELECT 1", "SELECT 2"]),
            ("SELECT ';', 'it''s;'; SELECT 2", &["SELECT ';', 'it''s;'", "SELECT 2"]),
            (r"SELECT E'a\';b'; SELECT 2", &[r"SELECT E'a\';b'", "SELECT 2"]),
            (r"SELECT 'a\'; SELECT 2", &[r"SELECT 'a\'", "SELECT 2"]),
            (r"SELECT type'a\'; SELECT 2", &[r"SELECT type'a\'", "SELECT 2"]),
            ("SELECT \"a;\"\"b\"; SELECT 2", &["SELECT \"a;\"\"b\"", "SELECT 2"]),
            ("DO $$ BEGIN; END $$; SELECT 2", &["DO $$ BEGIN; END $$", "SELECT 2"]),
            ("DO $x$ ; $$ ; $x$; SELECT 2", &["DO $x$ ; $$ ; $x$", "SELECT 2"]),
            ("SELECT a$b$c; SELECT $1; SELECT 3", &["SELECT a$b$c", "SELECT $1", "SELECT 3"]),
            ("SELECT /* ; /* ; */ ; */ 1; SELECT 2", &["SELECT /* ; /* ; */ ; */ 1", "SELECT 2"]),
            ("SELECT 'ü;'; SELECT 'é'", &["SELECT 'ü;'", "SELECT 'é'"]),
        ];
        for (source, expected) in cases {
            assert_eq!(texts(source), *expected, "{source}");
        }
    }

    #[test]
    fn unfinished_text_is_refused_with_its_line() {
        for source in ["\nSELECT 'a", "\nSELECT \"a", "\nDO $$ a", "\n/* a"] {
            assert!(split(source).unwrap_err().to_string().contains("line 2"), "{source}");
        }
    }

    #[test]
    fn directives_belong_to_the_next_statement() {
        let source = "-- engine: data Moved\n-- engine: resolves column t.c\n\
            -- engine: resolves constraint t.k where a = ';'\nUPDATE t SET c = 1;\nSELECT 1;";
        let found = split(source).unwrap();
        assert_eq!(found[0].data.as_deref(), Some("Moved"));
        assert_eq!(found[0].resolves.len(), 2);
        assert_eq!(found[1].data, None);
        let batched = split("UPDATE t SET c = 1 WHERE c = 0 /* engine: batch t as x by lower(c) */").unwrap().remove(0);
        let batch = batched.batch.unwrap();
        assert_eq!((batch.table.as_str(), batch.alias.as_str(), batch.by.as_deref()), ("t", "x", Some("lower(c)")));
        assert_eq!(batch.within(&batched.sql, " AND d"), "UPDATE t SET c = 1 WHERE c = 0  AND d");
        assert!(split("UPDATE t SET c = 1 /* engine: batch t x */").is_err());
        assert!(split("-- engine: dtaa Moved\nSELECT 1").is_err());
        assert!(split("-- engine: resolves column tc\nSELECT 1").is_err());
    }
}
