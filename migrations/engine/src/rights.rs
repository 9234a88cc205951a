//! What this role may not do: a read-only session, no right to make tables, objects of other owners. Asked before anything
//! else, as without rights the other questions cannot be asked.

use tokio_postgres::Client;

use crate::blockers::{Blocker, plain};
use crate::error::EngineError;
use crate::repair::table as qualified;
use crate::schema::{Schema, Table};
use crate::{history, ledger};

/// What this session may not do.
///
/// # Errors
/// Any database error.
pub(crate) async fn missing(client: &Client, live: &Schema) -> Result<Vec<Blocker>, EngineError> {
    let mut found = session_rights(client).await?;
    for (table, shape) in live {
        found.extend(owner(client, table).await?);
        found.extend(owners_beside(client, table, shape).await?);
    }
    let own = ledger::SHAPES.iter().map(|(table, _)| *table).chain([history::TABLE]);
    for table in own {
        let row = client
            .query_opt(
                "SELECT pg_catalog.quote_ident(current_user) FROM pg_catalog.pg_class
                 WHERE oid = pg_catalog.to_regclass($1) AND relkind IN ('r', 'p') AND NOT (
                    pg_catalog.has_table_privilege(oid, 'SELECT') AND pg_catalog.has_table_privilege(oid, 'INSERT')
                    AND pg_catalog.has_table_privilege(oid, 'UPDATE'))",
                &[&qualified(table)],
            )
            .await?;
        if let Some(row) = row {
            let user: String = row.try_get(0)?;
            let resolve = format!("ALTER TABLE {} OWNER TO {user};", qualified(table));
            found.push(plain(table, format!("{user} may not write table {table}"), resolve));
        }
    }
    Ok(found)
}

/// Whether this session may write and make tables at all. A standby is not told here: failover may end that.
async fn session_rights(client: &Client) -> Result<Vec<Blocker>, EngineError> {
    let row = client
        .query_one(
            "SELECT pg_catalog.current_setting('transaction_read_only') = 'on' AND NOT pg_catalog.pg_is_in_recovery(),
                pg_catalog.to_regnamespace('public') IS NOT NULL,
                coalesce(pg_catalog.has_schema_privilege(pg_catalog.to_regnamespace('public')::oid, 'CREATE'), false),
                pg_catalog.quote_ident(current_user), pg_catalog.quote_ident(pg_catalog.current_database())",
            &[],
        )
        .await?;
    let (user, database): (String, String) = (row.try_get(3)?, row.try_get(4)?);
    let mut found = Vec::new();
    if row.try_get(0)? {
        found.push(plain(
            "public",
            "the session is read-only (default_transaction_read_only)".to_owned(),
            format!(
                "ALTER ROLE {user} RESET default_transaction_read_only; ALTER DATABASE {database} RESET default_transaction_read_only;"
            ),
        ));
    }
    if !row.try_get::<_, bool>(1)? {
        let resolve = format!("CREATE SCHEMA public; GRANT USAGE, CREATE ON SCHEMA public TO {user};");
        found.push(plain("public", "the database has no schema public".to_owned(), resolve));
    } else if !row.try_get::<_, bool>(2)? {
        let resolve = format!("GRANT USAGE, CREATE ON SCHEMA public TO {user};");
        found.push(plain("public", format!("role {user} may not make tables in schema public"), resolve));
    }
    Ok(found)
}

async fn owner(client: &Client, table: &str) -> Result<Option<Blocker>, EngineError> {
    let row = client
        .query_one(
            "SELECT pg_catalog.pg_has_role(relowner, 'USAGE'), pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(relowner)),
                pg_catalog.quote_ident(current_user)
             FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass($1)",
            &[&qualified(table)],
        )
        .await?;
    if row.try_get(0)? {
        return Ok(None);
    }
    let (owner, user): (String, String) = (row.try_get(1)?, row.try_get(2)?);
    let resolve = format!("ALTER TABLE {} OWNER TO {user}; -- or GRANT {owner} TO {user};", qualified(table));
    Ok(Some(plain(table, format!("{table} belongs to role {owner}, and {user} may not change it"), resolve)))
}

/// Functions and sequences that stand alone may belong to another role than their table; what is tied to it may not.
async fn owners_beside(client: &Client, table: &str, shape: &Table) -> Result<Vec<Blocker>, EngineError> {
    let functions: Vec<&String> = shape.functions.keys().collect();
    let sequences: Vec<&String> = shape.sequences.keys().collect();
    if functions.is_empty() && sequences.is_empty() {
        return Ok(Vec::new());
    }
    let rows = client
        .query(
            "SELECT o.kind, o.name, pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(o.owner)), pg_catalog.quote_ident(current_user)
             FROM (SELECT 'FUNCTION' AS kind, f.proname::text AS name, f.proowner AS owner FROM pg_catalog.pg_proc f
                   WHERE f.pronamespace = pg_catalog.to_regnamespace('public') AND f.proname = ANY ($1) AND f.pronargs = 0
                   UNION ALL
                   SELECT 'SEQUENCE', s.relname::text, s.relowner FROM pg_catalog.pg_class s
                   WHERE s.relnamespace = pg_catalog.to_regnamespace('public') AND s.relname = ANY ($2) AND s.relkind = 'S') AS o
             WHERE NOT pg_catalog.pg_has_role(o.owner, 'USAGE')",
            &[&functions, &sequences],
        )
        .await?;
    let mut found = Vec::new();
    for row in &rows {
        let (kind, object): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let (owner, user): (String, String) = (row.try_get(2)?, row.try_get(3)?);
        let of_call = if kind == "FUNCTION" { "()" } else { "" };
        let resolve =
            format!("ALTER {kind} {}{of_call} OWNER TO {user}; -- or GRANT {owner} TO {user};", qualified(&object));
        let reason = format!("{} {object} belongs to role {owner}, and {user} may not change it", kind.to_lowercase());
        found.push(Blocker { object, ..plain(table, reason, resolve) });
    }
    Ok(found)
}
