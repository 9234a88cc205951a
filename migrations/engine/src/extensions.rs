//! Extensions that some expected indexes are made with. They belong to the schema where the extension is, and only there:
//! not every role may make an extension, and not every server has it.

use std::collections::BTreeMap;

use tokio_postgres::types::Type;

use crate::schema::Expected;
use crate::scope::Scope;

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

// One in a schema that this role may not look into is of no use to it.
const INSTALLED: &str = "
SELECT e.extname::text, pg_catalog.quote_ident(n.nspname),
    (SELECT coalesce(pg_catalog.array_agg(o.opcname::text), '{}') FROM pg_catalog.pg_depend d
     JOIN pg_catalog.pg_opclass o ON o.oid = d.objid
     WHERE d.classid = 'pg_catalog.pg_opclass'::pg_catalog.regclass AND d.deptype = 'e'
        AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = e.oid)
FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname = ANY ($1) AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')";

// A trusted one is made by whoever may create in the database.
const CREATABLE: &str = "
SELECT DISTINCT v.name::text FROM pg_catalog.pg_available_extension_versions v
JOIN pg_catalog.pg_available_extensions a ON a.name = v.name AND a.default_version = v.version
WHERE v.name = ANY ($1) AND NOT v.installed
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_extension e WHERE e.extname = v.name)
    AND ((SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = current_user)
        OR v.trusted AND pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'))";

impl Extensions {
    /// Those of `wanted` that are there.
    ///
    /// # Errors
    /// Any database error.
    pub(crate) async fn installed(scope: Scope<'_>, wanted: &[String]) -> Result<Self, tokio_postgres::Error> {
        let mut found = BTreeMap::new();
        if !wanted.is_empty() {
            for row in scope.query(INSTALLED, &[(&wanted, Type::TEXT_ARRAY)]).await? {
                found.insert(row.try_get(0)?, Place { schema: row.try_get(1)?, classes: row.try_get(2)? });
            }
        }
        Ok(Self(found))
    }

    /// Those of `wanted` that are there once the migrations have made what they may.
    ///
    /// # Errors
    /// Any database error.
    pub(crate) async fn foreseen(scope: Scope<'_>, wanted: &[String]) -> Result<Self, tokio_postgres::Error> {
        let Self(mut found) = Self::installed(scope, wanted).await?;
        if wanted.iter().any(|name| !found.contains_key(name)) {
            for row in scope.query(CREATABLE, &[(&wanted, Type::TEXT_ARRAY)]).await? {
                found.insert(row.try_get(0)?, Place { schema: PUBLIC.to_owned(), classes: Vec::new() });
            }
        }
        Ok(Self(found))
    }

    /// The definition, written for `public`, with the operator classes of `extension` where they are.
    fn placed(&self, definition: &str, extension: &str) -> Option<String> {
        let place = self.0.get(extension)?;
        let mut text = definition.to_owned();
        for class in place.classes.iter().filter(|_| place.schema != PUBLIC) {
            for end in [" ", ",", ")"] {
                let (from, to) = (format!(" {PUBLIC}.{class}{end}"), format!(" {}.{class}{end}", place.schema));
                text = text.replace(&from, &to);
            }
        }
        Some(text)
    }
}

/// Where the migrations make extensions, and how the committed definitions name them.
const PUBLIC: &str = "public";

impl Expected {
    /// The extensions that some of it is made with.
    #[must_use]
    pub(crate) fn extensions(&self) -> Vec<String> {
        let indexes = self.tables.values().flat_map(|table| table.indexes.values());
        let mut names: Vec<String> = indexes.filter_map(|index| index.requires.clone()).collect();
        names.sort();
        names.dedup();
        names
    }

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
    use crate::schema::{Index, Table};

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
        assert_eq!(expected.extensions(), ["pg_trgm"]);
        let without = expected.with(&Extensions::default());
        assert_eq!(without.tables["t"].indexes.keys().collect::<Vec<_>>(), ["c"]);
        assert_eq!(expected.with(&there("public")), expected);
        let elsewhere = expected.with(&there("\"My Extensions\""));
        let definition = &elsewhere.tables["t"].indexes["a"].definition;
        assert_eq!(definition, "CREATE INDEX a ON public.t USING gin (b \"My Extensions\".gin_trgm_ops)");
        assert_eq!(elsewhere.tables["t"].indexes["c"], expected.tables["t"].indexes["c"]);
    }
}
