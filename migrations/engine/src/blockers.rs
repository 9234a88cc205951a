//! What is in the way: rows that break what is expected, and objects that no safe statement can change.
//! Asked before anything is changed, so that a run converges or changes nothing.

use serde::Serialize;

use crate::diff::{self, Difference, Guard, Leave};
use crate::error::EngineError;
use crate::obstacles;
use crate::repair::{name, table as qualified};
use crate::report::{Drift, Kind};
use crate::schema::{Schema, Table};
use crate::scope::Scope;
use crate::set::MigrationSet;
use crate::split::Resolves;

/// How many keys a report shows.
const SAMPLE: i64 = 5;

/// One obstacle.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Blocker {
    /// The table.
    pub table: String,
    /// The object that cannot be made as expected.
    pub object: String,
    /// What is expected.
    pub expected: Option<String>,
    /// What is there.
    pub actual: Option<String>,
    /// Why that is in the way.
    pub reason: String,
    /// How many rows are in the way; zero when it is not rows.
    pub rows: i64,
    /// Keys of some of them.
    pub sample: Vec<String>,
    /// SQL that resolves it, to be read and adapted by a person.
    pub resolve: String,
}

/// Asks every guard of `differences`, and counts on what the migrations promise to do to the rows.
///
/// # Errors
/// Any database error.
pub(crate) async fn find(
    scope: Scope<'_>,
    set: &MigrationSet,
    live: &Schema,
    differences: &[Difference],
    leave: &Leave,
) -> Result<Vec<Blocker>, EngineError> {
    find_with(scope, set, live, differences, leave, true).await
}

/// Asks every guard of `differences` as the rows are, without what the migrations would still do.
///
/// # Errors
/// Any database error.
pub(crate) async fn find_now(
    scope: Scope<'_>,
    set: &MigrationSet,
    live: &Schema,
    differences: &[Difference],
    leave: &Leave,
) -> Result<Vec<Blocker>, EngineError> {
    find_with(scope, set, live, differences, leave, false).await
}

async fn find_with(
    scope: Scope<'_>,
    set: &MigrationSet,
    live: &Schema,
    differences: &[Difference],
    leave: &Leave,
    promises: bool,
) -> Result<Vec<Blocker>, EngineError> {
    let mut found = Vec::new();
    for difference in differences {
        if !scope.is_shadow() {
            found.extend(obstacles::of_fix(scope, difference, live, leave).await?);
        }
        if let Some(column) = of_other_type(set, live, &difference.drift) {
            let reason = format!("{} needs {column}, whose type must change first", difference.drift.object);
            let resolve = format!("-- give {column} its type, then run this command again");
            found.push(blocker(difference, reason, 0, Vec::new(), resolve));
            continue;
        }
        let Some(guard) = &difference.guard else { continue };
        if let Some(blocker) = ask(scope, set, live, difference, guard, promises).await? {
            found.push(blocker);
        }
    }
    Ok(found)
}

/// Whether the guard holds at this moment, without what the migrations will still do.
pub(crate) async fn holds_now(
    scope: Scope<'_>,
    set: &MigrationSet,
    live: &Schema,
    difference: &Difference,
) -> Result<bool, EngineError> {
    if of_other_type(set, live, &difference.drift).is_some() {
        return Ok(false);
    }
    let Some(guard) = &difference.guard else { return Ok(true) };
    let Some(there) = live.get(&difference.drift.table) else { return Ok(false) };
    if let Guard::Unique(columns) = guard
        && !columns.iter().all(|column| there.columns.get(column).is_some_and(|column| !column.nullable))
    {
        return Ok(false);
    }
    Ok(ask(scope, set, live, difference, guard, false).await?.is_none())
}

/// A question about rows: those matching `condition` are in the way.
struct Rows {
    condition: String,
    reason: String,
    resolve: String,
}

