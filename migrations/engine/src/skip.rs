//! Statements that the catalog shows to be done already, so that they need not be sent: `ADD COLUMN IF NOT EXISTS` of a
//! column that is there, or `DROP CONSTRAINT IF EXISTS` of one that is gone, would still lock the whole table for a moment,
//! and wait for every reader before that.

use tokio_postgres::types::Type;

use crate::error::EngineError;
use crate::schema::Schema;
use crate::scope::Scope;
use crate::set::MigrationSet;
use crate::words::words;

/// What a statement makes only where it is not there yet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Makes {
    /// `CREATE TABLE IF NOT EXISTS`
    Table(String),
    /// `ALTER TABLE … ADD COLUMN IF NOT EXISTS`, alone
    Column(String, String),
    /// `CREATE INDEX … IF NOT EXISTS … ON table`
    Index(String, String),
    /// `ALTER TABLE … DROP CONSTRAINT IF EXISTS`, alone: makes that it is gone
    NoConstraint(String, String),
}

/// Reads what `sql` makes, where it has one of these forms.
pub(crate) fn makes(sql: &str) -> Option<Makes> {
    let mut at = words(sql);
    match at.next_word().as_str() {
        "create" => {
            at.skip("unique");
            match at.next_word().as_str() {
                "table" if at.skip_if_not_exists() => Some(Makes::Table(at.name())),
                "index" => {
                    at.skip("concurrently");
                    if !at.skip_if_not_exists() {
                        return None;
                    }
                    let index = at.name();
                    (at.skip("on") && !at.skip("only")).then(|| Makes::Index(at.name(), index))
                }
                _ => None,
            }
        }
        "alter" if at.skip("table") => {
            let table = at.name();
            if at.skip("drop") {
                let is_known = at.skip("constraint") && at.skip_if_exists();
                let constraint = at.name();
                return (is_known && !at.has_outer_comma()).then_some(Makes::NoConstraint(table, constraint));
            }
            if !(at.skip("add") && at.skip("column") && at.skip_if_not_exists()) {
                return None;
            }
            let column = at.name();
            // A second sub-command has effects of its own.
            (!at.has_outer_comma()).then_some(Makes::Column(table, column))
        }
        _ => None,
    }
}

impl Makes {
    /// Whether `schema` has it. An INVALID index is left to the repairs, as PostgreSQL leaves it.
    pub(crate) fn is_in(&self, schema: &Schema) -> bool {
        match self {
            Self::Table(table) => schema.contains_key(table),
            Self::Column(table, column) => schema.get(table).is_some_and(|shape| shape.columns.contains_key(column)),
            Self::Index(table, index) => schema
                .get(table)
                .is_some_and(|shape| shape.indexes.contains_key(index) || shape.constraints.contains_key(index)),
            Self::NoConstraint(table, constraint) => {
                schema.get(table).is_some_and(|shape| !shape.constraints.contains_key(constraint))
            }
        }
    }
}

/// Whether the catalog shows that the statement would do nothing.
pub(crate) async fn has_nothing_to_do(scope: Scope<'_>, sql: &str) -> Result<bool, EngineError> {
    let Some(makes) = makes(sql) else { return Ok(false) };
    let there = match &makes {
        Makes::Table(table) => {
            let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class \
                WHERE relnamespace = pg_catalog.to_regnamespace('public') AND relname = $1 AND relkind IN ('r', 'p'))";
            scope.query_one(sql, &[(table, Type::TEXT)]).await?
        }
        Makes::Column(table, column) => {
            let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid \
                WHERE c.relnamespace = pg_catalog.to_regnamespace('public') AND c.relname = $1 AND c.relkind = 'r' \
                    AND a.attname = $2 AND a.attnum > 0 AND NOT a.attisdropped)";
            scope.query_one(sql, &[(table, Type::TEXT), (column, Type::TEXT)]).await?
        }
        Makes::Index(table, index) => {
            let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid \
                JOIN pg_catalog.pg_class c ON c.oid = i.indrelid \
                WHERE c.relnamespace = pg_catalog.to_regnamespace('public') AND c.relname = $1 AND x.relname = $2)";
            scope.query_one(sql, &[(table, Type::TEXT), (index, Type::TEXT)]).await?
        }
        Makes::NoConstraint(table, constraint) => {
            let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c \
                WHERE c.relnamespace = pg_catalog.to_regnamespace('public') AND c.relname = $1 AND c.relkind = 'r' \
                    AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid AND k.conname = $2))";
            scope.query_one(sql, &[(table, Type::TEXT), (constraint, Type::TEXT)]).await?
        }
    };
    Ok(there.try_get(0)?)
}

