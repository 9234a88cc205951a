//! Extensions that some expected indexes are made with. They belong to the schema where the extension is, and only there:
//! not every role may make an extension, and not every server has it.

use std::collections::BTreeMap;

use tokio_postgres::types::Type;

use crate::schema::{Expected, Index, Table};
use crate::scope::{Scope, Typed};

/// Extensions that may be used, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extensions(BTreeMap<String, Place>);

/// Where an extension is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    /// Its schema, quoted where it must be.
    schema: String,
    /// The operator classes that it brings.
    classes: Vec<String>,
}

// One in a schema that whoever makes our indexes may not look into is of no use. That is who owns the tables, whoever asks: a role
// that only reads must come to the same answer.
const INSTALLED: &str = "
SELECT e.extname::text, pg_catalog.quote_ident(n.nspname),
    (SELECT coalesce(pg_catalog.array_agg(o.opcname::text), '{}') FROM pg_catalog.pg_depend d
     JOIN pg_catalog.pg_opclass o ON o.oid = d.objid
     WHERE d.classid = 'pg_catalog.pg_opclass'::pg_catalog.regclass AND d.deptype = 'e'
        AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = e.oid)
FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname = ANY ($1)
    AND coalesce((SELECT pg_catalog.bool_and(pg_catalog.has_schema_privilege(c.relowner, n.oid, 'USAGE')) FROM pg_catalog.pg_class c
                  WHERE c.relnamespace = pg_catalog.to_regnamespace('public') AND c.relname = ANY ($2) AND c.relkind = 'r'),
        pg_catalog.has_schema_privilege(n.oid, 'USAGE'))";

// A trusted one is made by whoever may create in the database: who owns the tables, or who asks.
const CREATABLE: &str = "
SELECT DISTINCT v.name::text FROM pg_catalog.pg_available_extension_versions v
JOIN pg_catalog.pg_available_extensions a ON a.name = v.name AND a.default_version = v.version
JOIN pg_catalog.pg_roles r ON r.rolname = current_user
    OR r.oid IN (SELECT c.relowner FROM pg_catalog.pg_class c
                 WHERE c.relnamespace = pg_catalog.to_regnamespace('public') AND c.relname = ANY ($2) AND c.relkind = 'r')
WHERE v.name = ANY ($1) AND NOT EXISTS (SELECT FROM pg_catalog.pg_extension e WHERE e.extname = v.name)
    AND (r.rolsuper OR v.trusted AND pg_catalog.has_database_privilege(r.oid, pg_catalog.current_database(), 'CREATE'))";

