//! Differences of columns: missing, type, null, default, and extra ones.

use super::{Difference, Guard, Leave};
use crate::repair::{self, Phase, Step, name, table as qualified};
use crate::report::{Kind, Problem};
use crate::schema::{Column, ConstraintKind, Table};

pub(super) fn compare(table: &str, expected: &Table, actual: &Table, leave: &Leave, found: &mut Vec<Difference>) {
    for (column, wanted) in &expected.columns {
        match actual.columns.get(column) {
            None => found.push(missing((table, column), wanted, expected)),
            Some(there) => {
                let mut of_key = expected.constraints.values().filter(|key| {
                    matches!(key.kind, ConstraintKind::PrimaryKey | ConstraintKind::Unique)
                        && key.columns.contains(column)
                });
                // Keys are made before the migrations where that is possible, and a primary key takes no NULL.
                let phase = if of_key.next().is_some() { Phase::PrepareIfPossible } else { Phase::Converge };
                existing((table, column), (wanted, there), phase, actual, leave, found);
            }
        }
    }
    for (column, there) in &actual.columns {
        if !expected.columns.contains_key(column) {
            found.push(unexpected(table, column, there, actual));
        }
    }
}

fn missing((table, column): (&str, &str), wanted: &Column, of: &Table) -> Difference {
    let mut sql = format!("ALTER TABLE {} ADD COLUMN {} {}", qualified(table), name(column), wanted.type_name);
    if let Some(default) = &wanted.default {
        sql.push_str(&format!(" DEFAULT {default}"));
    }
    // Without a default it comes in nullable: the migrations fill it, and NOT NULL follows when no NULL is left.
    if !wanted.nullable && wanted.default.is_some() {
        sql.push_str(" NOT NULL");
    }
    // Dropping the column has dropped the sequence that belonged to it, which is made before.
    let owned = of.sequences.iter().filter(|(_, sequence)| sequence.owned_by.as_deref() == Some(column));
    let ties = owned.map(|(sequence, _)| repair::own_sequence(sequence, table, Some(column)));
    let difference = Difference::error(Kind::Column, table, column, Problem::Missing).expected(describe(wanted)).fix(
        Phase::Prepare,
        4,
        vec![Step::Transaction([sql].into_iter().chain(ties).collect())],
    );
    if wanted.nullable || wanted.default.is_some() { difference } else { difference.guard(Guard::Empty) }
}

fn existing(
    (table, column): (&str, &str),
    (wanted, there): (&Column, &Column),
    not_null: Phase,
    actual: &Table,
    leave: &Leave,
    found: &mut Vec<Difference>,
) {
    let alter = format!("ALTER TABLE {} ALTER COLUMN {}", qualified(table), name(column));
    let different = || {
        Difference::error(Kind::Column, table, column, Problem::Different)
            .expected(describe(wanted))
            .actual(describe(there))
    };
    if wanted.type_name != there.type_name || wanted.collation != there.collation {
        found.push(change_type(different(), &alter, column, (wanted, there), leave));
    }
    if wanted.generated != there.generated {
        found.push(different().never(
            format!("{table}.{column} is {}", there.generated.as_deref().unwrap_or("not generated")),
            format!("{alter} DROP IDENTITY (or DROP EXPRESSION)"),
        ));
    } else if wanted.default != there.default && converts(there, wanted) {
        // A default goes with its type: where that cannot be changed, it is told alone.
        let sql = match &wanted.default {
            Some(default) => format!("{alter} SET DEFAULT {default}"),
            None => format!("{alter} DROP DEFAULT"),
        };
        found.push(different().fix(Phase::Prepare, 6, vec![Step::Transaction(vec![sql])]));
    }
    match (wanted.nullable, there.nullable) {
        (true, false) => {
            let sql = format!("{alter} DROP NOT NULL");
            let (phase, rank) = nullable_when(actual, column);
            found.push(different().fix(phase, rank, vec![Step::Transaction(vec![sql])]));
        }
        (false, true) => {
            let steps = repair::set_not_null(table, column);
            found.push(different().fix(not_null, 10, steps).guard(Guard::NoNulls(column.to_owned())));
        }
        _ => {}
    }
}

/// A column of the primary key takes NULL only after the key is replaced.
fn nullable_when(actual: &Table, column: &str) -> (Phase, u8) {
    let mut keys = actual.constraints.values().filter(|key| key.kind == ConstraintKind::PrimaryKey);
    if keys.any(|key| key.columns.iter().any(|of_key| of_key == column)) {
        (Phase::Converge, 13)
    } else {
        (Phase::Prepare, 7)
    }
}

fn unexpected(table: &str, column: &str, there: &Column, actual: &Table) -> Difference {
    if there.nullable || there.default.is_some() || there.generated.is_some() {
        return Difference::warning(Kind::Column, table, column, Problem::Unexpected).actual(describe(there));
    }
    // An insert of ours does not name it, so it would fail. The column and its values stay.
    let sql = format!("ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL", qualified(table), name(column));
    let (phase, rank) = nullable_when(actual, column);
    Difference::error(Kind::Column, table, column, Problem::Unexpected)
        .actual(describe(there))
        .expected("no such column, or one that may be null")
        .fix(phase, rank, vec![Step::Transaction(vec![sql])])
}

