//! Databases of the system that this pair replaces, and what must survive their adoption.

use std::collections::BTreeMap;
use std::path::Path;

use migration_engine::{Expected, Schema};
use tokio_postgres::Client;

/// The text of `fixtures/<name>.sql`; `\ir` lines are replaced by the file they name, as psql does.
pub fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(format!("{name}.sql"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut whole = String::new();
    for line in text.lines() {
        match line.strip_prefix("\\ir ") {
            Some(other) => {
                let other = path.parent().expect("a fixture has a directory").join(other.trim());
                whole.push_str(
                    &std::fs::read_to_string(&other).unwrap_or_else(|error| panic!("{}: {error}", other.display())),
                );
            }
            None => whole.push_str(line),
        }
        whole.push('\n');
    }
    whole
}

/// Every table of `public` with its shape.
pub async fn whole_schema(client: &Client) -> Schema {
    let names = table_names(client).await;
    migration_engine::read_schema(client, &names).await.expect("the catalog can be read")
}

/// The part of a committed schema that is expected where only these extensions are: not every server has all.
pub async fn expected_where(client: &Client, mut expected: Expected) -> Expected {
    let found = client.query("SELECT extname::text FROM pg_extension", &[]).await.expect("the catalog can be read");
    let extensions: Vec<String> = found.iter().map(|row| row.get(0)).collect();
    for table in expected.tables.values_mut() {
        table.indexes.retain(|_, index| index.requires.as_ref().is_none_or(|name| extensions.contains(name)));
    }
    expected
}

async fn table_names(client: &Client) -> Vec<String> {
    let rows = client
        .query("SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm') ORDER BY 1", &[])
        .await
        .expect("the catalog can be read");
    rows.iter().map(|row| row.get(0)).collect()
}

/// Every row of every table of `public`, as JSON text, sorted; engine tables and the histories are left out.
pub async fn all_rows(client: &Client) -> BTreeMap<String, Vec<serde_json::Value>> {
    let mut found = BTreeMap::new();
    for table in table_names(client).await {
        if table.starts_with("__") {
            continue;
        }
        let rows = client
            .query(&format!("SELECT to_jsonb(t) FROM public.\"{table}\" t ORDER BY to_jsonb(t)::text"), &[])
            .await
            .unwrap_or_else(|error| panic!("{table}: {error:?}"));
        found.insert(table, rows.iter().map(|row| row.get(0)).collect());
    }
    found
}

/// Panics unless every row of `before` is in `after` with the values it had, but for the columns in `changed`
/// (`table.column`), which the migrations say they change.
pub fn assert_rows_kept(
    before: &BTreeMap<String, Vec<serde_json::Value>>,
    after: &BTreeMap<String, Vec<serde_json::Value>>,
    changed: &[&str],
) {
    for (table, rows) in before {
        let kept = &after[table];
        for row in rows {
            let same = |candidate: &&serde_json::Value| {
                row.as_object().expect("a row").iter().all(|(column, value)| {
                    changed.contains(&format!("{table}.{column}").as_str()) || candidate.get(column) == Some(value)
                })
            };
            assert!(kept.iter().any(|candidate| same(&candidate)), "{table}: this row is not there as it was: {row}");
        }
        assert!(kept.len() >= rows.len(), "{table}: {} rows before, {} after", rows.len(), kept.len());
    }
}
