//! Cuts the text of a plain dump into statements, COPY blocks with their data, and psql commands.

use std::ops::Range;

use super::lexer::{Kind, Lexer, Unterminated};

/// One piece of a dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// Line of the first token, from 1.
    pub(super) line: usize,
    /// The text, without the closing semicolon.
    pub(super) text: Range<usize>,
    /// What it is.
    pub(super) kind: PieceKind,
}

/// What a piece is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PieceKind {
    /// An SQL statement.
    Statement,
    /// `COPY … FROM stdin` with its data and the line of the first data row.
    Copy {
        /// The rows, without the closing `\.`.
        data: Range<usize>,
        /// Line of the first row.
        data_line: usize,
    },
    /// A line that psql itself would act on, such as `\connect`.
    PsqlCommand,
}

/// Where and why the text cannot be cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CutError {
    /// Line, from 1.
    pub(super) line: usize,
    /// What is wrong.
    pub(super) message: String,
}

/// Cuts `text` as psql would.
pub(super) fn cut(text: &str) -> Result<Vec<Piece>, CutError> {
    let mut lexer = Lexer::new(text);
    let mut lines = LineCounter { text, position: 0, line: 1 };
    let mut pieces = Vec::new();
    while let Some(piece) = next_piece(text, &mut lexer, &mut lines)? {
        if piece.kind == PieceKind::Statement
            && let Some(conforming) = setting_of_strings(&text[piece.text.clone()])
        {
            lexer.backslash_escapes = !conforming;
        }
        pieces.push(piece);
    }
    Ok(pieces)
}

fn next_piece(text: &str, lexer: &mut Lexer<'_>, lines: &mut LineCounter<'_>) -> Result<Option<Piece>, CutError> {
    let mut shape = Shape::default();
    let mut start = None;
    let mut last_end = 0;
    let closed = loop {
        let token = match lexer.next() {
            Ok(Some(token)) => token,
            Ok(None) => break false,
            Err(Unterminated { start, what }) => {
                return Err(CutError {
                    line: lines.at(start),
                    message: format!("{what} that begins here does not end: the file is cut off or damaged"),
                });
            }
        };
        match token.kind {
            Kind::Symbol(b';') if shape.is_closed() => {
                if start.is_some() {
                    break true;
                }
                continue;
            }
            Kind::Symbol(b'\\') if start.is_none() => {
                let end = line_end(text, token.start);
                lexer.position = end;
                return Ok(Some(Piece {
                    line: lines.at(token.start),
                    text: token.start..end,
                    kind: PieceKind::PsqlCommand,
                }));
            }
            Kind::Symbol(b'\\') => {
                return Err(CutError {
                    line: lines.at(token.start),
                    message: "a psql command inside a statement: only plain SQL dumps can be loaded".to_owned(),
                });
            }
            Kind::Word => shape.word(&text[token.start..token.end]),
            Kind::Symbol(symbol) => shape.symbol(symbol),
            _ => shape.other(),
        }
        start.get_or_insert(token.start);
        last_end = token.end;
    };
    let Some(start) = start else {
        return Ok(None);
    };
    let line = lines.at(start);
    if !closed && !shape.is_closed() {
        return Err(CutError {
            line,
            message: "the statement that begins here does not end: the file is cut off or damaged".to_owned(),
        });
    }
    let statement = start..last_end;
    if !shape.copies_from_stdin {
        return Ok(Some(Piece { line, text: statement, kind: PieceKind::Statement }));
    }
    let begin = (line_end(text, lexer.position) + 1).min(text.len());
    let data_line = lines.at(begin);
    let (end, after) = end_of_data(text, begin).ok_or_else(|| CutError {
        line,
        message: "the rows of this COPY do not end with a line `\\.`: the file is cut off".to_owned(),
    })?;
    lexer.position = after;
    Ok(Some(Piece { line, text: statement, kind: PieceKind::Copy { data: begin..end, data_line } }))
}

fn line_end(text: &str, from: usize) -> usize {
    text[from..].find('\n').map_or(text.len(), |length| from + length)
}

/// The end of the rows and the place after the closing `\.` line.
fn end_of_data(text: &str, begin: usize) -> Option<(usize, usize)> {
    let mut at = begin;
    while at < text.len() {
        let end = line_end(text, at);
        if text[at..end].trim_end_matches('\r') == "\\." {
            return Some((at, end));
        }
        at = end + 1;
    }
    None
}

/// `SET standard_conforming_strings = on|off` → the value.
fn setting_of_strings(statement: &str) -> Option<bool> {
    if statement.len() > 80 {
        return None;
    }
    let lower = statement.to_ascii_lowercase();
    (lower.starts_with("set ") && lower.contains("standard_conforming_strings")).then(|| !lower.contains("off"))
}

