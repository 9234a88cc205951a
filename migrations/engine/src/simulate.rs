//! What a statement makes of a schema, on the model alone: so that a plan can say what comes after it without running it.
//!
//! Knows the forms that repairs are made of and that migrations use; what it makes is taken from the expected schema, which
//! is what the real statement has been proven to make. Other statements change nothing here.

use std::collections::BTreeSet;

use crate::repair::{call, name};
use crate::schema::{Constraint, ConstraintKind, Expected, Index, Schema, Table};
use crate::words::{Words, words};

/// Applies `sql` to `model`.
pub(crate) fn apply(sql: &str, model: &mut Schema, expected: &Expected) {
    let mut at = words(sql);
    match at.next_word().as_str() {
        "create" => create(&mut at, model, expected),
        "drop" => drop(&mut at, model),
        "alter" => alter(&mut at, model, expected),
        "reindex" => {
            at.skip("index");
            at.skip("concurrently");
            let index = at.name();
            for table in model.values_mut() {
                if let Some(index) = table.indexes.get_mut(&index) {
                    index.valid = true;
                }
                if let Some(key) = table.constraints.get_mut(&index) {
                    key.valid = true;
                }
            }
        }
        _ => {}
    }
}

fn create(at: &mut Words, model: &mut Schema, expected: &Expected) {
    let unique = at.skip("unique");
    match at.next_word().as_str() {
        "table" => {
            at.skip_if_not_exists();
            let table = at.name();
            if let Some(shape) = expected.tables.get(&table) {
                // Its indexes and triggers are made by statements of their own, and so are columns that came with a later migration.
                let said: BTreeSet<&str> = at.rest().map(|word| word.trim_matches('"')).collect();
                let mut made = Table {
                    indexes: Default::default(),
                    triggers: Default::default(),
                    functions: Default::default(),
                    ..shape.clone()
                };
                made.columns.retain(|column, _| said.contains(column.as_str()));
                model.entry(table).or_insert(made);
            }
        }
        "index" => {
            at.skip("concurrently");
            at.skip_if_not_exists();
            let index = at.name();
            at.skip("on");
            let of = at.name();
            let wanted = expected.tables.get(&of).and_then(|shape| shape.indexes.get(&index)).cloned();
            let made = wanted.unwrap_or_else(|| Index {
                definition: String::new(),
                unique,
                columns: columns(at),
                plain: true,
                valid: true,
                requires: None,
            });
            if let Some(table) = model.get_mut(&of) {
                table.indexes.entry(index).or_insert(made);
            }
        }
        "trigger" => trigger(at, model, expected),
        "sequence" => {
            at.skip_if_not_exists();
            sequence(&at.name(), model, expected);
        }
        // OR REPLACE
        "or" => {
            at.skip("replace");
            if at.skip("trigger") {
                return trigger(at, model, expected);
            }
            at.skip("function");
            let function = at.name();
            for (of, table) in model.iter_mut() {
                let wanted = expected.tables.get(of).and_then(|shape| shape.functions.get(&function));
                if let (Some(there), Some(wanted)) = (table.functions.get_mut(&function), wanted) {
                    there.clone_from(wanted);
                }
            }
        }
        _ => {}
    }
}

/// A trigger becomes what is expected of it, with the functions that it calls.
fn trigger(at: &mut Words, model: &mut Schema, expected: &Expected) {
    let trigger = at.name();
    at.skip_to("on");
    let of = at.name();
    let Some((table, shape)) = model.get_mut(&of).zip(expected.tables.get(&of)) else { return };
    if let Some(wanted) = shape.triggers.get(&trigger) {
        table.triggers.insert(trigger, wanted.clone());
        let called = shape.functions.iter().filter(|(function, _)| wanted.contains(&call(function)));
        table.functions.extend(called.map(|(function, definition)| (function.clone(), definition.clone())));
    }
}

/// A sequence becomes what is expected of it, in the table that it is expected of.
fn sequence(name: &str, model: &mut Schema, expected: &Expected) {
    for (of, table) in model.iter_mut() {
        if let Some(wanted) = expected.tables.get(of).and_then(|shape| shape.sequences.get(name)) {
            table.sequences.insert(name.to_owned(), wanted.clone());
        }
    }
}

/// The names in the next brackets.
fn columns(at: &mut Words) -> Vec<String> {
    at.skip_to("(");
    at.rest().take_while(|word| *word != ")").filter(|word| *word != ",").map(str::to_owned).collect()
}

fn drop(at: &mut Words, model: &mut Schema) {
    match at.next_word().as_str() {
        "table" => {
            at.skip_if_exists();
            model.remove(&at.name());
        }
        "index" => {
            at.skip("concurrently");
            at.skip_if_exists();
            let index = at.name();
            model.values_mut().for_each(|table| {
                table.indexes.remove(&index);
            });
        }
        "trigger" => {
            at.skip_if_exists();
            let trigger = at.name();
            at.skip("on");
            if let Some(table) = model.get_mut(&at.name()) {
                table.triggers.remove(&trigger);
            }
        }
        _ => {}
    }
}

