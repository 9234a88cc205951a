//! The rules for writing a migration, as a lint over `migrations/auth` and `migrations/task`. Every rule has an example
//! that breaks it and is caught.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a suite ends the test with a panic")]

mod examples;
mod files;
mod online;
mod rules;
mod sql;
mod tables;
mod task;
mod undo;

use std::collections::{BTreeMap, BTreeSet};

use files::Migration;
use rules::{RULES, lint};

#[test]
fn the_migrations_keep_every_rule() {
    for service in ["auth", "task"] {
        let set = files::read(service);
        assert!(!set.is_empty(), "migrations/{service} is empty");
        let breaches = lint(&set);
        assert!(breaches.is_empty(), "migrations/{service}:\n  {}", breaches.join("\n  "));
    }
}

#[test]
fn no_version_stands_twice_in_any_set() {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for service in ["auth", "task"] {
        for migration in files::read(service) {
            let place = format!("{service}/{}", migration.directory);
            if let Some(first) = seen.insert(migration.version(), place.clone()) {
                panic!("{first} and {place} have one version: services that share a database share the history");
            }
        }
    }
}

/// The owner's id must be part of every key, so that the rows can be distributed by it.
#[test]
fn every_key_of_the_task_tables_holds_the_owner() {
    let path = files::root().join("task/expected.json");
    let expected: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let tables = expected["tables"].as_object().unwrap();
    assert!(tables.contains_key("tasks"));
    let holds_owner =
        |columns: &serde_json::Value| columns.as_array().is_some_and(|all| all.contains(&"user_id".into()));
    for (table, shape) in tables {
        let owner = &shape["columns"]["user_id"];
        assert!(
            owner.is_object() && owner["nullable"] != true,
            "{table}: expected a column user_id that is never null"
        );
        for (name, constraint) in shape["constraints"].as_object().into_iter().flatten() {
            let kind = constraint["kind"].as_str().unwrap();
            assert_ne!(kind, "foreign_key", "{table}.{name}: the other table may lie on another machine");
            let key = ["primary_key", "unique"].contains(&kind);
            assert!(!key || holds_owner(&constraint["columns"]), "{table}.{name}: add user_id to the key");
        }
        for (name, index) in shape["indexes"].as_object().into_iter().flatten() {
            let definition = index["definition"].as_str().unwrap_or_default();
            let unique = definition.contains("UNIQUE");
            assert!(!unique || definition.contains("user_id"), "{table}.{name}: add user_id to the key");
        }
    }
}

#[test]
fn a_migration_that_keeps_the_rules_passes() {
    for set in examples::good() {
        let breaches = lint(&set);
        assert!(breaches.is_empty(), "{}:\n  {}\n{:#?}", set[0].directory, breaches.join("\n  "), set);
    }
}

#[test]
fn every_rule_catches_its_breaches() {
    // An order needs two migrations: `the_order_of_a_set_is_its_history` breaks that rule.
    let mut tried = BTreeSet::from(["version"]);
    for (rule, bad) in examples::bad() {
        let breaches = lint(std::slice::from_ref(&bad));
        let hit = |breach: &String| breach.contains(&format!("[{rule}]"));
        assert!(breaches.iter().any(hit), "{rule} does not catch this, but {breaches:#?}:\n{bad:#?}");
        tried.insert(rule);
    }
    let untried: Vec<_> = RULES.iter().map(|rule| rule.name).filter(|name| !tried.contains(name)).collect();
    assert!(untried.is_empty(), "give each of these rules an example in examples.rs that breaks it: {untried:?}");
}

#[test]
fn the_order_of_a_set_is_its_history() {
    let first = examples::plain("2026-01-02-030405_create_things");
    let second = Migration { directory: "2026-01-02-030405_create_things_again".to_owned(), ..first.clone() };
    assert!(lint(&[first, second]).iter().any(|breach| breach.contains("[version]")));
}
