//! The tables that Diesel's macros tell of are those of the migrations, column by column: a column too many fails only in the
//! call that names it, one too few is never read.

use super::{assert_none, text};

/// What PostgreSQL calls the types that we name in `diesel::table!`.
const TYPES: [(&str, &str); 10] = [
    ("Array<Nullable<Text>>", "text[]"),
    ("Bool", "boolean"),
    ("Bytea", "bytea"),
    ("Int8", "bigint"),
    ("Integer", "integer"),
    ("Jsonb", "jsonb"),
    ("Text", "text"),
    ("Timestamptz", "timestamp with time zone"),
    ("Uuid", "uuid"),
    ("Varchar", "character varying"),
];

/// Table, column, and `type` or `type null`.
type Columns = Vec<(String, String, String)>;

fn declared(service: &str) -> Columns {
    let (mut columns, mut table) = (Columns::new(), String::new());
    for line in text(&format!("{service}-service/src/store/schema.rs")).lines().map(str::trim) {
        if let Some((column, kind)) = line.split_once(" -> ").filter(|(column, _)| !column.contains('!')) {
            let kind = kind.trim_end_matches(',');
            let bare = kind.strip_prefix("Nullable<").and_then(|kind| kind.strip_suffix('>'));
            let found = TYPES.iter().find(|(diesel, _)| *diesel == bare.unwrap_or(kind));
            let (_, postgres) = found.unwrap_or_else(|| panic!("{table}.{column}: what does PostgreSQL call {kind}?"));
            let nullable = if bare.is_some() { " null" } else { "" };
            columns.push((table.clone(), column.to_owned(), format!("{postgres}{nullable}")));
        } else if let Some((name, _)) = line.split_once(" (").filter(|_| line.ends_with(") {")) {
            name.clone_into(&mut table);
        }
    }
    columns.sort();
    columns
}

fn migrated(service: &str) -> Columns {
    let expected: serde_json::Value =
        serde_json::from_str(&text(&format!("migrations/{service}/expected.json"))).unwrap();
    let mut found = Columns::new();
    for (table, of_table) in expected["tables"].as_object().unwrap() {
        for (column, of_column) in of_table["columns"].as_object().unwrap() {
            let kind = of_column["type"].as_str().unwrap().split('(').next().unwrap().to_owned();
            let nullable = if of_column["nullable"] == true { " null" } else { "" };
            found.push((table.clone(), column.clone(), kind + nullable));
        }
    }
    found.sort();
    found
}

#[test]
fn the_tables_of_diesel_are_those_of_the_migrations() {
    for service in ["auth", "task"] {
        let (declared, migrated) = (declared(service), migrated(service));
        assert!(declared.len() > 10, "schema.rs of {service}-service is not read any more: {declared:?}");
        let only = |these: &Columns, those: &Columns, place: &str| -> Vec<String> {
            let missing = these.iter().filter(|column| !those.contains(column));
            missing.map(|(table, column, kind)| format!("{place}: {table}.{column} {kind}")).collect()
        };
        let mut breaches = only(&declared, &migrated, "only in schema.rs");
        breaches.extend(only(&migrated, &declared, "only in expected.json"));
        assert_none(&breaches, &format!("make {service}-service/src/store/schema.rs and the migrations say the same"));
    }
}
