//! The rules that keep data and let readers and writers go on.

use crate::rules::{Case, each};
use crate::{tables, undo};

/// Tables that cannot be large: rewriting or locking them takes milliseconds.
const SMALL_TABLES: [&str; 1] = ["roles"];

/// Functions whose default is computed per row, so that adding the column rewrites the table.
const VOLATILE: [&str; 6] =
    ["gen_random_uuid", "uuid_generate_v4", "random", "clock_timestamp", "nextval", "timeofday"];

pub(crate) fn data_kept(case: &Case<'_>) -> Vec<String> {
    let losing = ["drop table", "drop schema", "drop database", "drop owned", "truncate", "delete from"];
    each(&case.up, |piece| {
        let column = undo::dropped_part(piece).is_some_and(|part| part != "constraint");
        // A trigger names the statements that it answers to.
        let is_trigger = piece.begins("create trigger") || piece.begins("create or replace trigger");
        column || (!is_trigger && losing.iter().any(|words| piece.has(words)))
    })
}

pub(crate) fn index(case: &Case<'_>) -> Vec<String> {
    let created: Vec<_> = case.up.iter().filter_map(tables::created).map(|created| created.table).collect();
    each(&case.up, |piece| {
        let table = tables::index(piece).map(|(_, table)| table.to_owned());
        table.is_some_and(|table| {
            // A table without rows has no writers to wait; on one with rows the engine builds what is expected.
            let is_empty = piece.has(&format!("if not exists ( select from {table} )"));
            !created.contains(&table) && !piece.has("concurrently") && !is_empty
        })
    })
}

pub(crate) fn not_null(case: &Case<'_>) -> Vec<String> {
    let validated = |table: &str| {
        let earlier = case.set[..case.at].iter().flat_map(|other| crate::sql::pieces(other.text("up.sql")));
        earlier
            .chain(case.up.iter().cloned())
            .any(|piece| tables::altered(&piece) == Some(table) && piece.has("validate constraint"))
    };
    each(&case.up, |piece| {
        let added = tables::added(piece).is_some_and(|(.., definition)| {
            let not_null = definition.windows(2).any(|two| two[0].is("not") && two[1].is("null"));
            not_null && !definition.iter().any(|token| token.is("default"))
        });
        let set = piece.has("set not null") && tables::altered(piece).is_some_and(|table| !validated(table));
        added || set
    })
}

pub(crate) fn rewrite(case: &Case<'_>) -> Vec<String> {
    each(&case.up, |piece| {
        let large = tables::altered(piece).is_some_and(|table| !SMALL_TABLES.contains(&table));
        let volatile = tables::added(piece)
            .is_some_and(|(.., rest)| VOLATILE.iter().any(|function| rest.iter().any(|token| token.is(function))));
        let retyped = piece.has("alter column") && (piece.has("type") || piece.has("set data type"));
        let rewritten = ["set logged", "set unlogged", "set access", "generated always as ("];
        large && (volatile || retyped || rewritten.iter().any(|words| piece.has(words)))
            || piece.begins("vacuum full")
            || piece.begins("cluster")
    })
}

pub(crate) fn not_valid(case: &Case<'_>) -> Vec<String> {
    each(&case.up, |piece| {
        let Some(at) = piece.find("add constraint") else { return false };
        match piece.word(at + 3) {
            "primary" | "unique" => !piece.has("using index"),
            _ => !piece.has("not valid"),
        }
    })
}