/// The column as it stands in CREATE TABLE.
pub(crate) fn describe(column: &Column) -> String {
    let mut text = column.type_name.clone();
    if let Some(collation) = &column.collation {
        text.push_str(&format!(" COLLATE {collation}"));
    }
    if !column.nullable {
        text.push_str(" NOT NULL");
    }
    match (&column.generated, &column.default) {
        (Some(generated), Some(default)) => text.push_str(&format!(" {generated} {default}")),
        (Some(generated), None) => text.push_str(&format!(" {generated}")),
        (None, Some(default)) => text.push_str(&format!(" DEFAULT {default}")),
        (None, None) => {}
    }
    text
}

fn change_type(
    difference: Difference,
    alter: &str,
    column: &str,
    (wanted, there): (&Column, &Column),
    leave: &Leave,
) -> Difference {
    let quoted = name(column);
    let target = match &wanted.collation {
        Some(collation) => format!("{} COLLATE {collation}", wanted.type_name),
        None => wanted.type_name.clone(),
    };
    // An explicit cast to varchar(n) would cut what came in since the guard was asked; an assignment fails instead.
    let using = if there.is_enum { format!(" USING {quoted}::text") } else { String::new() };
    let change = format!("{alter} TYPE {target}{using}");
    let mut statements = Vec::new();
    let limit = match (conversion(there, wanted), &leave.time_zone) {
        (Some(limit), _) => limit,
        (None, Some(zone)) if is_time_of_other_kind(there, wanted) => {
            // The session's zone is the one that the cast takes; with UTC nothing is written anew.
            statements.push(format!("SET LOCAL TimeZone = '{}'", zone.replace('\'', "''")));
            None
        }
        (None, _) => return no_conversion(difference, alter, &quoted, &target, (wanted, there)),
    };
    // A default of the old type may not convert by itself.
    if there.default.is_some() {
        statements.push(format!("{alter} DROP DEFAULT"));
    }
    statements.push(change);
    if let Some(default) = &wanted.default {
        statements.push(format!("{alter} SET DEFAULT {default}"));
    }
    let difference = difference.fix(Phase::Prepare, 5, vec![Step::Transaction(statements)]);
    match limit {
        Some(length) => difference.guard(Guard::MaxLength { column: column.to_owned(), length }),
        None => difference,
    }
}

const WITH_ZONE: &str = "timestamp with time zone";
const WITHOUT_ZONE: &str = "timestamp without time zone";

fn is_time_of_other_kind(there: &Column, wanted: &Column) -> bool {
    let kinds = (there.type_name.as_str(), wanted.type_name.as_str());
    kinds == (WITHOUT_ZONE, WITH_ZONE) || kinds == (WITH_ZONE, WITHOUT_ZONE)
}

fn no_conversion(
    difference: Difference,
    alter: &str,
    quoted: &str,
    target: &str,
    (wanted, there): (&Column, &Column),
) -> Difference {
    let resolve = if is_time_of_other_kind(there, wanted) {
        format!(
            "run the command again with --time-zone and the zone that the values were written in, or: {alter} TYPE {target} USING {quoted} AT TIME ZONE 'UTC'; -- name that zone"
        )
    } else {
        format!(
            "{alter} TYPE {target} USING {quoted}::{}; -- after checking that every value survives",
            wanted.type_name
        )
    };
    let reason = format!("{} does not convert to {} without loss", describe(there), wanted.type_name);
    difference.never(reason, resolve)
}

/// Whether PostgreSQL writes the table anew for `ALTER COLUMN … TYPE <change>`, given the column as it is.
/// Source: ALTER TABLE, Notes: a type that is binary coercible, or an unconstrained or wider varchar, needs none.
pub(crate) fn rewrites(there: &Column, change: &str) -> bool {
    let change = change.split(" COLLATE ").next().unwrap_or_default();
    let (target, using) = match change.split_once(" USING ") {
        Some((target, _)) => (target.trim(), true),
        None => (change.trim(), false),
    };
    if target == there.type_name && !using {
        return false;
    }
    let to = Column { type_name: target.to_owned(), is_enum: false, ..there.clone() };
    match (text_length(there), text_length(&to)) {
        _ if there.is_enum || using => true,
        (Some(_), Some(None)) => false,
        (Some(Some(from)), Some(Some(to))) => from > to,
        _ => true,
    }
}

/// Whether the column can be asked about as if it had the wanted type already: it has, or it converts, if only by the zone
/// that a person names.
pub(crate) fn converts(there: &Column, wanted: &Column) -> bool {
    is_time_of_other_kind(there, wanted) || conversion(there, wanted).is_some()
}

/// Whether every value converts: `None` when some may not, else the longest text that fits where that is less than
/// what the old type allows.
fn conversion(from: &Column, to: &Column) -> Option<Option<u32>> {
    if from.type_name == to.type_name {
        return Some(None); // Only the collation differs.
    }
    if let (Some(from_length), Some(to_length)) = (text_length(from), text_length(to)) {
        return Some(match (from_length, to_length) {
            (_, None) => None,
            (Some(from_length), Some(to_length)) if from_length <= to_length => None,
            (_, Some(to_length)) => Some(to_length),
        });
    }
    let rank = |column: &Column| ["smallint", "integer", "bigint"].iter().position(|name| *name == column.type_name);
    match (rank(from), rank(to)) {
        (Some(from), Some(to)) if from < to => Some(None),
        _ => None,
    }
}

/// For a text-like type its limit in characters. An enum counts as text: each label is one.
fn text_length(column: &Column) -> Option<Option<u32>> {
    match column.type_name.as_str() {
        "text" | "character varying" => Some(None),
        _ if column.is_enum => Some(Some(63)), // NAMEDATALEN - 1, in bytes: never more characters.
        other => {
            let length = other.strip_prefix("character varying(")?.strip_suffix(')')?;
            length.parse().ok().map(Some)
        }
    }
}
