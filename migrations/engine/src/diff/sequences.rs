//! Differences of sequences: missing, counting otherwise, or tied to another column.

use super::{Difference, Guard};
use crate::repair::{self, Phase, Step, table as qualified};
use crate::report::{Kind, Problem};
use crate::schema::{Sequence, Table};

pub(super) fn compare(table: &str, expected: &Table, actual: &Table, found: &mut Vec<Difference>) {
    let mut renamed = Vec::new();
    for (sequence, wanted) in &expected.sequences {
        match actual.sequences.get(sequence) {
            None => {
                let mut others = actual.sequences.iter().filter(|(other, there)| {
                    !expected.sequences.contains_key(*other) && !renamed.contains(other) && *there == wanted
                });
                let missing = Difference::error(Kind::Sequence, table, sequence, Problem::Missing);
                let missing = missing.expected(describe(table, wanted));
                found.push(if let Some((other, _)) = others.next() {
                    renamed.push(other);
                    // So that it goes on counting where it is.
                    let rename = format!("ALTER SEQUENCE {} RENAME TO {}", qualified(other), repair::name(sequence));
                    missing.actual(format!("the same sequence as {other}")).fix(
                        Phase::Prepare,
                        3,
                        vec![Step::Transaction(vec![rename])],
                    )
                } else {
                    missing.fix(Phase::Prepare, 3, vec![Step::Transaction(make(table, sequence, expected, actual))])
                });
            }
            Some(there) if there != wanted => found.push(different(table, sequence, wanted, there)),
            Some(_) => {}
        }
    }
    for (sequence, there) in &actual.sequences {
        if !expected.sequences.contains_key(sequence) && !renamed.contains(&sequence) {
            found.push(
                Difference::warning(Kind::Sequence, table, sequence, Problem::Unexpected)
                    .actual(describe(table, there)),
            );
        }
    }
}

/// The sequence, tied to its column and counting on from the values of the columns that it fills. A column that is missing
/// too is made after it, and tied to it then.
fn make(table: &str, sequence: &str, expected: &Table, actual: &Table) -> Vec<String> {
    let wanted = &expected.sequences[sequence];
    let there = |column: &&String| actual.columns.contains_key(*column);
    let default = format!("nextval('{}'::regclass)", qualified(sequence).replace('\'', "''"));
    let filled = expected.columns.iter().filter(|(_, shape)| shape.default.as_deref() == Some(default.as_str()));
    let filled = filled.map(|(column, _)| column).filter(there);
    let tie = wanted.owned_by.as_ref().filter(there);
    std::iter::once(repair::create_sequence(sequence, wanted))
        .chain(tie.map(|column| repair::own_sequence(sequence, table, Some(column))))
        .chain(filled.map(|column| repair::count_on(sequence, wanted, table, column)))
        .collect()
}

fn different(table: &str, sequence: &str, wanted: &Sequence, there: &Sequence) -> Difference {
    let mut statements = Vec::new();
    if wanted.options != there.options {
        statements.push(format!("ALTER SEQUENCE {} {}", qualified(sequence), wanted.options));
    }
    if wanted.owned_by != there.owned_by {
        statements.push(repair::own_sequence(sequence, table, wanted.owned_by.as_deref()));
    }
    // After the columns: the one that it belongs to may be missing as well.
    let difference = Difference::error(Kind::Sequence, table, sequence, Problem::Different)
        .expected(describe(table, wanted))
        .actual(describe(table, there))
        .fix(Phase::Converge, 39, vec![Step::Transaction(statements)]);
    match (wanted.option("MINVALUE"), wanted.option("MAXVALUE")) {
        (Some(lowest), Some(highest)) if wanted.options != there.options => {
            difference.guard(Guard::Counted { sequence: sequence.to_owned(), lowest, highest })
        }
        _ => difference,
    }
}

fn describe(table: &str, sequence: &Sequence) -> String {
    let owner = sequence
        .owned_by
        .as_ref()
        .map_or_else(|| "OWNED BY NONE".to_owned(), |column| format!("OWNED BY {table}.{column}"));
    format!("{} {owner}", sequence.options)
}
