//! Differences of indexes that back no constraint: missing, another shape, invalid, another name, and extra ones.

use std::collections::BTreeSet;

use super::constraints::implied_by_key;
use super::{Difference, Guard};
use crate::repair::{self, Phase, Step, name};
use crate::report::{Kind, Problem};
use crate::schema::{Index, Schema, Table};

/// Indexes are built last but for foreign keys.
const RANK: u8 = 20;

pub(super) fn compare(table: &str, expected: &Table, actual: &Table, live: &Schema, found: &mut Vec<Difference>) {
    let mut taken = BTreeSet::new();
    let before = found.len();
    for (index, wanted) in &expected.indexes {
        match actual.indexes.get(index) {
            Some(there) if there.definition == wanted.definition => {
                if !there.valid {
                    found.push(invalid(table, index, wanted));
                }
            }
            Some(there) => {
                let difference = Difference::error(Kind::Index, table, index, Problem::Different)
                    .expected(wanted.definition.as_str())
                    .actual(there.definition.as_str());
                found.push(unique_guard(
                    difference.fix(Phase::Converge, RANK, repair::replace_index(index, &wanted.definition)),
                    wanted,
                ));
            }
            None => {
                let same = actual.indexes.iter().find(|(other, there)| {
                    there.valid
                        && there.shape() == wanted.shape()
                        && there.unique == wanted.unique
                        && !expected.indexes.contains_key(*other)
                        && !taken.contains(*other)
                });
                match same {
                    Some((other, _)) => {
                        taken.insert(other.clone());
                        found.push(rename(table, index, wanted, other, actual));
                    }
                    None => found.push(missing(table, index, wanted, live, actual)),
                }
            }
        }
    }
    for difference in found.iter_mut().skip(before) {
        let index = &difference.drift.object;
        // A unique one in its place forbids rows.
        let forbids = actual.indexes.get(index).is_some_and(|there| there.unique);
        difference.drift.optional =
            !forbids && expected.indexes.get(index).is_some_and(|wanted| wanted.requires.is_some());
    }
    for (index, there) in &actual.indexes {
        // An index whose name a constraint wants is told there.
        if !expected.indexes.contains_key(index) && !taken.contains(index) && !expected.constraints.contains_key(index)
        {
            found.push(unexpected(table, index, there, expected));
        }
    }
}

fn unique_guard(difference: Difference, wanted: &Index) -> Difference {
    if wanted.unique && wanted.plain { difference.guard(Guard::Unique(wanted.columns.clone())) } else { difference }
}

fn missing(table: &str, index: &str, wanted: &Index, live: &Schema, actual: &Table) -> Difference {
    let difference =
        Difference::error(Kind::Index, table, index, Problem::Missing).expected(wanted.definition.as_str());
    let holder = live.iter().find(|(other, there)| {
        other.as_str() != table && (there.indexes.contains_key(index) || there.constraints.contains_key(index))
    });
    if let Some((other, _)) = holder {
        return difference.actual(format!("an index of table {other} has the name")).never(
            format!("the name {index} is taken by an index of table {other}"),
            format!("ALTER INDEX public.{} RENAME TO {}", name(index), name(&format!("{other}_{index}"))),
        );
    }
    let drop = constraint_of_the_name(table, index, actual).map(|sql| Step::Transaction(vec![sql]));
    let create = Step::Alone(repair::concurrently(&wanted.definition));
    unique_guard(difference.fix(Phase::Converge, RANK, drop.into_iter().chain([create]).collect()), wanted)
}

/// What drops a constraint that has the name of an expected index. Constraints that are not expected may be gone already.
fn constraint_of_the_name(table: &str, index: &str, actual: &Table) -> Option<String> {
    let is_there = actual.constraints.contains_key(index);
    is_there.then(|| format!("ALTER TABLE {} DROP CONSTRAINT IF EXISTS {}", repair::table(table), name(index)))
}

fn invalid(table: &str, index: &str, wanted: &Index) -> Difference {
    let difference = Difference::error(Kind::Index, table, index, Problem::Invalid)
        .expected(wanted.definition.as_str())
        .actual("INVALID: left by an interrupted build, not used by any query");
    let steps = vec![Step::Alone(format!("REINDEX INDEX CONCURRENTLY public.{}", name(index)))];
    unique_guard(difference.fix(Phase::Converge, RANK, steps), wanted)
}

fn rename(table: &str, index: &str, wanted: &Index, other: &str, actual: &Table) -> Difference {
    let drop = constraint_of_the_name(table, index, actual);
    // After constraints that are not expected are dropped.
    let rank = if drop.is_some() { 4 } else { 2 };
    let sql = format!("ALTER INDEX public.{} RENAME TO {}", name(other), name(index));
    Difference::error(Kind::Index, table, index, Problem::Missing)
        .expected(wanted.definition.as_str())
        .actual(format!("the same under the name {other}"))
        .fix(Phase::Prepare, rank, vec![Step::Transaction(drop.into_iter().chain([sql]).collect())])
}

fn unexpected(table: &str, index: &str, there: &Index, expected: &Table) -> Difference {
    let drop = vec![Step::Alone(format!("DROP INDEX CONCURRENTLY IF EXISTS public.{}", name(index)))];
    if !there.valid {
        // A leftover of an interrupted build (`_ccnew`, `_ccold`, our own): costs every write and serves nobody.
        let mut leftover = Difference::error(Kind::Index, table, index, Problem::Invalid)
            .actual(format!("INVALID {}", there.definition))
            .fix(Phase::Prepare, 1, drop);
        // Or one that is built at this moment, for minutes, maybe in place of a key that is there: who serves meanwhile goes on.
        leftover.drift.optional = !there.unique || (there.plain && implied_by_key(&there.columns, expected));
        return leftover;
    }
    if there.unique && !(there.plain && implied_by_key(&there.columns, expected)) {
        // It forbids rows that the service may write.
        return Difference::error(Kind::Index, table, index, Problem::Unexpected)
            .actual(there.definition.as_str())
            .fix(Phase::Prepare, 3, drop);
    }
    Difference::warning(Kind::Index, table, index, Problem::Unexpected).actual(there.definition.as_str())
}
