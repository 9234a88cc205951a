//! Rows that must be there: compared with the live ones, and put back where they miss or were edited.

use std::collections::BTreeMap;

use crate::diff::{self, Difference};
use crate::error::EngineError;
use crate::repair::{Fix, Phase, Step, name, table as qualified, text};
use crate::report::{Drift, Kind, Problem, Severity};
use crate::schema::{Expected, Schema, Seed};
use crate::scope::Scope;

/// Differences of seeded rows. Tables that lack a column, or have it in another type, are left out: that is told first.
pub(crate) async fn compare(
    scope: Scope<'_>,
    expected: &Expected,
    live: &Schema,
) -> Result<Vec<Difference>, EngineError> {
    let mut found = Vec::new();
    for (of, seed) in &expected.seeds {
        let Some(there) = live.get(of) else { continue };
        let columns: Vec<&String> = seed.rows.iter().flat_map(BTreeMap::keys).collect();
        let wanted = expected.tables.get(of);
        let is_comparable = |column: &&String| {
            let wanted = wanted.and_then(|table| table.columns.get(*column));
            there.columns.get(*column).zip(wanted).is_some_and(|(there, wanted)| diff::converts(there, wanted))
        };
        if !columns.iter().all(is_comparable) {
            continue;
        }
        for row in &seed.rows {
            if let Some(difference) = compare_row(scope, of, seed, row).await? {
                found.push(difference);
            }
        }
    }
    Ok(found)
}

async fn compare_row(
    scope: Scope<'_>,
    of: &str,
    seed: &Seed,
    row: &BTreeMap<String, String>,
) -> Result<Option<Difference>, EngineError> {
    let compared: Vec<&String> = row.keys().filter(|column| !seed.key.contains(column)).collect();
    let condition = seed
        .key
        .iter()
        .map(|column| format!("{}::text = {}", name(column), literal(row.get(column))))
        .collect::<Vec<_>>()
        .join(" AND ");
    let list = std::iter::once("'' AS present".to_owned())
        .chain(compared.iter().map(|column| format!("{}::text", name(column))))
        .collect::<Vec<_>>()
        .join(", ");
    let target = qualified(of);
    let live = scope.query(&format!("SELECT {list} FROM {target} WHERE {condition} LIMIT 1"), &[]).await?;
    let object = seed.key.iter().filter_map(|column| row.get(column)).cloned().collect::<Vec<_>>().join(", ");
    let drift = |problem, actual, repair: &[Step]| Drift {
        severity: Severity::Error,
        kind: Kind::Seed,
        table: of.to_owned(),
        object: object.clone(),
        problem,
        expected: Some(describe(row)),
        actual,
        repair: Some(text(repair)),
        optional: false,
    };
    let Some(live) = live.first() else {
        let whole: Vec<_> = row.iter().chain(seed.besides.get(&object).into_iter().flatten()).collect();
        let columns = whole.iter().map(|(column, _)| name(column)).collect::<Vec<_>>().join(", ");
        let values = whole.iter().map(|(_, value)| literal(Some(value))).collect::<Vec<_>>().join(", ");
        let steps = vec![Step::Transaction(vec![format!("INSERT INTO {target} ({columns}) VALUES ({values})")])];
        return Ok(Some(difference(drift(Problem::Missing, None, &steps), steps)));
    };
    let mut actual = row.clone();
    for (at, column) in compared.iter().enumerate() {
        actual
            .insert((*column).clone(), live.try_get::<_, Option<String>>(at + 1)?.unwrap_or_else(|| "NULL".to_owned()));
    }
    if actual == *row {
        return Ok(None);
    }
    let set = compared
        .iter()
        .map(|column| format!("{} = {}", name(column), literal(row.get(*column))))
        .collect::<Vec<_>>()
        .join(", ");
    let steps = vec![Step::Transaction(vec![format!("UPDATE {target} SET {set} WHERE {condition}")])];
    Ok(Some(difference(drift(Problem::Different, Some(describe(&actual)), &steps), steps)))
}

fn difference(drift: Drift, steps: Vec<Step>) -> Difference {
    Difference { drift, fix: Some(Fix { phase: Phase::Converge, rank: 35, steps }), guard: None }
}

fn describe(row: &BTreeMap<String, String>) -> String {
    row.iter().map(|(column, value)| format!("{column} = {value}")).collect::<Vec<_>>().join(", ")
}

/// A value as an untyped literal, which PostgreSQL reads as the column's type.
fn literal(value: Option<&String>) -> String {
    value.map_or_else(|| "NULL".to_owned(), |value| format!("'{}'", value.replace('\'', "''")))
}