/// Whether the statement makes an index that a later migration drops again: on a large table that would be minutes for nothing, in
/// every run that has anything to do. What is expected tells; an index that a constraint is made of, or that forbids rows, is made.
pub(crate) fn is_superseded(sql: &str, set: &MigrationSet) -> bool {
    let Some(Makes::Index(table, index)) = makes(sql) else { return false };
    let Some(shape) = set.expected.tables.get(&table) else { return false };
    let is_expected = shape.indexes.contains_key(&index) || shape.constraints.contains_key(&index);
    let mut at = words(sql);
    let is_unique = at.skip("create") && at.skip("unique");
    let mut statements = set.migrations.iter().flat_map(|migration| &migration.statements);
    let mut becomes_key = || {
        statements.any(|statement| {
            let text = statement.sql.to_ascii_lowercase();
            text.contains("using index") && text.contains(&index)
        })
    };
    !is_expected && !is_unique && !becomes_key()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::set::EmbeddedMigration;

    #[test]
    fn an_index_that_is_dropped_later_is_not_made() {
        let up = "CREATE TABLE IF NOT EXISTS t (a int, b int);
            ALTER TABLE t ADD CONSTRAINT k UNIQUE USING INDEX becomes_key;
            DROP INDEX IF EXISTS gone;";
        let expected = r#"{"tables": {"t": {"kind": "table", "columns": {}, "constraints": {}, "indexes":
            {"stays": {"definition": "CREATE INDEX stays ON public.t USING btree (a)", "columns": ["a"]}}}}}"#;
        let files = [EmbeddedMigration { directory: "2026-01-02-030405_create_t", up, down: "", metadata: None }];
        let set = MigrationSet::new("test", &files, expected, &[]).unwrap();
        for (sql, superseded) in [
            ("CREATE INDEX CONCURRENTLY IF NOT EXISTS gone ON t (a)", true),
            ("CREATE INDEX CONCURRENTLY IF NOT EXISTS stays ON t (a)", false),
            ("CREATE UNIQUE INDEX IF NOT EXISTS gone ON t (a)", false),
            ("CREATE INDEX CONCURRENTLY IF NOT EXISTS becomes_key ON t (a)", false),
            ("CREATE INDEX IF NOT EXISTS gone ON others (a)", false),
            ("CREATE TABLE IF NOT EXISTS gone (a int)", false),
        ] {
            assert_eq!(is_superseded(sql, &set), superseded, "{sql}");
        }
    }

    #[test]
    fn only_what_makes_one_thing_is_known() {
        let column = |table: &str, column: &str| Some(Makes::Column(table.to_owned(), column.to_owned()));
        let cases = [
            ("CREATE TABLE IF NOT EXISTS a (b int)", Some(Makes::Table("a".to_owned()))),
            ("CREATE TABLE a (b int)", None),
            ("ALTER TABLE a ADD COLUMN IF NOT EXISTS b int DEFAULT 1", column("a", "b")),
            ("ALTER TABLE a ADD COLUMN IF NOT EXISTS b numeric(3, 1)", column("a", "b")),
            ("ALTER TABLE a ADD COLUMN IF NOT EXISTS b int, DROP COLUMN c", None),
            ("ALTER TABLE a ADD COLUMN IF NOT EXISTS b numeric(3, 1), DROP COLUMN c", None),
            ("ALTER TABLE a ADD COLUMN b int", None),
            ("ALTER TABLE a DROP CONSTRAINT IF EXISTS b", Some(Makes::NoConstraint("a".to_owned(), "b".to_owned()))),
            ("ALTER TABLE a DROP CONSTRAINT b", None),
            ("ALTER TABLE a DROP CONSTRAINT IF EXISTS b, DROP COLUMN c", None),
            ("ALTER TABLE a DROP COLUMN b", None),
            ("CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON t (c)", Some(Makes::Index("t".to_owned(), "i".to_owned()))),
            ("CREATE INDEX i ON t (c)", None),
            ("UPDATE a SET b = 1", None),
        ];
        for (sql, expected) in cases {
            assert_eq!(makes(sql), expected, "{sql}");
        }
    }
}