async fn ask(
    scope: Scope<'_>,
    set: &MigrationSet,
    live: &Schema,
    difference: &Difference,
    guard: &Guard,
    promises: bool,
) -> Result<Option<Blocker>, EngineError> {
    let of = &difference.drift.table;
    let Some(there) = live.get(of) else { return Ok(None) };
    if let Guard::Never { reason, resolve } = guard {
        return Ok(Some(blocker(difference, reason.clone(), 0, Vec::new(), resolve.clone())));
    }
    if let Guard::Counted { sequence, lowest, highest } = guard {
        return counted(scope, difference, sequence, (*lowest, *highest)).await;
    }
    let has = |columns: &[String]| columns.iter().all(|column| there.columns.contains_key(column));
    let target = qualified(of);
    let rows = match guard {
        Guard::NoNulls(column) => {
            if promises && column_resolved(set, of, column) {
                return Ok(None);
            }
            Rows {
                condition: format!("{} IS NULL", name(column)),
                reason: format!("{of}.{column} must not be null"),
                resolve: format!("UPDATE {target} SET {0} = … WHERE {0} IS NULL;", name(column)),
            }
        }
        Guard::Empty => {
            let column = &difference.drift.object;
            if promises && column_resolved(set, of, column) {
                return Ok(None);
            }
            let type_name = difference.drift.expected.clone().unwrap_or_default().replace(" NOT NULL", "");
            Rows {
                condition: "true".to_owned(),
                reason: format!("{of}.{column} is missing, and its values cannot be made up for rows that are there"),
                resolve: format!(
                    "ALTER TABLE {target} ADD COLUMN {0} {type_name}; UPDATE {target} SET {0} = …; -- or, if this table is another application's, use a database of your own",
                    name(column)
                ),
            }
        }
        Guard::Unique(columns) if has(columns) => {
            let filled: Vec<bool> = columns.iter().map(|column| promises && column_resolved(set, of, column)).collect();
            let mut rows = unique_rows(of, columns, &filled);
            // A primary key takes no NULL either.
            if difference.drift.expected.as_deref().is_some_and(|wanted| wanted.starts_with("PRIMARY KEY")) {
                let unfilled = columns.iter().zip(&filled).filter(|(_, filled)| !**filled);
                for (column, _) in unfilled {
                    rows.condition = format!("{} IS NULL OR {}", name(column), rows.condition);
                }
                rows.reason = rows.reason.replacen("rows repeat", "rows repeat or are null", 1);
            }
            rows
        }
        Guard::NoOrphans { columns, parent, parent_columns } if has(columns) => {
            let nullable = promises && columns.iter().all(|column| column_resolved(set, of, column));
            orphan_rows(of, columns, parent, parent_columns, live, nullable)
        }
        Guard::Check { expression, columns } if has(columns) => {
            let mut condition = format!("NOT ({expression})");
            match constraint_resolved(set, of, &difference.drift.object) {
                Some(None) if promises => return Ok(None),
                Some(Some(predicate)) if promises => condition.push_str(&format!(" AND NOT ({predicate})")),
                _ => {}
            }
            Rows {
                resolve: format!("UPDATE {target} SET … WHERE {condition};"),
                reason: format!("rows break {expression}"),
                condition,
            }
        }
        Guard::MaxLength { column, length } => Rows {
            condition: format!("char_length({}::text) > {length}", name(column)),
            reason: format!("values of {of}.{column} are longer than {length} characters"),
            resolve: format!("UPDATE {target} SET {0} = … WHERE char_length({0}::text) > {length};", name(column)),
        },
        // Columns that are not there yet hold no rows in the way.
        _ => return Ok(None),
    };
    let key = key_expression(there);
    let asked = if matches!(guard, Guard::Check { .. }) { as_texts(set, of, there) } else { target };
    let count: i64 =
        scope.query_one(&format!("SELECT count(*) FROM {asked} WHERE {}", rows.condition), &[]).await?.try_get(0)?;
    if count == 0 {
        return Ok(None);
    }
    let sample = scope
        .query(&format!("SELECT {key} FROM {asked} WHERE {} LIMIT {SAMPLE}", rows.condition), &[])
        .await?
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()?;
    Ok(Some(blocker(difference, rows.reason, count, sample, rows.resolve)))
}

