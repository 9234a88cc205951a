//! Differences of constraints: missing, another definition, not valid, another name, and extra ones.

use std::collections::BTreeSet;

use super::{Difference, Guard};
use crate::repair::{self, Fix, Phase, Step, name, table as qualified};
use crate::report::{Kind, Problem};
use crate::schema::{Constraint, ConstraintKind, Index, Table};

pub(super) fn compare(table: &str, expected: &Table, actual: &Table, found: &mut Vec<Difference>) {
    // Live constraints that stand for an expected one under another name.
    let mut taken = BTreeSet::new();
    for (constraint, wanted) in &expected.constraints {
        match actual.constraints.get(constraint) {
            Some(there) if there.definition == wanted.definition && there.kind == wanted.kind => {
                if !there.valid {
                    found.push(invalid(table, constraint, wanted, there));
                }
            }
            Some(there) => found.push(replace(table, constraint, wanted, constraint, there)),
            None => match renamed(expected, actual, wanted, &taken) {
                Some((other, there)) => {
                    taken.insert(other.clone());
                    if there.definition == wanted.definition {
                        found.push(rename(table, constraint, wanted, other));
                        if !there.valid {
                            found.push(invalid(table, constraint, wanted, there));
                        }
                    } else {
                        found.push(replace(table, constraint, wanted, other, there));
                    }
                }
                None => found.push(missing(table, constraint, wanted, actual)),
            },
        }
    }
    for (constraint, there) in &actual.constraints {
        if !expected.constraints.contains_key(constraint) && !taken.contains(constraint) {
            found.push(unexpected(table, constraint, there, expected));
        }
    }
}

/// A live constraint of another name that does what `wanted` does; for a primary key also one of other columns,
/// because a table has only one.
fn renamed<'a>(
    expected: &Table,
    actual: &'a Table,
    wanted: &Constraint,
    taken: &BTreeSet<String>,
) -> Option<(&'a String, &'a Constraint)> {
    actual.constraints.iter().find(|(other, there)| {
        !expected.constraints.contains_key(*other)
            && !taken.contains(*other)
            && there.kind == wanted.kind
            && (there.definition == wanted.definition || wanted.kind == ConstraintKind::PrimaryKey)
    })
}

fn rank(kind: ConstraintKind) -> u8 {
    match kind {
        ConstraintKind::PrimaryKey => 12,
        ConstraintKind::Unique | ConstraintKind::Exclusion => 14,
        ConstraintKind::Check => 16,
        ConstraintKind::ForeignKey => 30,
    }
}

/// Keys come early, so that ON CONFLICT and foreign keys of the migrations find them.
fn phase(kind: ConstraintKind) -> Phase {
    match kind {
        ConstraintKind::PrimaryKey | ConstraintKind::Unique => Phase::PrepareIfPossible,
        _ => Phase::Converge,
    }
}

fn guard(wanted: &Constraint) -> Option<Guard> {
    match wanted.kind {
        ConstraintKind::PrimaryKey | ConstraintKind::Unique => Some(Guard::Unique(wanted.columns.clone())),
        ConstraintKind::Check => {
            let expression = wanted.definition.strip_prefix("CHECK ")?;
            let expression = expression.trim_end_matches(" NO INHERIT").to_owned();
            Some(Guard::Check { expression, columns: wanted.columns.clone() })
        }
        ConstraintKind::ForeignKey => Some(Guard::NoOrphans {
            columns: wanted.columns.clone(),
            parent: wanted.references.clone()?,
            parent_columns: wanted.referenced_columns.clone(),
        }),
        ConstraintKind::Exclusion => None,
    }
}

fn guarded(difference: Difference, wanted: &Constraint) -> Difference {
    match guard(wanted) {
        Some(guard) => difference.guard(guard),
        None => difference,
    }
}

fn add(table: &str, constraint: &str, wanted: &Constraint, drop: Option<String>) -> Vec<Step> {
    match wanted.kind {
        ConstraintKind::PrimaryKey | ConstraintKind::Unique => repair::key(table, constraint, wanted, drop),
        ConstraintKind::Check | ConstraintKind::ForeignKey => repair::not_valid_first(table, constraint, wanted, drop),
        ConstraintKind::Exclusion => {
            let add =
                format!("ALTER TABLE {} ADD CONSTRAINT {} {}", qualified(table), name(constraint), wanted.definition);
            vec![Step::Transaction(drop.into_iter().chain([add]).collect())]
        }
    }
}

