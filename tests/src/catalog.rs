//! A second reading of the catalog, which shares no code with the engine: what the engine overlooks, this must see.
//!
//! Every object of every schema but PostgreSQL's own is one line: its kind, where it is, and its whole definition. Rows are
//! read whole too, so that "nothing was changed" can be said of everything.

use std::collections::BTreeMap;

use serde_json::Value;
use tokio_postgres::Client;

/// An object of the database.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    /// `relation`, `column`, `constraint`, `index`, `trigger`, `policy`, `rule`, `parent`, `sequence`, `function` or
    /// `type`.
    pub kind: String,
    /// The table it belongs to, with its schema.
    pub table: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}.{}", self.kind, self.table, self.name)
    }
}

/// Every object with its definition.
pub type Catalog = BTreeMap<Object, String>;

/// Every row of every table, by `schema.table`; sorted by their text.
pub type Rows = BTreeMap<String, Vec<Value>>;

/// All that can be compared of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its objects.
    pub catalog: Catalog,
    /// Its rows.
    pub rows: Rows,
}

// PostgreSQL 18 keeps NOT NULL as constraints of type n; there and before, the column tells it. The triggers that enforce a
// foreign key can be switched off, which no definition shows.
const OBJECTS: &str = "
WITH r AS (
    SELECT c.*, n.nspname || '.' || c.relname AS place
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
)
SELECT 'relation' AS kind, place, relname::text AS name, concat_ws(' ', relkind, relpersistence,
    CASE WHEN relrowsecurity THEN 'row security' END, CASE WHEN relforcerowsecurity THEN 'forced' END,
    CASE WHEN relkind IN ('v', 'm') THEN pg_catalog.pg_get_viewdef(oid) END) AS definition
FROM r WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
UNION ALL
SELECT 'column', place, a.attname, concat_ws(' ', pg_catalog.format_type(a.atttypid, a.atttypmod),
    CASE WHEN a.attcollation <> t.typcollation THEN 'collate ' || a.attcollation::pg_catalog.regcollation END,
    CASE WHEN a.attnotnull THEN 'not null' END, 'default ' || pg_catalog.pg_get_expr(d.adbin, d.adrelid),
    CASE WHEN a.attidentity <> '' THEN 'identity ' || a.attidentity::text END,
    CASE WHEN a.attgenerated <> '' THEN 'generated ' || a.attgenerated::text END)
FROM r JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = r.oid AND d.adnum = a.attnum
WHERE r.relkind IN ('r', 'p', 'v', 'm', 'f')
UNION ALL
SELECT 'constraint', place, k.conname, concat_ws(' ', pg_catalog.pg_get_constraintdef(k.oid),
    CASE WHEN NOT k.convalidated THEN 'unvalidated' END,
    (SELECT 'not enforced: ' || string_agg(DISTINCT g.tgenabled::text, '') FROM pg_catalog.pg_trigger g
     WHERE g.tgconstraint = k.oid AND g.tgenabled <> 'O'))
FROM r JOIN pg_catalog.pg_constraint k ON k.conrelid = r.oid AND k.contype IN ('p', 'u', 'c', 'x', 'f')
UNION ALL
SELECT 'index', place, x.relname, concat_ws(' ', pg_catalog.pg_get_indexdef(i.indexrelid),
    CASE WHEN NOT i.indimmediate THEN 'deferrable' END, CASE WHEN i.indisprimary THEN 'primary' END,
    CASE WHEN NOT (i.indisvalid AND i.indisready AND i.indislive) THEN 'INVALID' END)
