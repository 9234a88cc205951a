//! Shapes that a `CREATE TABLE` and the `ALTER TABLE`s of a migration spell out.

use crate::sql::{Kind, Piece, Token};

/// A table that a statement creates.
#[derive(Debug)]
pub(crate) struct Created {
    pub(crate) table: String,
    /// Name and type of each column.
    pub(crate) columns: Vec<(String, String)>,
    /// The definitions that make a constraint and give it no name.
    pub(crate) unnamed: Vec<String>,
    /// Primary keys and unique constraints: their text.
    pub(crate) keys: Vec<String>,
}

/// Words that end the type of a column.
const AFTER_TYPE: [&str; 12] = [
    "not",
    "null",
    "default",
    "constraint",
    "collate",
    "primary",
    "unique",
    "references",
    "check",
    "generated",
    "storage",
    "compression",
];

/// What makes a constraint.
const CONSTRAINTS: [&str; 6] = ["primary", "unique", "references", "foreign", "check", "exclude"];

/// The table that the piece creates, if it creates one.
pub(crate) fn created(piece: &Piece) -> Option<Created> {
    let table_at = piece.find("create table")? + 2;
    let table_at = if piece.find_from(table_at, "if not exists") == Some(table_at) { table_at + 3 } else { table_at };
    let mut created =
        Created { table: piece.word(table_at).to_owned(), columns: vec![], unnamed: vec![], keys: vec![] };
    let open = piece.tokens.iter().position(|token| token.is("("))?;
    let close = (open + 1..piece.tokens.len()).find(|&at| piece.tokens[at].is(")") && piece.tokens[at].depth == 0)?;
    for item in items(&piece.tokens[open + 1..close], 1) {
        let Some(first) = item.first() else { continue };
        if first.is("constraint") || CONSTRAINTS.iter().any(|word| first.is(word)) {
            if !first.is("constraint") {
                created.unnamed.push(text(item));
            }
            if item.iter().any(|token| token.is("primary") || token.is("unique")) {
                created.keys.push(text(item));
            }
            continue;
        }
        created.columns.push((first.text.clone(), column_type(&item[1..])));
        for (at, token) in item.iter().enumerate().skip(1) {
            let makes_one = token.depth == 1 && CONSTRAINTS.iter().any(|word| token.is(word));
            if makes_one && !(at >= 2 && item[at - 2].is("constraint")) {
                created.unnamed.push(text(item));
            }
            if makes_one && (token.is("primary") || token.is("unique")) {
                created.keys.push(text(item));
            }
        }
    }
    Some(created)
}

/// The column that an `ALTER TABLE … ADD COLUMN` adds: table, column, type, and the rest of the definition.
pub(crate) fn added(piece: &Piece) -> Option<(String, String, String, &[Token])> {
    let table = altered(piece)?;
    let mut at = piece.find("add column")? + 2;
    if piece.find_from(at, "if not exists") == Some(at) {
        at += 3;
    }
    let rest = piece.tokens.get(at + 1..)?;
    Some((table.to_owned(), piece.word(at).to_owned(), column_type(rest), rest))
}

/// The table that the piece alters.
pub(crate) fn altered(piece: &Piece) -> Option<&str> {
    let mut at = piece.find("alter table")? + 2;
    for words in ["if exists", "only"] {
        if piece.find_from(at, words) == Some(at) {
            at += words.split(' ').count();
        }
    }
    Some(piece.word(at))
}

/// Name and table of the index that the piece creates; the name is `None` when it leaves that to PostgreSQL.
pub(crate) fn index(piece: &Piece) -> Option<(Option<&str>, &str)> {
    let create = piece.find("create index").or_else(|| piece.find("create unique index"))?;
    let on = piece.find_from(create, "on")?;
    let before = &piece.tokens[on - 1];
    let name =
        (!["index", "concurrently", "exists"].iter().any(|word| before.is(word))).then_some(before.text.as_str());
    let table = if piece.tokens.get(on + 1).is_some_and(|token| token.is("only")) { on + 2 } else { on + 1 };
    Some((name, piece.word(table)))
}

/// The parts between the commas at this depth.
fn items(tokens: &[Token], depth: usize) -> impl Iterator<Item = &[Token]> {
    tokens.split(move |token| token.is(",") && token.depth == depth)
}

fn column_type(tokens: &[Token]) -> String {
    let end = tokens
        .iter()
        .position(|token| token.kind == Kind::Word && AFTER_TYPE.contains(&token.text.as_str()))
        .unwrap_or(tokens.len());
    text(&tokens[..end])
}

fn text(tokens: &[Token]) -> String {
    tokens.iter().map(|token| token.text.as_str()).collect::<Vec<_>>().join(" ")
}
