//! The comparer itself: for every kind of difference there is a case that it is seen, with its severity and repair.

use std::collections::BTreeSet;

use super::{Guard, compare};
use crate::report::{Kind, Problem, Severity};
use crate::schema::{Expected, Schema};

const EXPECTED: &str = r#"{"tables": {
    "owner": {"kind": "table", "columns": {"id": {"type": "uuid"}}, "constraints": {
        "owner_pkey": {"kind": "primary_key", "definition": "PRIMARY KEY (id)", "columns": ["id"]}}},
    "item": {"kind": "table",
        "columns": {
            "id": {"type": "uuid"}, "owner_id": {"type": "uuid"},
            "number": {"type": "bigint", "default": "nextval('public.item_number'::regclass)"},
            "label": {"type": "character varying(50)", "default": "'x'::character varying"},
            "note": {"type": "text", "nullable": true}},
        "constraints": {
            "item_pkey": {"kind": "primary_key", "definition": "PRIMARY KEY (id)", "columns": ["id"]},
            "item_label_key": {"kind": "unique", "definition": "UNIQUE (label)", "columns": ["label"]},
            "item_label_check": {"kind": "check", "definition": "CHECK (((label)::text <> ''::text))", "columns": ["label"]},
            "item_owner": {"kind": "foreign_key", "definition": "FOREIGN KEY (owner_id) REFERENCES public.owner(id)",
                "columns": ["owner_id"], "references": "owner", "referenced_columns": ["id"]}},
        "indexes": {
            "item_note": {"definition": "CREATE INDEX item_note ON public.item USING btree (note)", "columns": ["note"]}},
        "triggers": {"item_touch": "CREATE TRIGGER item_touch BEFORE UPDATE ON public.item FOR EACH ROW EXECUTE FUNCTION public.touch()"},
        "functions": {"touch": "CREATE OR REPLACE FUNCTION public.touch() …"},
        "sequences": {"item_number": {"options": "AS bigint INCREMENT BY 1 MINVALUE 1 MAXVALUE 99 START WITH 1 CACHE 1 NO CYCLE", "owned_by": "number"}}}}}"#;

fn expected() -> Expected {
    serde_json::from_str(EXPECTED).unwrap()
}