FROM r JOIN pg_catalog.pg_index i ON i.indrelid = r.oid JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
WHERE r.relkind IN ('r', 'p', 'm')
UNION ALL
SELECT 'trigger', place, g.tgname, pg_catalog.pg_get_triggerdef(g.oid) || ' ' || g.tgenabled::text
FROM r JOIN pg_catalog.pg_trigger g ON g.tgrelid = r.oid AND NOT g.tgisinternal
UNION ALL
SELECT 'policy', place, p.polname, concat_ws(' ', p.polcmd, pg_catalog.pg_get_expr(p.polqual, p.polrelid))
FROM r JOIN pg_catalog.pg_policy p ON p.polrelid = r.oid
UNION ALL
SELECT 'rule', place, w.rulename, pg_catalog.pg_get_ruledef(w.oid) || ' ' || w.ev_enabled::text
FROM r JOIN pg_catalog.pg_rewrite w ON w.ev_class = r.oid WHERE r.relkind NOT IN ('v', 'm')
UNION ALL
SELECT 'parent', place, i.inhparent::pg_catalog.regclass::text, i.inhseqno::text
FROM r JOIN pg_catalog.pg_inherits i ON i.inhrelid = r.oid WHERE r.relkind IN ('r', 'p', 'f')
UNION ALL
SELECT 'sequence', place, relname, concat_ws(' ', q.seqtypid::pg_catalog.regtype, q.seqstart, q.seqincrement, q.seqmin, q.seqmax,
    q.seqcache, q.seqcycle, (SELECT 'of ' || d.refobjid::pg_catalog.regclass || '.' || a.attname FROM pg_catalog.pg_depend d
        JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
        WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = r.oid AND d.deptype IN ('a', 'i')))
FROM r JOIN pg_catalog.pg_sequence q ON q.seqrelid = r.oid
UNION ALL
SELECT 'function', n.nspname || '.' || f.proname, f.oid::pg_catalog.regprocedure::text, pg_catalog.pg_get_functiondef(f.oid)
FROM pg_catalog.pg_proc f JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace
WHERE f.prokind IN ('f', 'p') AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
        AND d.objid = f.oid AND d.deptype = 'e')
UNION ALL
SELECT 'type', n.nspname || '.' || t.typname, t.typname, t.typtype::text || ' '
    || coalesce((SELECT string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder) FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid), '')
FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
WHERE t.typtype IN ('e', 'd') AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'";

/// Reads everything, as of one moment.
///
/// # Panics
/// The client may not read it, or the connection is gone.
pub async fn snapshot(client: &Client) -> Snapshot {
    let begin =
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL search_path = ''; SET LOCAL TimeZone = 'UTC'";
    client.batch_execute(begin).await.expect("a snapshot");
    let mut catalog = Catalog::new();
    for row in client.query(OBJECTS, &[]).await.expect("the catalog can be read") {
        let object = Object { kind: row.get(0), table: row.get(1), name: row.get(2) };
        catalog.insert(object, row.get(3));
    }
    let mut rows = Rows::new();
    for (table, _) in catalog.iter().filter(|(object, what)| object.kind == "relation" && what.starts_with('r')) {
        let (schema, name) = table.table.split_once('.').expect("a schema and a name");
        // A generated column is no value of its own: it follows the others.
        let columns = catalog.iter().filter(|(object, what)| {
            object.kind == "column" && object.table == table.table && what.contains(" generated ")
        });
        let left_out: Vec<String> = columns.map(|(column, _)| format!("'{}'", column.name)).collect();
        let row = format!("to_jsonb(t) - ARRAY[{}]::text[]", left_out.join(", "));
        let sql = format!("SELECT {row} FROM ONLY \"{schema}\".\"{name}\" t ORDER BY ({row})::text");
        let found = client.query(&sql, &[]).await.unwrap_or_else(|error| panic!("{}: {error:?}", table.table));
        rows.insert(table.table.clone(), found.iter().map(|row| row.get(0)).collect());
    }
    client.batch_execute("ROLLBACK").await.expect("the end of the snapshot");
    Snapshot { catalog, rows }
}

impl Snapshot {
    /// What stands in the one and not, or otherwise, in the other; the first few of each table's rows.
    pub fn differences(&self, later: &Self) -> Vec<String> {
        let mut found = catalog_differences(&self.catalog, &later.catalog);
        let tables: std::collections::BTreeSet<&String> = self.rows.keys().chain(later.rows.keys()).collect();
        for table in tables {
            let (before, after) = (self.rows.get(table), later.rows.get(table));
            if before != after {
                let (before, after) = (before.cloned().unwrap_or_default(), after.cloned().unwrap_or_default());
                let gone: Vec<&Value> = before.iter().filter(|row| !after.contains(row)).take(2).collect();
                let come: Vec<&Value> = after.iter().filter(|row| !before.contains(row)).take(2).collect();
                found.push(format!("rows of {table}: before only {gone:?}, after only {come:?}"));
            }
        }
        found
    }
}

