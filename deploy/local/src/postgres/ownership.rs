//! Gives everything in schema `public` of a restored database to the migrator, whoever owned it before.

use super::PostgresError;
use super::databases::{DatabaseRoles, ServerAddress, connect, execute, quote_identifier};

/// Every ownable object of schema public that belongs to no extension; owned sequences and row types follow their table.
/// Composite types stand in pg_class as kind 'c' and are altered through pg_type.
const OBJECTS: &str = "
WITH extension_member AS (SELECT classid, objid FROM pg_depend WHERE deptype = 'e'),
objects AS (
    SELECT 1 AS step, 'pg_class'::regclass AS catalog, c.oid,
           format('ALTER %s %I.%I OWNER TO', CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
                  WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END, n.nspname, c.relname) AS command
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i') AND c.relkind = 'S')
    UNION ALL
    SELECT 2, 'pg_proc'::regclass, p.oid, format('ALTER ROUTINE %s OWNER TO', p.oid::regprocedure)
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'public'
    UNION ALL
    SELECT 3, 'pg_type'::regclass, t.oid, format('ALTER %s %s OWNER TO', CASE t.typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END, t.oid::regtype)
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid
    WHERE n.nspname = 'public' AND (t.typtype IN ('d', 'e', 'r') OR c.relkind = 'c')
)
SELECT command FROM objects o WHERE NOT EXISTS (SELECT FROM extension_member m WHERE m.classid = o.catalog AND m.objid = o.oid) ORDER BY step, oid";

/// Reassigns everything in `public` of `database` to the migrator and renews the grants.
///
/// # Errors
/// A statement failed; nothing is changed then.
pub async fn database_adopt(
    server: &ServerAddress,
    database: &str,
    roles: &DatabaseRoles,
) -> Result<(), PostgresError> {
    let client = connect(&server.superuser_url(database)).await?;
    let rows = client.query(OBJECTS, &[]).await.map_err(|e| PostgresError::sql("reading what the dump made", &e))?;
    let owner = quote_identifier(&roles.migrator.name);
    let mut sql = String::from("BEGIN;\n");
    for row in rows {
        let command: String = row.get(0);
        sql.push_str(&format!("{command} {owner};\n"));
    }
    sql.push_str("COMMIT;");
    execute(&client, "giving the restored tables to the migrator", &sql).await?;
    super::database_grant(server, database, roles).await
}
