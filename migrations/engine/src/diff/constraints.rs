//! Differences of constraints: missing, another definition, not valid, another name, and extra ones.

use std::collections::{BTreeMap, BTreeSet};

use super::{Difference, Guard};
use crate::repair::{self, Fix, Phase, Step, name, table as qualified};
use crate::report::{Kind, Problem};
use crate::schema::{Constraint, ConstraintKind, Index, Table};

pub(super) fn compare(table: &str, expected: &Table, actual: &Table, found: &mut Vec<Difference>) {
    let moves = moves(expected, actual);
    for (constraint, wanted) in &expected.constraints {
        // What moves to another name does not stand under its old one.
        let there = actual.constraints.get(constraint).filter(|_| moves.values().all(|from| *from != constraint));
        match (there, moves.get(constraint)) {
            (Some(there), _) if does(there, wanted) => {
                if !there.valid {
                    found.push(invalid(table, constraint, wanted, there));
                }
            }
            (_, Some(from)) => {
                found.push(rename(table, constraint, wanted, from, &moves, actual));
                if let Some(moved) = actual.constraints.get(*from).filter(|moved| !moved.valid) {
                    found.push(invalid(table, constraint, wanted, moved));
                }
            }
            (Some(there), None) => found.push(replace(table, constraint, wanted, (constraint, there), actual)),
            // A table has only one primary key, whatever its name.
            (None, None) => match other_primary_key(wanted, constraint, actual) {
                Some(other) => found.push(replace(table, constraint, wanted, other, actual)),
                None => found.push(missing(table, constraint, wanted, expected, actual)),
            },
        }
    }
    let replaced: BTreeSet<&String> = expected
        .constraints
        .iter()
        .filter(|(constraint, wanted)| !actual.constraints.get(*constraint).is_some_and(|there| does(there, wanted)))
        .filter_map(|(constraint, wanted)| other_primary_key(wanted, constraint, actual))
        .map(|(other, _)| other)
        .collect();
    for (constraint, there) in &actual.constraints {
        let is_moved = moves.values().any(|from| *from == constraint);
        if !expected.constraints.contains_key(constraint) && !is_moved && !replaced.contains(constraint) {
            found.push(unexpected(table, constraint, there, expected));
        }
    }
}

/// Whether a live constraint is the wanted one.
fn does(there: &Constraint, wanted: &Constraint) -> bool {
    there.kind == wanted.kind && there.definition == wanted.definition
}

/// Expected names with the live names under which the same stands, where that name is not rightly its own.
fn moves<'a>(expected: &'a Table, actual: &'a Table) -> BTreeMap<&'a String, &'a String> {
    let is_right = |constraint: &String, there: &Constraint| {
        expected.constraints.get(constraint).is_some_and(|wanted| does(there, wanted))
    };
    let mut moves = BTreeMap::new();
    let mut taken = BTreeSet::new();
    for (constraint, wanted) in &expected.constraints {
        if actual.constraints.get(constraint).is_some_and(|there| does(there, wanted)) {
            continue;
        }
        let same = actual
            .constraints
            .iter()
            .find(|(other, there)| does(there, wanted) && !is_right(other, there) && !taken.contains(*other));
        if let Some((other, _)) = same {
            taken.insert(other);
            moves.insert(constraint, other);
        }
    }
    moves
}