/// Objects that are not the same in both.
pub fn catalog_differences(before: &Catalog, after: &Catalog) -> Vec<String> {
    let objects: std::collections::BTreeSet<&Object> = before.keys().chain(after.keys()).collect();
    let mut found = Vec::new();
    for object in objects {
        match (before.get(object), after.get(object)) {
            (Some(was), Some(is)) if was != is => found.push(format!("{object}: was `{was}`, is `{is}`")),
            (Some(was), None) => found.push(format!("{object} is gone: `{was}`")),
            (None, Some(is)) => found.push(format!("{object} is new: `{is}`")),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TestDatabase;

    const TABLES: &str = "CREATE TABLE parent (id int PRIMARY KEY);
        CREATE TABLE t (id int PRIMARY KEY, name text NOT NULL DEFAULT 'x', parent int,
            CONSTRAINT t_fk FOREIGN KEY (parent) REFERENCES parent (id), CONSTRAINT t_check CHECK (name <> ''), CONSTRAINT t_key UNIQUE (name));
        CREATE SEQUENCE s; CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';
        CREATE INDEX t_name ON t (name); INSERT INTO t (id) VALUES (1);";

    /// Every kind of difference that the suites must be able to see.
    const CHANGES: &[&str] = &[
        "DROP TABLE t",
        "ALTER TABLE t SET UNLOGGED",
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY p ON t",
        "ALTER TABLE t ADD COLUMN extra int",
        "ALTER TABLE t ALTER name TYPE varchar",
        "ALTER TABLE t ALTER name TYPE text COLLATE \"C\"",
        "ALTER TABLE t ALTER name DROP NOT NULL",
        "ALTER TABLE t ALTER name DROP DEFAULT",
        "ALTER TABLE t DROP CONSTRAINT t_check",
        "ALTER TABLE t DROP CONSTRAINT t_check; ALTER TABLE t ADD CONSTRAINT t_check CHECK (name <> '') NOT VALID",
        "ALTER TABLE t DROP CONSTRAINT t_fk; ALTER TABLE t ADD CONSTRAINT t_fk FOREIGN KEY (parent) REFERENCES parent (id) ON DELETE CASCADE",
        "ALTER TABLE t DISABLE TRIGGER ALL",
        "ALTER TABLE t DROP CONSTRAINT t_key; CREATE UNIQUE INDEX t_key ON t (name)",
        "DROP INDEX t_name; CREATE INDEX t_name ON t (name DESC)",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 't_name'::regclass",
        "CREATE TABLE child () INHERITS (t)",
        "CREATE RULE r AS ON INSERT TO t DO ALSO NOTHING",
        "ALTER SEQUENCE s INCREMENT BY 2",
        "ALTER SEQUENCE s OWNED BY t.id",
        "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2'",
        "CREATE VIEW v AS SELECT 1 AS a",
        "CREATE TYPE mood AS ENUM ('good')",
        "CREATE SCHEMA other; CREATE TABLE other.t (id int)",
        "UPDATE t SET name = 'y'",
        "INSERT INTO t VALUES (2, 'y')",
    ];

    #[tokio::test]
    async fn every_kind_of_difference_is_seen() {
        let database = TestDatabase::from_sql(TABLES).await;
        let client = database.client().await;
        let before = snapshot(&client).await;
        assert_eq!(before.differences(&snapshot(&client).await), Vec::<String>::new());
        for change in CHANGES {
            let changed = database_with(change).await;
            let after = snapshot(&changed.client().await).await;
            assert!(!before.differences(&after).is_empty(), "not seen: {change}");
        }
    }

    async fn database_with(change: &str) -> TestDatabase {
        let database = TestDatabase::from_sql(TABLES).await;
        database.client().await.batch_execute(change).await.unwrap_or_else(|error| panic!("{change}: {error:?}"));
        database
    }
}
