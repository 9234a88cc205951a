//! Differences of triggers and of the functions that they call.

use super::Difference;
use crate::repair::{Phase, Step, call, name, table as qualified};
use crate::report::{Kind, Problem};
use crate::schema::Table;

pub(super) fn compare(table: &str, expected: &Table, actual: &Table, found: &mut Vec<Difference>) {
    for (function, definition) in &expected.functions {
        // One that no trigger calls cannot be seen from the table; the fix of its trigger makes it.
        let Some(there) = actual.functions.get(function).filter(|there| *there != definition) else { continue };
        let replace = Step::Transaction(vec![definition.clone()]);
        found.push(
            Difference::error(Kind::Function, table, function, Problem::Different)
                .expected(definition.as_str())
                .actual(there.as_str())
                .fix(Phase::Prepare, 3, vec![replace]),
        );
    }
    let mut renamed = Vec::new();
    for (trigger, definition) in &expected.triggers {
        let there = actual.triggers.get(trigger);
        if there == Some(definition) {
            continue;
        }
        if let (None, Some(other)) = (there, same_but_for_the_name(trigger, definition, expected, actual)) {
            let rename = format!("ALTER TRIGGER {} ON {} RENAME TO {}", name(other), qualified(table), name(trigger));
            found.push(
                Difference::error(Kind::Trigger, table, trigger, Problem::Missing)
                    .expected(definition.as_str())
                    .actual(format!("the same trigger as {other}"))
                    .fix(Phase::Prepare, 3, vec![Step::Transaction(vec![rename])]),
            );
            renamed.push(other.as_str());
            continue;
        }
        let problem = if there.is_some() { Problem::Different } else { Problem::Missing };
        let drop = format!("DROP TRIGGER IF EXISTS {} ON {}", name(trigger), qualified(table));
        let functions = expected.functions.iter().filter(|(function, _)| definition.contains(&call(function)));
        let statements = functions.map(|(_, function)| function.clone()).chain([drop, definition.clone()]).collect();
        let mut difference = Difference::error(Kind::Trigger, table, trigger, problem)
            .expected(definition.as_str())
            .fix(Phase::Converge, 40, vec![Step::Transaction(statements)]);
        difference.drift.actual = there.cloned();
        found.push(difference);
    }
    for (trigger, definition) in &actual.triggers {
        if !expected.triggers.contains_key(trigger) && !renamed.contains(&trigger.as_str()) {
            // What it does cannot be known from here, so it stays, and is told.
            found.push(
                Difference::warning(Kind::Trigger, table, trigger, Problem::Unexpected).actual(definition.as_str()),
            );
        }
    }
}

/// A trigger that nobody expects and that does what `wanted` does.
fn same_but_for_the_name<'a>(
    wanted: &str,
    definition: &str,
    expected: &Table,
    actual: &'a Table,
) -> Option<&'a String> {
    let called = |trigger: &str| format!("TRIGGER {} ", name(trigger));
    let others = actual.triggers.iter().filter(|(other, _)| !expected.triggers.contains_key(*other));
    let mut same = others.filter(|(other, there)| there.replacen(&called(other), &called(wanted), 1) == definition);
    same.next().map(|(other, _)| other)
}