/// What of a statement decides whether a semicolon ends it, as in psql's own scanner.
#[derive(Default)]
struct Shape {
    parentheses: usize,
    words: Vec<String>,
    atomic_depth: usize,
    after_from: bool,
    copies_from_stdin: bool,
}

impl Shape {
    fn is_closed(&self) -> bool {
        self.parentheses == 0 && self.atomic_depth == 0
    }

    fn word(&mut self, word: &str) {
        let word = word.to_ascii_lowercase();
        if self.makes_routine() && self.parentheses == 0 {
            match word.as_str() {
                "begin" => self.atomic_depth += 1,
                "case" if self.atomic_depth > 0 => self.atomic_depth += 1,
                "end" => self.atomic_depth = self.atomic_depth.saturating_sub(1),
                _ => {}
            }
        }
        let is_copy = self.words.first().is_some_and(|first| first == "copy");
        if is_copy && self.parentheses == 0 && self.after_from && word == "stdin" {
            self.copies_from_stdin = true;
        }
        self.after_from = word == "from";
        if self.words.len() < 4 {
            self.words.push(word);
        }
    }

    fn symbol(&mut self, symbol: u8) {
        match symbol {
            b'(' => self.parentheses += 1,
            b')' => self.parentheses = self.parentheses.saturating_sub(1),
            _ => {}
        }
        self.after_from = false;
    }

    fn other(&mut self) {
        self.after_from = false;
    }

    /// CREATE [OR REPLACE] FUNCTION|PROCEDURE: its body may hold semicolons between BEGIN ATOMIC and END.
    fn makes_routine(&self) -> bool {
        let is_routine = |word: &String| word == "function" || word == "procedure";
        match self.words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["create", "or", "replace", ..] => self.words.get(3).is_some_and(is_routine),
            ["create", ..] => self.words.get(1).is_some_and(is_routine),
            _ => false,
        }
    }
}

/// Counts lines forward only, so that a large file is read once.
struct LineCounter<'a> {
    text: &'a str,
    position: usize,
    line: usize,
}

impl LineCounter<'_> {
    fn at(&mut self, position: usize) -> usize {
        if position > self.position {
            self.line += newlines(&self.text[self.position..position]);
            self.position = position;
            return self.line;
        }
        self.line - newlines(&self.text[position..self.position])
    }
}

fn newlines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(sql: &str) -> Vec<String> {
        cut(sql).unwrap().into_iter().map(|piece| sql[piece.text].to_owned()).collect()
    }

    #[test]
    fn semicolons_inside_quotes_comments_and_bodies_do_not_end_a_statement() {
        let sql = "-- a; b\nSELECT ';', E'\\';', \"a;b\", $$;$$, $x$ $$ ; $x$ /* ; /* ; */ ; */;\n\
                   CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END;\n\
                   CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2);\n;;SELECT $1 ; SELECT 'last'";
        let found = texts(sql);
        assert_eq!(found.len(), 5, "{found:#?}");
        assert!(found[1].ends_with("END"));
        assert_eq!(found[4], "SELECT 'last'");
    }

    #[test]
    fn copy_blocks_carry_their_rows_and_lines() {
        let sql = "\\restrict abc\nCOPY public.t (a, b) FROM stdin;\n1\tx;y\n2\t\\N\n\\.\n\n\nSELECT 1;\n";
        let pieces = cut(sql).unwrap();
        assert_eq!(pieces[0].kind, PieceKind::PsqlCommand);
        let PieceKind::Copy { data, data_line } = pieces[1].kind.clone() else { panic!("not a copy: {:?}", pieces[1]) };
        assert_eq!((&sql[data], data_line), ("1\tx;y\n2\t\\N\n", 3));
        assert_eq!((&sql[pieces[2].text.clone()], pieces[2].line), ("SELECT 1", 8));
    }

    #[test]
    fn what_does_not_end_is_told_with_its_line() {
        for (sql, line) in [
            ("SELECT 1;\nSELECT 'a", 2),
            ("\nCREATE TABLE t (a int,", 2),
            ("COPY t FROM stdin;\n1\n", 1),
            ("/* a", 1),
            ("\n\nDO $$ x", 3),
        ] {
            assert_eq!(cut(sql).unwrap_err().line, line, "{sql:?}");
        }
    }

    #[test]
    fn backslashes_escape_only_where_the_dump_says_so() {
        assert_eq!(texts("SELECT 'a\\'; SELECT 2").len(), 2);
        assert_eq!(texts("SET standard_conforming_strings = off; SELECT 'a\\'; SELECT 2'").len(), 2);
    }
}