/// A change to the live schema, as JSON: `(path, value)`; null removes.
struct Case {
    name: &'static str,
    path: &'static str,
    value: &'static str,
    seen: (Severity, Kind, Problem, &'static str),
    repair: &'static str,
}

const CASES: &[Case] = &[
    case(
        "table missing",
        "item",
        "null",
        (Severity::Error, Kind::Table, Problem::Missing, "item"),
        "CREATE TABLE public.item",
    ),
    case("table is a view", "item/kind", r#""view""#, (Severity::Error, Kind::Table, Problem::Different, "item"), "-"),
    case("unlogged", "item/logged", "false", (Severity::Error, Kind::Table, Problem::Different, "item"), "SET LOGGED"),
    case(
        "row security",
        "item/row_security",
        "true",
        (Severity::Error, Kind::Table, Problem::Different, "item"),
        "DISABLE ROW LEVEL",
    ),
    case(
        "column missing",
        "item/columns/note",
        "null",
        (Severity::Error, Kind::Column, Problem::Missing, "note"),
        "ADD COLUMN note text",
    ),
    case(
        "wider type",
        "item/columns/label/type",
        r#""text""#,
        (Severity::Error, Kind::Column, Problem::Different, "label"),
        "TYPE character varying(50)",
    ),
    case(
        "narrower type",
        "item/columns/label/type",
        r#""character varying(10)""#,
        (Severity::Error, Kind::Column, Problem::Different, "label"),
        "TYPE character varying(50)",
    ),
    case(
        "foreign type",
        "item/columns/label/type",
        r#""integer""#,
        (Severity::Error, Kind::Column, Problem::Different, "label"),
        "-",
    ),
    case(
        "collation",
        "item/columns/label/collation",
        r#""\"C\"""#,
        (Severity::Error, Kind::Column, Problem::Different, "label"),
        "TYPE character varying(50)",
    ),
    case(
        "default",
        "item/columns/label/default",
        r#""'y'""#,
        (Severity::Error, Kind::Column, Problem::Different, "label"),
        "SET DEFAULT 'x'",
    ),
    case(
        "extra default",
        "item/columns/note/default",
        r#""''""#,
        (Severity::Error, Kind::Column, Problem::Different, "note"),
        "DROP DEFAULT",
    ),
    case(
        "nullable",
        "item/columns/label/nullable",
        "true",
        (Severity::Error, Kind::Column, Problem::Different, "label"),
        "SET NOT NULL",
    ),
    case(
        "not null",
        "item/columns/note/nullable",
        "false",
        (Severity::Error, Kind::Column, Problem::Different, "note"),
        "DROP NOT NULL",
    ),
    case(
        "generated",
        "item/columns/note/generated",
        r#""stored""#,
        (Severity::Error, Kind::Column, Problem::Different, "note"),
        "-",
    ),
    case(
        "extra column",
        "item/columns/more",
        r#"{"type": "text", "nullable": true}"#,
        (Severity::Warning, Kind::Column, Problem::Unexpected, "more"),
        "-",
    ),
    case(
        "extra column with default",
        "item/columns/more",
        r#"{"type": "text", "default": "''"}"#,
        (Severity::Warning, Kind::Column, Problem::Unexpected, "more"),
        "-",
    ),
    case(
        "extra column that must be given",
        "item/columns/more",
        r#"{"type": "text"}"#,
        (Severity::Error, Kind::Column, Problem::Unexpected, "more"),
        "ALTER COLUMN more DROP NOT NULL",
    ),
    case(
        "key missing",
        "item/constraints/item_pkey",
        "null",
        (Severity::Error, Kind::Constraint, Problem::Missing, "item_pkey"),
        "ADD CONSTRAINT item_pkey PRIMARY KEY USING INDEX",
    ),
    case(
        "unique missing",
        "item/constraints/item_label_key",
        "null",
        (Severity::Error, Kind::Constraint, Problem::Missing, "item_label_key"),
        "UNIQUE USING INDEX",
    ),
    case(
        "check missing",
        "item/constraints/item_label_check",
        "null",
        (Severity::Error, Kind::Constraint, Problem::Missing, "item_label_check"),
        "NOT VALID",
    ),
    case(
        "foreign key missing",
        "item/constraints/item_owner",
        "null",
        (Severity::Error, Kind::Constraint, Problem::Missing, "item_owner"),
        "VALIDATE CONSTRAINT item_owner",
    ),
    case(
        "constraint of another shape",
        "item/constraints/item_owner/definition",
        r#""FOREIGN KEY (owner_id) REFERENCES public.owner(id) ON DELETE SET NULL""#,
        (Severity::Error, Kind::Constraint, Problem::Different, "item_owner"),
        "DROP CONSTRAINT item_owner",
    ),
    case(
        "constraint not valid",
        "item/constraints/item_owner/valid",
        "false",
        (Severity::Error, Kind::Constraint, Problem::Invalid, "item_owner"),
        "VALIDATE CONSTRAINT",
    ),
    case(
        "key with an invalid index",
        "item/constraints/item_pkey/valid",
        "false",
        (Severity::Error, Kind::Constraint, Problem::Invalid, "item_pkey"),
        "REINDEX INDEX CONCURRENTLY",
    ),
    case(
        "extra check",
        "item/constraints/more",
        r#"{"kind": "check", "definition": "CHECK (true)", "columns": []}"#,
        (Severity::Error, Kind::Constraint, Problem::Unexpected, "more"),
        "DROP CONSTRAINT more",
    ),
    case(
        "extra unique that a key implies",
        "item/constraints/more",
        r#"{"kind": "unique", "definition": "UNIQUE (id, note)", "columns": ["id", "note"]}"#,
        (Severity::Warning, Kind::Constraint, Problem::Unexpected, "more"),
        "-",
    ),
    case(
        "extra unique that forbids more",
        "item/constraints/more",
        r#"{"kind": "unique", "definition": "UNIQUE (note)", "columns": ["note"]}"#,
        (Severity::Error, Kind::Constraint, Problem::Unexpected, "more"),
        "DROP CONSTRAINT more",
    ),
    case(
        "index missing",
        "item/indexes/item_note",
        "null",
        (Severity::Error, Kind::Index, Problem::Missing, "item_note"),
        "CREATE INDEX CONCURRENTLY item_note",
    ),
    case(
        "index of another shape",
        "item/indexes/item_note/definition",
        r#""CREATE INDEX item_note ON public.item USING btree (id)""#,
        (Severity::Error, Kind::Index, Problem::Different, "item_note"),
        "RENAME TO item_note",
    ),
    case(
        "index invalid",
        "item/indexes/item_note/valid",
        "false",
        (Severity::Error, Kind::Index, Problem::Invalid, "item_note"),
        "REINDEX INDEX CONCURRENTLY public.item_note",
    ),
    case(
        "extra index",
        "item/indexes/more",
        r#"{"definition": "CREATE INDEX more ON public.item USING btree (id)", "columns": ["id"]}"#,
        (Severity::Warning, Kind::Index, Problem::Unexpected, "more"),
        "-",
    ),
    case(
        "leftover of a build",
        "item/indexes/item_note_ccnew",
        r#"{"definition": "CREATE INDEX item_note_ccnew ON public.item USING btree (note)", "columns": ["note"], "valid": false}"#,
        (Severity::Error, Kind::Index, Problem::Invalid, "item_note_ccnew"),
        "DROP INDEX CONCURRENTLY",
    ),
    case(
        "extra unique index that forbids more",
        "item/indexes/more",
        r#"{"definition": "CREATE UNIQUE INDEX more ON public.item USING btree (note)", "unique": true, "columns": ["note"]}"#,
        (Severity::Error, Kind::Index, Problem::Unexpected, "more"),
        "DROP INDEX CONCURRENTLY",
    ),
    case(
        "trigger missing",
        "item/triggers/item_touch",
        "null",
        (Severity::Error, Kind::Trigger, Problem::Missing, "item_touch"),
        "CREATE TRIGGER",
    ),
    case(
        "trigger of another shape",
        "item/triggers/item_touch",
        r#""CREATE TRIGGER item_touch AFTER UPDATE""#,
        (Severity::Error, Kind::Trigger, Problem::Different, "item_touch"),
        "CREATE TRIGGER",
    ),
    case(
        "extra trigger",
        "item/triggers/more",
        r#""CREATE TRIGGER more""#,
        (Severity::Warning, Kind::Trigger, Problem::Unexpected, "more"),
        "-",
    ),
    case(
        "function of a trigger",
        "item/functions/touch",
        r#""CREATE OR REPLACE FUNCTION public.touch() other""#,
        (Severity::Error, Kind::Function, Problem::Different, "touch"),
        "FUNCTION public.touch() …",
    ),
    case(
        "sequence missing",
        "item/sequences/item_number",
        "null",
        (Severity::Error, Kind::Sequence, Problem::Missing, "item_number"),
        "CREATE SEQUENCE IF NOT EXISTS public.item_number AS bigint",
    ),
    case(
        "sequence that counts otherwise",
        "item/sequences/item_number/options",
        r#""AS bigint INCREMENT BY 5 MINVALUE 1 MAXVALUE 99 START WITH 1 CACHE 1 NO CYCLE""#,
        (Severity::Error, Kind::Sequence, Problem::Different, "item_number"),
        "ALTER SEQUENCE public.item_number AS bigint INCREMENT BY 1",
    ),
    case(
        "sequence of another column",
        "item/sequences/item_number/owned_by",
        r#""id""#,
        (Severity::Error, Kind::Sequence, Problem::Different, "item_number"),
        "OWNED BY public.item.number",
    ),
    case(
        "extra sequence",
        "item/sequences/more",
        r#"{"options": "AS bigint", "owned_by": "number"}"#,
        (Severity::Warning, Kind::Sequence, Problem::Unexpected, "more"),
        "-",
    ),
];

const fn case(
    name: &'static str,
    path: &'static str,
    value: &'static str,
    seen: (Severity, Kind, Problem, &'static str),
    repair: &'static str,
) -> Case {
    Case { name, path, value, seen, repair }
}

fn live(changes: &[(&str, &str)]) -> Schema {
    let mut tables = serde_json::to_value(expected().tables).unwrap();
    for (path, value) in changes {
        let value: serde_json::Value = serde_json::from_str(value).unwrap();
        let (parent, last) = path.rsplit_once('/').map_or(("", *path), |(parent, last)| (parent, last));
        let mut at = &mut tables;
        for part in parent.split('/').filter(|part| !part.is_empty()) {
            let entries = at.as_object_mut().unwrap();
            at = entries.entry(part).or_insert_with(|| serde_json::json!({}));
        }
        let object = at.as_object_mut().unwrap();
        if value.is_null() {
            object.remove(last)
        } else {
            object.insert(last.to_owned(), value)
        };
    }
    serde_json::from_value(tables).unwrap()
}

#[test]
fn the_expected_schema_does_not_differ_from_itself() {
    assert!(compare(&expected(), &expected().tables).is_empty());
}

#[test]
fn every_kind_of_difference_is_seen() {
    for case in CASES {
        let found = compare(&expected(), &live(&[(case.path, case.value)]));
        let (severity, kind, problem, object) = case.seen;
        let seen = found
            .iter()
            .find(|difference| difference.drift.object == object && difference.drift.problem == problem)
            .unwrap_or_else(|| panic!("{}: not seen in {found:#?}", case.name));
        assert_eq!((seen.drift.severity, seen.drift.kind), (severity, kind), "{}", case.name);
        let repair = seen.drift.repair.clone().unwrap_or_default();
        assert!(
            repair.contains(case.repair) || (case.repair == "-" && repair.is_empty()),
            "{}: repair is {repair:?}",
            case.name
        );
        let alone = found.len() == 1 || (case.path == "item/kind");
        assert!(alone, "{}: one change, several differences: {found:#?}", case.name);
        let mended = seen.fix.is_some() || matches!(seen.guard, Some(Guard::Never { .. })) || kind == Kind::Table;
        assert!(mended || severity == Severity::Warning, "{}: an error without a fix or a reason", case.name);
    }
}

/// A new kind of difference needs a case above.
#[test]
fn the_cases_cover_every_kind_and_problem() {
    let covered: BTreeSet<_> = CASES.iter().map(|case| (case.seen.1, case.seen.2)).collect();
    let of_schema =
        [Kind::Table, Kind::Column, Kind::Constraint, Kind::Index, Kind::Trigger, Kind::Function, Kind::Sequence];
    for kind in of_schema {
        assert!(covered.iter().any(|(seen, _)| *seen == kind), "{kind:?}");
    }
    for problem in [Problem::Missing, Problem::Different, Problem::Unexpected, Problem::Invalid] {
        assert!(covered.iter().any(|(_, seen)| *seen == problem), "{problem:?}");
    }
}

#[test]
fn the_same_object_under_another_name_is_renamed() {
    let renamed = [
        ("item/constraints/item_owner", "null"),
        (
            "item/constraints/fk1",
            r#"{"kind": "foreign_key", "definition": "FOREIGN KEY (owner_id) REFERENCES public.owner(id)", "columns": ["owner_id"]}"#,
        ),
        ("item/indexes/item_note", "null"),
        (
            "item/indexes/by_note",
            r#"{"definition": "CREATE INDEX by_note ON public.item USING btree (note)", "columns": ["note"]}"#,
        ),
        ("item/triggers/item_touch", "null"),
        (
            "item/triggers/touched",
            r#""CREATE TRIGGER touched BEFORE UPDATE ON public.item FOR EACH ROW EXECUTE FUNCTION public.touch()""#,
        ),
        ("item/sequences/item_number", "null"),
        (
            "item/sequences/counter",
            r#"{"options": "AS bigint INCREMENT BY 1 MINVALUE 1 MAXVALUE 99 START WITH 1 CACHE 1 NO CYCLE", "owned_by": "number"}"#,
        ),
    ];
    let repairs: Vec<String> =
        compare(&expected(), &live(&renamed)).into_iter().filter_map(|d| d.drift.repair).collect();
    assert_eq!(repairs.len(), 4, "{repairs:?}");
    let trigger = "ALTER TRIGGER touched ON public.item RENAME TO item_touch;";
    let sequence = "ALTER SEQUENCE public.counter RENAME TO item_number;";
    assert!(repairs.iter().any(|sql| sql == trigger) && repairs.iter().any(|sql| sql == sequence), "{repairs:?}");
    assert!(repairs.iter().any(|sql| sql.contains("RENAME CONSTRAINT fk1 TO item_owner")), "{repairs:?}");
    assert!(repairs.iter().any(|sql| sql.contains("ALTER INDEX public.by_note RENAME TO item_note")), "{repairs:?}");
}

#[test]
fn a_bare_unique_index_becomes_the_constraint() {
    let bare = [
        ("item/constraints/item_label_key", "null"),
        (
            "item/indexes/item_label_key",
            r#"{"definition": "CREATE UNIQUE INDEX item_label_key ON public.item USING btree (label)", "unique": true, "columns": ["label"]}"#,
        ),
    ];
    let found = compare(&expected(), &live(&bare));
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].drift.repair.as_deref().unwrap().contains("UNIQUE USING INDEX item_label_key"));
}

#[test]
fn a_primary_key_of_another_name_and_other_columns_is_replaced_because_a_table_has_one() {
    let other = [
        ("item/constraints/item_pkey", "null"),
        (
            "item/constraints/pk",
            r#"{"kind": "primary_key", "definition": "PRIMARY KEY (owner_id)", "columns": ["owner_id"]}"#,
        ),
    ];
    let found = compare(&expected(), &live(&other));
    assert_eq!(found.len(), 1, "{found:#?}");
    let repair = found[0].drift.repair.as_deref().unwrap();
    assert!(repair.contains("DROP CONSTRAINT pk") && repair.contains("ADD CONSTRAINT item_pkey"), "{repair}");
}

/// An index that needs an extension, and one that is being built, are no reason to take a service out; one that forbids rows is.
#[test]
fn what_a_service_works_without_is_no_hindrance() {
    let index = |unique: &str, valid: bool| {
        let is_unique = !unique.is_empty();
        let definition = format!("CREATE {unique}INDEX i ON public.item USING hash (note)");
        format!(r#"{{"definition": "{definition}", "columns": ["note"], "unique": {is_unique}, "valid": {valid}}}"#)
    };
    let mut expected = expected();
    expected.tables.get_mut("item").unwrap().indexes.get_mut("item_note").unwrap().requires = Some("some".to_owned());
    for (object, value, is_optional) in [
        ("item_note", "null".to_owned(), true),
        ("item_note", index("", true), true),
        ("item_note", index("UNIQUE ", true), false),
        ("item_note_ccnew", index("", false), true),
        ("item_note_ccnew", index("UNIQUE ", false), false),
        (
            "item_pkey_ccnew",
            r#"{"definition": "CREATE UNIQUE INDEX item_pkey_ccnew ON public.item USING btree (id)", "unique": true,
                "columns": ["id"], "valid": false}"#
                .to_owned(),
            true,
        ),
        ("another", index("UNIQUE ", true), false),
    ] {
        let path = format!("item/indexes/{object}");
        let found = compare(&expected, &live(&[(&path, &value)]));
        assert_eq!(found.len(), 1, "{object} {value}: {found:#?}");
        assert_eq!((found[0].is_error(), found[0].drift.optional), (true, is_optional), "{object} {value}");
    }
    let found = compare(&super::tests::expected(), &live(&[("item/indexes/item_note", "null")]));
    assert!(!found[0].drift.optional, "one that every database has");
}

#[test]
fn an_index_name_taken_by_another_table_is_told() {
    let taken = [
        ("item/indexes/item_note", "null"),
        (
            "owner/indexes/item_note",
            r#"{"definition": "CREATE INDEX item_note ON public.owner USING btree (id)", "columns": ["id"]}"#,
        ),
    ];
    let found = compare(&expected(), &live(&taken));
    let missing = found.iter().find(|d| d.drift.table == "item").unwrap();
    assert!(matches!(missing.guard, Some(Guard::Never { .. })), "{found:#?}");
}

#[test]
fn a_trigger_is_made_with_the_function_that_went_with_it() {
    let gone = [("item/triggers/item_touch", "null"), ("item/functions/touch", "null")];
    let found = compare(&expected(), &live(&gone));
    assert_eq!(found.len(), 1, "{found:#?}");
    let repair = found[0].drift.repair.as_deref().unwrap();
    let (function, trigger) = (repair.find("FUNCTION public.touch() …"), repair.find("CREATE TRIGGER"));
    assert!(function.is_some() && function < trigger, "{repair}");
}

#[test]
fn a_column_that_is_made_anew_gets_its_sequence_back() {
    let gone = [("item/columns/number", "null"), ("item/sequences/item_number", "null")];
    let repairs: Vec<String> = compare(&expected(), &live(&gone)).into_iter().filter_map(|d| d.drift.repair).collect();
    assert_eq!(repairs.len(), 2, "{repairs:?}");
    assert!(repairs[0].starts_with("CREATE SEQUENCE IF NOT EXISTS public.item_number"), "{repairs:?}");
    assert!(repairs[1].contains("ADD COLUMN number bigint DEFAULT nextval"), "{repairs:?}");
    assert!(repairs[1].ends_with("ALTER SEQUENCE public.item_number OWNED BY public.item.number;"), "{repairs:?}");
}