fn other_primary_key<'a>(
    wanted: &Constraint,
    constraint: &String,
    actual: &'a Table,
) -> Option<(&'a String, &'a Constraint)> {
    let is_key = |there: &Constraint| there.kind == ConstraintKind::PrimaryKey;
    actual.constraints.iter().find(|(other, there)| {
        is_key(wanted) && is_key(there) && *other != constraint && there.definition != wanted.definition
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

fn add(table: &str, constraint: &str, wanted: &Constraint, drop: Vec<String>) -> Vec<Step> {
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

fn missing(table: &str, constraint: &str, wanted: &Constraint, expected: &Table, actual: &Table) -> Difference {
    let difference =
        Difference::error(Kind::Constraint, table, constraint, Problem::Missing).expected(wanted.definition.as_str());
    // An index in the way of the name: it is not what is wanted, or it would serve.
    let in_the_way = |serving: Option<&String>| {
        let other = actual.indexes.contains_key(constraint) && serving.is_none_or(|serving| serving != constraint);
        other.then(|| format!("DROP INDEX public.{}", name(constraint)))
    };
    // A bare unique index over the same columns becomes the constraint's own. One under another constraint's name would be
    // dropped in that one's favour.
    let serves = |(index, shape): &(&String, &Index)| {
        let is_anothers = *index != constraint && expected.constraints.contains_key(*index);
        shape.unique && shape.plain && shape.valid && shape.columns == wanted.columns && !is_anothers
    };
    if matches!(wanted.kind, ConstraintKind::PrimaryKey | ConstraintKind::Unique)
        && !wanted.definition.contains("NULLS NOT DISTINCT")
        && let Some((index, _)) = actual.indexes.iter().find(serves)
    {
        let using = repair::using_index(table, constraint, wanted.kind, index);
        let steps = vec![Step::Transaction(in_the_way(Some(index)).into_iter().chain([using]).collect())];
        let difference = difference.actual(format!("unique index {index}"));
        return difference
            .fix(phase(wanted.kind), rank(wanted.kind), steps)
            .guard(Guard::Unique(wanted.columns.clone()));
    }
    let steps = add(table, constraint, wanted, in_the_way(None).into_iter().collect());
    guarded(difference.fix(phase(wanted.kind), rank(wanted.kind), steps), wanted)
}

fn replace(
    table: &str,
    constraint: &str,
    wanted: &Constraint,
    (other, there): (&String, &Constraint),
    actual: &Table,
) -> Difference {
    let mut drop = vec![drop_constraint(table, other)];
    let second = actual.constraints.iter().find(|(name, second)| {
        *name != other && second.kind == ConstraintKind::PrimaryKey && wanted.kind == ConstraintKind::PrimaryKey
    });
    if let Some((second, _)) = second {
        drop.push(drop_constraint(table, second));
    }
    let steps = add(table, constraint, wanted, drop.clone());
    let difference = Difference::error(Kind::Constraint, table, constraint, Problem::Different)
        .expected(wanted.definition.as_str())
        .actual(if other == constraint { there.definition.clone() } else { format!("{other}: {}", there.definition) })
        .fix(phase(wanted.kind), rank(wanted.kind), steps);
    let mut difference = guarded(difference, wanted);
    // The old rule may forbid what the migrations write: it goes first, and the wanted one comes as a missing one.
    let forbids = there.kind == ConstraintKind::Check || there.references != wanted.references;
    if forbids && let Some(fix) = &mut difference.fix {
        *fix = Fix { phase: Phase::Prepare, rank: 3, steps: vec![Step::Transaction(drop)] };
    }
    difference
}

/// All renames of a table happen together, so that two that stand under each other's names can change places; the first
/// difference does them. What stands under a wanted name and goes nowhere is dropped, as its replacement would do.
fn rename(
    table: &str,
    constraint: &str,
    wanted: &Constraint,
    from: &str,
    moves: &BTreeMap<&String, &String>,
    actual: &Table,
) -> Difference {
    let alter = |from: &str, to: &str| {
        format!("ALTER TABLE {} RENAME CONSTRAINT {} TO {}", qualified(table), name(from), name(to))
    };
    let mut statements = Vec::new();
    for to in moves.keys().filter(|to| actual.constraints.contains_key(**to)) {
        if moves.values().all(|from| from != to) {
            statements.push(drop_constraint(table, to));
        }
    }
    // So is an index: constraints that are backed by one and indexes share their names.
    for to in moves.keys().filter(|to| actual.indexes.contains_key(**to)) {
        statements.push(format!("DROP INDEX public.{}", name(to)));
    }
    let crosses = moves.values().any(|from| moves.contains_key(*from));
    if crosses {
        statements.extend(moves.values().map(|from| alter(from, &repair::beside(from))));
        statements.extend(moves.iter().map(|(to, from)| alter(&repair::beside(from), to)));
    } else {
        statements.extend(moves.iter().map(|(to, from)| alter(from, to)));
    }
    let difference = Difference::error(Kind::Constraint, table, constraint, Problem::Missing)
        .expected(wanted.definition.as_str())
        .actual(format!("the same under the name {from}"))
        .fix(Phase::Prepare, 2, vec![Step::Transaction(statements)]);
    let is_first = moves.keys().next().is_some_and(|first| *first == constraint);
    if is_first { difference } else { Difference { fix: None, ..difference } }
}

fn invalid(table: &str, constraint: &str, wanted: &Constraint, there: &Constraint) -> Difference {
    let difference = Difference::error(Kind::Constraint, table, constraint, Problem::Invalid)
        .expected(wanted.definition.as_str())
        .actual(format!("{} NOT VALID", there.definition));
    if !there.enforced {
        // Its triggers go with it; the new one has them switched on.
        let steps = repair::not_valid_first(table, constraint, wanted, vec![drop_constraint(table, constraint)]);
        return guarded(
            difference.actual("its triggers are switched off, so nothing is checked").fix(
                Phase::Converge,
                rank(wanted.kind) + 1,
                steps,
            ),
            wanted,
        );
    }
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
