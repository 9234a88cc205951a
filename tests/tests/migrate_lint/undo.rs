//! The rules for `down.sql`: it undoes the schema and says what it loses.

use crate::rules::Case;
use crate::sql::Piece;
use crate::tables;

/// What an `ALTER TABLE … DROP …` drops: `constraint`, or anything else for a column.
pub(crate) fn dropped_part(piece: &Piece) -> Option<&str> {
    let table = tables::altered(piece)?;
    let at = piece.tokens.iter().position(|token| token.text == table)? + 1;
    (piece.word(at) == "drop").then(|| piece.word(at + 1))
}

pub(crate) fn comment(case: &Case<'_>) -> Vec<String> {
    let text = case.migration().text("down.sql");
    let said: String = text.lines().map_while(|line| line.trim().strip_prefix("--")).collect();
    let loses = |piece: &Piece| {
        let words = ["drop table", "drop column", "delete from", "truncate", "update"];
        words.iter().any(|words| piece.has(words))
    };
    if case.down.iter().any(loses) && !said.contains("Loses ") {
        return vec!["down.sql does not say what it loses".to_owned()];
    }
    let only_indexes = case.down.iter().all(|piece| piece.begins("drop index"));
    if said.trim().is_empty() && !only_indexes { vec!["down.sql has no comment".to_owned()] } else { vec![] }
}

pub(crate) fn undoes(case: &Case<'_>) -> Vec<String> {
    let dropped = |words: &str, name: &str| {
        case.down.iter().any(|piece| {
            piece.find(words).is_some() && piece.tokens.iter().any(|token| token.text == name && !token.is(words))
        })
    };
    let created: Vec<_> = case.up.iter().filter_map(tables::created).map(|created| created.table).collect();
    let mut breaches: Vec<_> =
        created.iter().filter(|table| !dropped("drop table", table)).map(|table| format!("table {table}")).collect();
    for piece in &case.up {
        if let Some((Some(index), table)) = tables::index(piece) {
            let with_table = created.iter().any(|created| created == table);
            if !with_table && !dropped("drop index", index) {
                breaches.push(format!("index {index}"));
            }
        }
        if let Some((table, column, ..)) = tables::added(piece)
            && !created.contains(&table)
            && !dropped("drop column", &column)
        {
            breaches.push(format!("column {table}.{column}"));
        }
    }
    breaches
}