fn missing(table: &str, constraint: &str, wanted: &Constraint, actual: &Table) -> Difference {
    let difference =
        Difference::error(Kind::Constraint, table, constraint, Problem::Missing).expected(wanted.definition.as_str());
    // A bare unique index over the same columns becomes the constraint's own.
    let serves =
        |(_, index): &(&String, &Index)| index.unique && index.plain && index.valid && index.columns == wanted.columns;
    if matches!(wanted.kind, ConstraintKind::PrimaryKey | ConstraintKind::Unique)
        && !wanted.definition.contains("NULLS NOT DISTINCT")
        && let Some((index, _)) = actual.indexes.iter().find(serves)
    {
        let using = repair::using_index(table, constraint, wanted.kind, index);
        let steps = vec![Step::Transaction(vec![using])];
        let difference = difference.actual(format!("unique index {index}"));
        return difference
            .fix(phase(wanted.kind), rank(wanted.kind), steps)
            .guard(Guard::Unique(wanted.columns.clone()));
    }
    // An index in the way of the name: it is not what is wanted, or it would have served.
    let drop = actual.indexes.contains_key(constraint).then(|| format!("DROP INDEX public.{}", name(constraint)));
    let steps = add(table, constraint, wanted, drop);
    guarded(difference.fix(phase(wanted.kind), rank(wanted.kind), steps), wanted)
}

fn replace(table: &str, constraint: &str, wanted: &Constraint, other: &str, there: &Constraint) -> Difference {
    let drop = drop_constraint(table, other);
    let steps = add(table, constraint, wanted, Some(drop.clone()));
    let difference = Difference::error(Kind::Constraint, table, constraint, Problem::Different)
        .expected(wanted.definition.as_str())
        .actual(if other == constraint { there.definition.clone() } else { format!("{other}: {}", there.definition) })
        .fix(phase(wanted.kind), rank(wanted.kind), steps);
    let mut difference = guarded(difference, wanted);
    // The old rule may forbid what the migrations write: it goes first, and the wanted one comes as a missing one.
    let forbids = there.kind == ConstraintKind::Check || there.references != wanted.references;
    if forbids && let Some(fix) = &mut difference.fix {
        *fix = Fix { phase: Phase::Prepare, rank: 3, steps: vec![Step::Transaction(vec![drop])] };
    }
    difference
}

fn rename(table: &str, constraint: &str, wanted: &Constraint, other: &str) -> Difference {
    let sql = format!("ALTER TABLE {} RENAME CONSTRAINT {} TO {}", qualified(table), name(other), name(constraint));
    Difference::error(Kind::Constraint, table, constraint, Problem::Missing)
        .expected(wanted.definition.as_str())
        .actual(format!("the same under the name {other}"))
        .fix(Phase::Prepare, 2, vec![Step::Transaction(vec![sql])])
}

fn invalid(table: &str, constraint: &str, wanted: &Constraint, there: &Constraint) -> Difference {
    let difference = Difference::error(Kind::Constraint, table, constraint, Problem::Invalid)
        .expected(wanted.definition.as_str())
        .actual(format!("{} NOT VALID", there.definition));
    let step = match wanted.kind {
        ConstraintKind::PrimaryKey | ConstraintKind::Unique | ConstraintKind::Exclusion => {
            Step::Alone(format!("REINDEX INDEX CONCURRENTLY public.{}", name(constraint)))
        }
        _ => Step::Transaction(vec![format!(
            "ALTER TABLE {} VALIDATE CONSTRAINT {}",
            qualified(table),
            name(constraint)
        )]),
    };
    guarded(difference.fix(Phase::Converge, rank(wanted.kind) + 1, vec![step]), wanted)
}

fn unexpected(table: &str, constraint: &str, there: &Constraint, expected: &Table) -> Difference {
    // A unique constraint that holds whenever an expected key holds forbids nothing more: like an extra index.
    let implied = matches!(there.kind, ConstraintKind::Unique | ConstraintKind::PrimaryKey)
        && implied_by_key(&there.columns, expected);
    let difference = if implied {
        Difference::warning(Kind::Constraint, table, constraint, Problem::Unexpected)
    } else {
        Difference::error(Kind::Constraint, table, constraint, Problem::Unexpected)
    };
    let difference = difference.actual(there.definition.as_str());
    if implied {
        return difference;
    }
    let drop = drop_constraint(table, constraint);
    difference.fix(Phase::Prepare, 3, vec![Step::Transaction(vec![drop])])
}

/// Whether rows that satisfy an expected key can never repeat in `columns`.
pub(super) fn implied_by_key(columns: &[String], expected: &Table) -> bool {
    let keys = expected
        .constraints
        .values()
        .filter(|key| matches!(key.kind, ConstraintKind::PrimaryKey | ConstraintKind::Unique));
    let indexes = expected.indexes.values().filter(|index| index.unique && index.plain);
    keys.map(|key| &key.columns)
        .chain(indexes.map(|index| &index.columns))
        .any(|key| !key.is_empty() && key.iter().all(|column| columns.contains(column)))
}

fn drop_constraint(table: &str, constraint: &str) -> String {
    format!("ALTER TABLE {} DROP CONSTRAINT {}", qualified(table), name(constraint))
}