/// A column that an index or constraint needs whose type does not convert to the expected one: PostgreSQL knows no operators
/// for it, neither to make the object nor to ask about the rows.
fn of_other_type(set: &MigrationSet, live: &Schema, drift: &Drift) -> Option<String> {
    let wanted = set.expected.tables.get(&drift.table)?;
    let constraint = wanted.constraints.get(&drift.object).filter(|_| drift.kind == Kind::Constraint);
    let index = wanted.indexes.get(&drift.object).filter(|_| drift.kind == Kind::Index);
    let own = constraint.map(|constraint| &constraint.columns).or(index.map(|index| &index.columns))?;
    let parent =
        constraint.and_then(|constraint| Some((constraint.references.as_ref()?, &constraint.referenced_columns)));
    let is_other = |table: &str, column: &str| {
        let there = live.get(table).and_then(|shape| shape.columns.get(column));
        let wanted = set.expected.tables.get(table).and_then(|shape| shape.columns.get(column));
        there.zip(wanted).is_some_and(|(there, wanted)| !diff::converts(there, wanted))
    };
    // An expression or a condition of an index names columns that are not among its keys.
    let defined = index.and_then(|index| index.definition.split_once(" USING ")).map_or("", |(_, keys)| keys);
    let named = |column: &&String| defined.contains(column.as_str());
    let own = own.iter().chain(wanted.columns.keys().filter(named));
    let own = own.map(|column| (drift.table.as_str(), column.as_str()));
    let parents = parent
        .into_iter()
        .flat_map(|(parent, columns)| columns.iter().map(|column| (parent.as_str(), column.as_str())));
    let mut others = own.chain(parents).filter(|(table, column)| is_other(table, column));
    others.next().map(|(table, column)| format!("{table}.{column}"))
}

/// The table, with columns that are to become texts as texts: an enum compares with no text that is not one of its values.
fn as_texts(set: &MigrationSet, of: &str, there: &Table) -> String {
    let target = qualified(of);
    let is_text = |type_name: &str| type_name == "text" || type_name.starts_with("character varying");
    let wanted = |column: &str| set.expected.tables.get(of).and_then(|shape| shape.columns.get(column));
    let becomes_text = |column: &str, type_name: &str| {
        !is_text(type_name) && wanted(column).is_some_and(|wanted| is_text(&wanted.type_name))
    };
    if !there.columns.iter().any(|(column, shape)| becomes_text(column, &shape.type_name)) {
        return target;
    }
    let columns = there.columns.iter().map(|(column, shape)| match becomes_text(column, &shape.type_name) {
        true => format!("{0}::text AS {0}", name(column)),
        false => name(column),
    });
    format!("(SELECT ctid, {} FROM {target}) AS {}", columns.collect::<Vec<_>>().join(", "), name(of))
}

/// What a sequence has counted to already, where its new bounds leave that out.
async fn counted(
    scope: Scope<'_>,
    difference: &Difference,
    sequence: &str,
    (lowest, highest): (i64, i64),
) -> Result<Option<Blocker>, EngineError> {
    let target = qualified(sequence);
    let last: i64 = scope.query_one(&format!("SELECT last_value FROM {target}"), &[]).await?.try_get(0)?;
    if (lowest..=highest).contains(&last) {
        return Ok(None);
    }
    let reason = format!("sequence {sequence} stands at {last}, outside {lowest} to {highest}");
    let resolve = format!(
        "SELECT setval('{target}', …); -- to a value from {lowest} to {highest}, if no row still counts beyond it"
    );
    Ok(Some(blocker(difference, reason, 0, Vec::new(), resolve)))
}

/// One that no difference has led to.
pub(crate) fn plain(table: &str, reason: String, resolve: String) -> Blocker {
    let (table, object) = (table.to_owned(), table.to_owned());
    Blocker { table, object, expected: None, actual: None, reason, rows: 0, sample: Vec::new(), resolve }
}

pub(crate) fn blocker(
    difference: &Difference,
    reason: String,
    rows: i64,
    sample: Vec<String>,
    resolve: String,
) -> Blocker {
    Blocker {
        table: difference.drift.table.clone(),
        object: difference.drift.object.clone(),
        expected: difference.drift.expected.clone(),
        actual: difference.drift.actual.clone(),
        reason,
        rows,
        sample,
        resolve,
    }
}

