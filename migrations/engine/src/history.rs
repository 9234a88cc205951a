//! Diesel's history table, `public.__diesel_schema_migrations`, read as it is and mended where it is not as Diesel
//! makes it. Reading never writes: a missing table is an empty history.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::types::Type;

use crate::diff::{self, Difference, Guard};
use crate::error::EngineError;
use crate::report::Kind;
use crate::schema::{Column, Constraint, ConstraintKind, Expected, Schema, Table};
use crate::scope::Scope;
use crate::session::Session;

/// The name that Diesel fixes.
pub(crate) const TABLE: &str = "__diesel_schema_migrations";

/// What the history says.
pub(crate) struct History {
    /// Recorded versions, whoever they belong to.
    pub(crate) versions: BTreeSet<String>,
    /// How the table differs from what Diesel makes; empty when there is no table yet.
    pub(crate) differences: Vec<Difference>,
}

/// Reads the history within a reading transaction; `live` holds its table's shape.
///
/// # Errors
/// Any database error.
pub(crate) async fn read(scope: Scope<'_>, live: &Schema) -> Result<History, EngineError> {
    let Some(table) = live.get(TABLE) else {
        return Ok(History { versions: BTreeSet::new(), differences: Vec::new() });
    };
    let mut versions = BTreeSet::new();
    if table.columns.contains_key("version") {
        let sql = format!("SELECT version::text FROM public.{TABLE} WHERE version IS NOT NULL");
        for row in &scope.query(&sql, &[]).await? {
            versions.insert(row.try_get::<_, String>(0)?);
        }
    }
    Ok(History { versions, differences: differences(live) })
}

fn differences(live: &Schema) -> Vec<Difference> {
    let expected = Expected { tables: BTreeMap::from([(TABLE.to_owned(), expected_table())]), seeds: BTreeMap::new() };
    let mut found = diff::compare(
        &expected,
        &live.iter().filter(|(name, _)| *name == TABLE).map(|(name, table)| (name.clone(), table.clone())).collect(),
    );
    // What somebody added, and the type of the time, disturb neither Diesel nor us.
    found.retain(|difference| {
        // But a column that demands a value would refuse the next version.
        let demanding = difference.drift.kind == Kind::Column && difference.fix.is_some();
        (demanding || difference.drift.problem != crate::report::Problem::Unexpected)
            && !(difference.drift.object == "run_on"
                && difference.drift.actual.as_deref().is_some_and(|text| !text.starts_with("timestamp without")))
    });
    for difference in &mut found {
        difference.drift.kind = Kind::History;
    }
    found
}

/// The shape that Diesel gives it.
pub(crate) fn expected_table() -> Table {
    let column = |type_name: &str, default: Option<&str>| Column {
        type_name: type_name.to_owned(),
        nullable: false,
        default: default.map(str::to_owned),
        generated: None,
        collation: None,
        is_enum: false,
    };
    let key = Constraint {
        kind: ConstraintKind::PrimaryKey,
        definition: "PRIMARY KEY (version)".to_owned(),
        columns: vec!["version".to_owned()],
        references: None,
        referenced_columns: Vec::new(),
        valid: true,
        enforced: true,
    };
    Table {
        columns: BTreeMap::from([
            ("version".to_owned(), column("character varying(50)", None)),
            ("run_on".to_owned(), column("timestamp without time zone", Some("CURRENT_TIMESTAMP"))),
        ]),
        constraints: BTreeMap::from([(format!("{TABLE}_pkey"), key)]),
        ..Table::default()
    }
}

/// The statement with which Diesel makes the table.
pub(crate) const CREATE: &str = "CREATE TABLE IF NOT EXISTS public.__diesel_schema_migrations (\
    version VARCHAR(50) PRIMARY KEY NOT NULL, run_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)";

/// For what the run itself puts in order: the statement, and what it says. The same version twice says nothing more than once.
pub(crate) fn put_in_order(difference: &Difference) -> Option<(&'static str, &'static str)> {
    match &difference.guard {
        Some(Guard::Unique(_)) => Some((
            "DELETE FROM public.__diesel_schema_migrations later \
             USING public.__diesel_schema_migrations earlier \
             WHERE later.version = earlier.version AND later.ctid > earlier.ctid",
            "Removed repeated rows of the migration history",
        )),
        Some(Guard::NoNulls(column)) if column == "run_on" => Some((
            "UPDATE public.__diesel_schema_migrations SET run_on = CURRENT_TIMESTAMP WHERE run_on IS NULL",
            "Gave rows of the migration history the time that they lacked",
        )),
        _ => None,
    }
}

/// Records versions as applied.
pub(crate) async fn record(scope: Scope<'_>, versions: &[String]) -> Result<(), EngineError> {
    scope
        .query(
            &format!(
                "INSERT INTO public.{TABLE} (version) SELECT v FROM pg_catalog.unnest($1) AS v \
                 WHERE NOT EXISTS (SELECT FROM public.{TABLE} WHERE version = v)"
            ),
            &[(&versions, Type::TEXT_ARRAY)],
        )
        .await?;
    Ok(())
}

/// Takes a version out of the history, however often it is in it.
pub(crate) async fn forget(session: &Session<'_>, version: &str) -> Result<(), EngineError> {
    let sql = format!("DELETE FROM public.{TABLE} WHERE version = '{}'", version.replace('\'', "''"));
    session.execute(&sql, "history").await?;
    Ok(())
}