impl Extensions {
    /// Those of `wanted` that are there, for whoever owns `tables`.
    ///
    /// # Errors
    /// Any database error.
    pub(crate) async fn installed(
        scope: Scope<'_>,
        wanted: &[String],
        tables: &[String],
    ) -> Result<Self, tokio_postgres::Error> {
        let mut found = BTreeMap::new();
        if !wanted.is_empty() {
            let names: &[Typed<'_>] = &[(&wanted, Type::TEXT_ARRAY), (&tables, Type::TEXT_ARRAY)];
            for row in scope.query(INSTALLED, names).await? {
                found.insert(row.try_get(0)?, Place { schema: row.try_get(1)?, classes: row.try_get(2)? });
            }
        }
        Ok(Self(found))
    }

    /// Those that are there once the migrations have made what they may.
    ///
    /// # Errors
    /// Any database error.
    pub(crate) async fn foreseen(scope: Scope<'_>, expected: &Expected) -> Result<Self, tokio_postgres::Error> {
        let (wanted, tables) = (extensions_of(&expected.tables), expected.table_names());
        let Self(mut found) = Self::installed(scope, &wanted, &tables).await?;
        if wanted.iter().any(|name| !found.contains_key(name)) {
            let names: &[Typed<'_>] = &[(&wanted, Type::TEXT_ARRAY), (&tables, Type::TEXT_ARRAY)];
            let creatable = match scope.query(CREATABLE, names).await {
                // The server reads the files of all its extensions for that: one that cannot be read is no reason to stop.
                Err(error) if error.code().is_some() && !error.is_closed() => {
                    tracing::warn!(%error, "which extensions can be made is not known");
                    Vec::new()
                }
                rows => rows?,
            };
            for row in creatable {
                found.insert(row.try_get(0)?, Place { schema: PUBLIC.to_owned(), classes: Vec::new() });
            }
        }
        Ok(Self(found))
    }

    /// The definition, written for `public`, with the operator classes of `extension` where they are.
    fn placed(&self, definition: &str, extension: &str) -> Option<String> {
        let place = self.0.get(extension)?;
        // What is in pg_catalog is written without it, since everybody sees it.
        let qualifier = if place.schema == "pg_catalog" { String::new() } else { format!("{}.", place.schema) };
        let mut text = definition.to_owned();
        for class in &place.classes {
            for end in [" ", ",", ")"] {
                text = text.replace(&format!(" {PUBLIC}.{class}{end}"), &format!(" {qualifier}{class}{end}"));
            }
        }
        Some(text)
    }

    /// Whether an index can be made here.
    pub(crate) fn allow(&self, index: &Index) -> bool {
        index.requires.as_ref().is_none_or(|extension| self.0.contains_key(extension))
    }
}

/// Where the migrations make extensions, and how the committed definitions name them.
const PUBLIC: &str = "public";

/// The extensions that some of the indexes are made with.
pub(crate) fn extensions_of(tables: &BTreeMap<String, Table>) -> Vec<String> {
    let indexes = tables.values().flat_map(|table| table.indexes.values());
    let mut names: Vec<String> = indexes.filter_map(|index| index.requires.clone()).collect();
    names.sort();
    names.dedup();
    names
}

impl Expected {
    /// What is expected where these extensions are.
    #[must_use]
    pub(crate) fn with(&self, extensions: &Extensions) -> Self {
        let mut expected = self.clone();
        for table in expected.tables.values_mut() {
            table.indexes.retain(|_, index| match &index.requires {
                None => true,
                Some(extension) => match extensions.placed(&index.definition, extension) {
                    None => false,
                    Some(definition) => {
                        index.definition = definition;
                        true
                    }
                },
            });
        }
        expected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected() -> Expected {
        let index = |definition: &str, requires: Option<&str>| Index {
            definition: definition.to_owned(),
            unique: false,
            columns: Vec::new(),
            plain: false,
            valid: true,
            requires: requires.map(str::to_owned),
        };
        let indexes = BTreeMap::from([
            ("a".to_owned(), index("CREATE INDEX a ON public.t USING gin (b public.gin_trgm_ops)", Some("pg_trgm"))),
            ("c".to_owned(), index("CREATE INDEX c ON public.t USING btree (d)", None)),
        ]);
        Expected {
            tables: BTreeMap::from([("t".to_owned(), Table { indexes, ..Table::default() })]),
            ..Expected::default()
        }
    }

    fn there(schema: &str) -> Extensions {
        let classes = vec!["gin_trgm_ops".to_owned()];
        Extensions(BTreeMap::from([("pg_trgm".to_owned(), Place { schema: schema.to_owned(), classes })]))
    }

    #[test]
    fn an_index_is_expected_only_where_its_extension_is_and_from_where_it_is() {
        let expected = expected();
        assert_eq!(extensions_of(&expected.tables), ["pg_trgm"]);
        let without = expected.with(&Extensions::default());
        assert_eq!(without.tables["t"].indexes.keys().collect::<Vec<_>>(), ["c"]);
        assert_eq!(expected.with(&there("public")), expected);
        let elsewhere = expected.with(&there("\"My Extensions\""));
        let definition = &elsewhere.tables["t"].indexes["a"].definition;
        assert_eq!(definition, "CREATE INDEX a ON public.t USING gin (b \"My Extensions\".gin_trgm_ops)");
        assert_eq!(elsewhere.tables["t"].indexes["c"], expected.tables["t"].indexes["c"]);
        let everywhere = expected.with(&there("pg_catalog"));
        let definition = &everywhere.tables["t"].indexes["a"].definition;
        assert_eq!(definition, "CREATE INDEX a ON public.t USING gin (b gin_trgm_ops)");
    }
}