fn alter(at: &mut Words, model: &mut Schema, expected: &Expected) {
    match at.next_word().as_str() {
        "sequence" => {
            at.skip_if_exists();
            let mut changed = at.name();
            if at.skip("rename") && at.skip("to") {
                model.values_mut().for_each(|table| {
                    table.sequences.remove(&changed);
                });
                changed = at.name();
            }
            sequence(&changed, model, expected);
        }
        "trigger" => {
            let from = at.name();
            at.skip("on");
            let of = at.name();
            if at.skip("rename") && at.skip("to") {
                let to = at.name();
                let Some((table, shape)) = model.get_mut(&of).zip(expected.tables.get(&of)) else { return };
                table.triggers.remove(&from);
                table.triggers.extend(shape.triggers.get(&to).map(|wanted| (to, wanted.clone())));
            }
        }
        "index" => {
            let from = at.name();
            if at.skip("rename") && at.skip("to") {
                let to = at.name();
                for (of, table) in model.iter_mut() {
                    if let Some(index) = table.indexes.remove(&from) {
                        let wanted = expected.tables.get(of).and_then(|shape| shape.indexes.get(&to)).cloned();
                        table.indexes.insert(to.clone(), wanted.unwrap_or(index));
                    }
                }
            }
        }
        "table" => {
            at.skip_if_exists();
            at.skip("only");
            let of = at.name();
            let Some(table) = model.get_mut(&of) else { return };
            alter_table(at, table, expected.tables.get(&of));
        }
        _ => {}
    }
}

fn alter_table(at: &mut Words, table: &mut Table, wanted: Option<&Table>) {
    match at.next_word().as_str() {
        "add" if at.skip("constraint") => {
            let constraint = at.name();
            add_constraint(at, &constraint, table, wanted);
        }
        "add" => {
            at.skip("column");
            at.skip_if_not_exists();
            let column = at.name();
            if let Some(shape) = wanted.and_then(|wanted| wanted.columns.get(&column)) {
                let mut made = shape.clone();
                let rest: Vec<&str> = at.rest().collect();
                made.nullable = !rest.windows(2).any(|pair| pair == ["not", "null"]);
                table.columns.entry(column).or_insert(made);
            }
        }
        "drop" if at.skip("constraint") => {
            at.skip_if_exists();
            table.constraints.remove(&at.name());
        }
        "drop" => {
            at.skip("column");
            at.skip_if_exists();
            table.columns.remove(&at.name());
        }
        "validate" => {
            at.skip("constraint");
            if let Some(constraint) = table.constraints.get_mut(&at.name()) {
                constraint.valid = true;
            }
        }
        "rename" if at.skip("constraint") => {
            let from = at.name();
            at.skip("to");
            if let Some(constraint) = table.constraints.remove(&from) {
                table.constraints.insert(at.name(), constraint);
            }
        }
        "set" if at.skip("logged") => table.logged = true,
        "disable" => table.row_security = false,
        "alter" => {
            at.skip("column");
            let column = at.name();
            alter_column(at, &column, table, wanted);
        }
        _ => {}
    }
}

fn add_constraint(at: &mut Words, constraint: &str, table: &mut Table, wanted: Option<&Table>) {
    let valid = !at.ends_with_not_valid();
    let text = at.rest_of_text().trim_end_matches(" NOT VALID").to_owned();
    if at.skip_to("using") && at.skip("index") {
        table.indexes.remove(&at.name());
    }
    let made = match wanted.and_then(|wanted| wanted.constraints.get(constraint)) {
        Some(shape) => Constraint { valid, ..shape.clone() },
        // Of ours is only the check that proves a column to hold no NULL: see `repair::set_not_null`.
        None => {
            let column = text.trim_start_matches("CHECK (").trim_end_matches(" IS NOT NULL)");
            Constraint {
                kind: ConstraintKind::Check,
                definition: format!("CHECK (({} IS NOT NULL))", name(column.trim_matches('"'))),
                columns: vec![column.trim_matches('"').to_owned()],
                references: None,
                referenced_columns: Vec::new(),
                valid,
                enforced: true,
            }
        }
    };
    table.constraints.insert(constraint.to_owned(), made);
}

fn alter_column(at: &mut Words, column: &str, table: &mut Table, wanted: Option<&Table>) {
    let wanted = wanted.and_then(|wanted| wanted.columns.get(column));
    let Some(there) = table.columns.get_mut(column) else { return };
    let sets = at.next_word() == "set";
    if !sets && at.peek() != "not" && at.peek() != "default" {
        // TYPE
        if let Some(wanted) = wanted {
            there.type_name.clone_from(&wanted.type_name);
            there.collation.clone_from(&wanted.collation);
            there.is_enum = false;
        }
        return;
    }
    match at.next_word().as_str() {
        "not" => there.nullable = !sets,
        "default" if sets => there.default = wanted.and_then(|wanted| wanted.default.clone()),
        "default" => there.default = None,
        _ => {}
    }
}