/// The text form of a row's key: its primary key, else its place in the table.
fn key_expression(there: &Table) -> String {
    let key = there.constraints.values().find(|key| key.kind == crate::schema::ConstraintKind::PrimaryKey);
    let columns: Vec<String> = match key {
        Some(key) => key.columns.clone(),
        None if there.columns.contains_key("id") => vec!["id".to_owned()],
        None => return "ctid::text".to_owned(),
    };
    let columns: Vec<String> = columns.iter().map(|column| format!("{}::text", name(column))).collect();
    format!("pg_catalog.concat_ws(', ', {})", columns.join(", "))
}

/// NULLs do not repeat, but for columns that the migrations fill: there they all become one value.
fn unique_rows(of: &str, columns: &[String], filled: &[bool]) -> Rows {
    let list = columns.iter().map(|column| name(column)).collect::<Vec<_>>().join(", ");
    let target = qualified(of);
    let compared: Vec<String> = columns
        .iter()
        .zip(filled)
        .filter(|(_, filled)| !**filled)
        .map(|(column, _)| format!("{} IS NOT NULL", name(column)))
        .collect();
    let compared = if compared.is_empty() { "true".to_owned() } else { compared.join(" AND ") };
    let repeated = format!(
        "ctid IN (SELECT place FROM (SELECT ctid AS place, count(*) OVER (PARTITION BY {list}) AS times \
         FROM {target} WHERE {compared}) AS grouped WHERE times > 1)"
    );
    Rows {
        condition: repeated,
        reason: format!("rows repeat in ({list})"),
        resolve: format!(
            "SELECT {list}, count(*) FROM {target} WHERE {compared} GROUP BY {list} HAVING count(*) > 1; -- then change or remove all but one of each"
        ),
    }
}

fn orphan_rows(
    of: &str,
    columns: &[String],
    parent: &str,
    parent_columns: &[String],
    live: &Schema,
    nullable: bool,
) -> Rows {
    let target = qualified(of);
    let present =
        columns.iter().map(|column| format!("{target}.{} IS NOT NULL", name(column))).collect::<Vec<_>>().join(" AND ");
    let parent_there =
        live.get(parent).is_some_and(|there| parent_columns.iter().all(|c| there.columns.contains_key(c)));
    let condition = if parent_there {
        let matches: Vec<String> = columns
            .iter()
            .zip(parent_columns)
            .map(|(column, referenced)| format!("parent.{} = {target}.{}", name(referenced), name(column)))
            .collect();
        format!(
            "{present} AND NOT EXISTS (SELECT FROM {} AS parent WHERE {})",
            qualified(parent),
            matches.join(" AND ")
        )
    } else {
        present
    };
    let resolve = match columns {
        [column] if nullable => format!(
            "ALTER TABLE {target} ALTER COLUMN {0} DROP NOT NULL; UPDATE {target} SET {0} = NULL WHERE {condition}; -- the migration then fills it",
            name(column)
        ),
        _ => format!("DELETE FROM {target} WHERE {condition}; -- or point them at rows of {parent} that exist"),
    };
    Rows { reason: format!("rows of {of} refer to rows of {parent} that do not exist"), condition, resolve }
}

fn promises(set: &MigrationSet) -> impl Iterator<Item = &Resolves> {
    set.migrations.iter().flat_map(|migration| &migration.statements).flat_map(|statement| &statement.resolves)
}

fn column_resolved(set: &MigrationSet, of: &str, wanted: &str) -> bool {
    promises(set)
        .any(|promise| matches!(promise, Resolves::Column { table, column } if table == of && column == wanted))
}

/// `Some(None)` when every row is resolved, `Some(Some(predicate))` when those that match are.
fn constraint_resolved(set: &MigrationSet, of: &str, wanted: &str) -> Option<Option<String>> {
    promises(set).find_map(|promise| match promise {
        Resolves::Constraint { table, constraint, predicate } if table == of && constraint == wanted => {
            Some(predicate.clone())
        }
        _ => None,
    })
}
