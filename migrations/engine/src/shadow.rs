//! A copy of the live schema of our tables, without rows, in a schema of its own inside one transaction that is rolled
//! back: production tables are neither locked nor changed, nobody else ever sees it, and no right to make databases is
//! needed. What `rehearse` and `down` try first.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::diff::describe_column;
use crate::error::EngineError;
use crate::extensions::{Extensions, extensions_of};
use crate::repair::{beside, create_sequence, name, own_sequence};
use crate::schema::{Constraint, ConstraintKind, Expected, Schema, Table};
use crate::scope::Shadow;
use crate::session::Session;

/// A rehearsal that hangs on something must not keep its snapshot for ever.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// Begins the transaction, makes the copy, and lets the session mean it when it says `public`.
///
/// # Errors
/// When the role may not make a schema, with the grant; any other database error.
pub(crate) async fn enter(session: &mut Session<'_>, live: &Schema, expected: &Expected) -> Result<(), EngineError> {
    let schema = format!("__rehearsal_{}", Uuid::new_v4().simple());
    let begin = format!(
        "BEGIN; SET LOCAL statement_timeout = '{}s'; SET LOCAL lock_timeout = '2s'; CREATE SCHEMA {schema}; \
         SET LOCAL search_path = {schema}, public",
        STATEMENT_TIMEOUT.as_secs()
    );
    // `public` is behind it for types and functions of extensions: a table of ours that is there is in the copy too.
    if let Err(error) = session.scope().batch(&begin).await {
        session.rollback().await;
        return Err(match error.code() {
            Some(code) if code == &SqlState::INSUFFICIENT_PRIVILEGE => no_right(session).await,
            _ => error.into(),
        });
    }
    // One that is in use, and whose extension this role may not look at, cannot be copied; nor is it expected.
    let tables: Vec<String> = live.keys().cloned().collect();
    let extensions = Extensions::installed(session.scope(), &extensions_of(live), &tables).await?;
    let mut live = live.clone();
    live.values_mut().for_each(|shape| shape.indexes.retain(|_, index| extensions.allow(index)));
    let live = &live;
    let stubs = strangers(live);
    let tables = live.keys().chain(expected.tables.keys()).chain(stubs.iter().map(|(table, _)| table));
    let indexes = live.values().chain(expected.tables.values()).flat_map(index_names);
    let beside_tables = live.values().chain(expected.tables.values());
    let beside_tables = beside_tables.flat_map(|shape| shape.sequences.keys().chain(shape.functions.keys()).cloned());
    let names: BTreeSet<String> = tables.cloned().chain(indexes).chain(beside_tables).collect();
    session.enter_shadow(Shadow { schema, names });
    for sql in stubs.into_iter().map(|(_, sql)| sql).chain(statements(live)) {
        session.execute(&sql, "copy of the live schema").await?;
    }
    Ok(())
}

/// Ends the transaction: everything in it is gone.
pub(crate) async fn leave(session: &mut Session<'_>) {
    session.leave_shadow();
    session.rollback().await;
}

async fn no_right(session: &Session<'_>) -> EngineError {
    let sql = "SELECT pg_catalog.quote_ident(current_user), pg_catalog.quote_ident(pg_catalog.current_database())";
    let row = session.scope().first_row(sql).await.unwrap_or_default();
    let [user, database] = row.as_slice() else { return EngineError::Usage("may not make a schema".to_owned()) };
    EngineError::Usage(format!(
        "role {user} may not make the schema in which this is tried; grant it: GRANT CREATE ON DATABASE {database} TO {user};"
    ))
}

fn index_names(table: &Table) -> Vec<String> {
    let keys = table.constraints.iter().filter(|(_, key)| key.kind != ConstraintKind::Check).map(|(name, _)| name);
    let names: Vec<&String> = keys.chain(table.indexes.keys()).collect();
    names.iter().map(|name| beside(name)).chain(names.iter().map(|name| (*name).clone())).collect()
}

/// Tables of others that ours refer to: an empty table in their place, so that the real one gets no lock.
fn strangers(live: &Schema) -> Vec<(String, String)> {
    let mut made = Vec::new();
    for table in live.values() {
        for key in table.constraints.values() {
            let Some(parent) = key.references.as_ref().filter(|parent| !live.contains_key(*parent)) else { continue };
            if made.iter().any(|(other, _)| other == parent) {
                continue;
            }
            let of = |column: &String| table.columns.get(column).map_or("uuid", |column| column.type_name.as_str());
            let columns: Vec<String> = key
                .columns
                .iter()
                .zip(&key.referenced_columns)
                .map(|(own, referenced)| format!("{} {}", name(referenced), of(own)))
                .collect();
            let unique: Vec<String> = key.referenced_columns.iter().map(|column| name(column)).collect();
            let sql = format!(
                "CREATE TABLE public.{} ({}, UNIQUE ({}))",
                name(parent),
                columns.join(", "),
                unique.join(", ")
            );
            made.push((parent.clone(), sql));
        }
    }
    made
}

/// Sequences, tables, keys, foreign keys, then indexes and triggers.
fn statements(live: &Schema) -> Vec<String> {
    let mut statements = Vec::new();
    let ordinary = || live.iter().filter(|(_, shape)| shape.kind == "table");
    let sequences = || ordinary().flat_map(|(table, shape)| shape.sequences.iter().map(move |each| (table, each)));
    statements.extend(sequences().map(|(_, (sequence, shape))| create_sequence(sequence, shape)));
    for (table, shape) in ordinary() {
        let columns: Vec<String> = shape
            .columns
            .iter()
            .map(|(column, shape)| format!("{} {}", name(column), describe_column(shape)))
            .collect();
        let unlogged = if shape.logged { "" } else { "UNLOGGED " };
        statements.push(format!("CREATE {unlogged}TABLE public.{} ({})", name(table), columns.join(", ")));
    }
    let is_reference = |constraint: &Constraint| constraint.kind == ConstraintKind::ForeignKey;
    for references in [false, true] {
        for (table, shape) in ordinary() {
            for (constraint, shape) in shape.constraints.iter().filter(|(_, c)| is_reference(c) == references) {
                let not_valid = match shape.kind {
                    ConstraintKind::Check | ConstraintKind::ForeignKey if !shape.valid => " NOT VALID",
                    _ => "",
                };
                statements.push(format!(
                    "ALTER TABLE public.{} ADD CONSTRAINT {} {}{not_valid}",
                    name(table),
                    name(constraint),
                    shape.definition
                ));
            }
        }
    }
    let owned = sequences().filter(|(_, (_, shape))| shape.owned_by.is_some());
    statements.extend(owned.map(|(table, (sequence, shape))| own_sequence(sequence, table, shape.owned_by.as_deref())));
    for (_, shape) in ordinary() {
        statements.extend(shape.functions.values().cloned());
        statements.extend(shape.indexes.values().map(|index| index.definition.clone()));
        let enabled = shape.triggers.values().filter(|trigger| !trigger.contains(" -- "));
        statements.extend(enabled.cloned());
    }
    statements
}
