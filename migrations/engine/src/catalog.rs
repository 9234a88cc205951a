//! Reads the live schema of named tables in `public` from the catalog, in one read-only snapshot.
//!
//! The search path is empty while it reads, so that every text form is qualified and comparable.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use crate::schema::{Column, Constraint, ConstraintKind, Index, Schema, Sequence, Table};
use crate::scope::Scope;

const TABLES: &str = "
SELECT c.relname::text, c.relkind::text, c.relpersistence::text, c.relrowsecurity
FROM pg_catalog.pg_class c
WHERE c.relnamespace = pg_catalog.to_regnamespace('public') AND c.relname = ANY ($1)
    AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c')";

const COLUMNS: &str = "
SELECT c.relname::text, a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), NOT a.attnotnull,
    pg_catalog.pg_get_expr(d.adbin, d.adrelid), a.attidentity::text, a.attgenerated::text,
    CASE WHEN a.attcollation <> t.typcollation THEN a.attcollation::pg_catalog.regcollation::text END, t.typtype::text
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = pg_catalog.to_regnamespace('public') AND c.relname = ANY ($1)
    AND c.relkind IN ('r', 'p', 'v', 'm', 'f')";

// contype 'n' (NOT NULL rows of PostgreSQL 18) is told by the column, 't' is a trigger.
const CONSTRAINTS: &str = "
SELECT c.relname::text, k.conname::text, k.contype::text, pg_catalog.pg_get_constraintdef(k.oid),
    k.convalidated AND coalesce(i.indisvalid AND i.indisready, true),
    (SELECT coalesce(pg_catalog.array_agg(a.attname::text ORDER BY n.place), '{}')
     FROM pg_catalog.unnest(k.conkey) WITH ORDINALITY AS n (attnum, place)
     JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = n.attnum),
    CASE WHEN k.contype = 'f' THEN k.confrelid::pg_catalog.regclass::text END,
    (SELECT coalesce(pg_catalog.array_agg(a.attname::text ORDER BY n.place), '{}')
     FROM pg_catalog.unnest(k.confkey) WITH ORDINALITY AS n (attnum, place)
     JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = n.attnum),
    NOT EXISTS (SELECT FROM pg_catalog.pg_trigger g WHERE g.tgconstraint = k.oid AND g.tgenabled = 'D')
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_constraint k ON k.conrelid = c.oid AND k.contype IN ('p', 'u', 'c', 'x', 'f')
LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = k.conindid AND k.contype IN ('p', 'u', 'x')
WHERE c.relnamespace = pg_catalog.to_regnamespace('public') AND c.relname = ANY ($1)";

// The text of an invalid index looks normal: indisvalid and indisready tell.
const INDEXES: &str = "
SELECT c.relname::text, x.relname::text, pg_catalog.pg_get_indexdef(i.indexrelid), i.indisunique,
    i.indisvalid AND i.indisready AND i.indislive,
    CASE WHEN i.indexprs IS NULL THEN
        (SELECT coalesce(pg_catalog.array_agg(a.attname::text ORDER BY n.place), '{}')
         FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS n (attnum, place)
         JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = n.attnum)
    ELSE '{}' END,
    i.indexprs IS NULL AND i.indpred IS NULL AND i.indnkeyatts = i.indnatts AND m.amname = 'btree'
        AND NOT EXISTS (SELECT FROM pg_catalog.unnest(i.indoption::int2[]) o WHERE o <> 0)
        AND NOT EXISTS (SELECT FROM pg_catalog.unnest(i.indclass::oid[]) o
                        JOIN pg_catalog.pg_opclass p ON p.oid = o WHERE NOT p.opcdefault),
    (SELECT min(e.extname::text) FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
     WHERE d.classid = 'pg_catalog.pg_opclass'::pg_catalog.regclass AND d.objid = ANY (i.indclass::oid[]) AND d.deptype = 'e'
        AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_index i ON i.indrelid = c.oid
JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
JOIN pg_catalog.pg_am m ON m.oid = x.relam
WHERE c.relnamespace = pg_catalog.to_regnamespace('public') AND c.relname = ANY ($1)
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k
                    WHERE k.conindid = i.indexrelid AND k.conrelid = c.oid AND k.contype IN ('p', 'u', 'x'))";

const TRIGGERS: &str = "
SELECT c.relname::text, g.tgname::text,
    pg_catalog.pg_get_triggerdef(g.oid) || CASE g.tgenabled WHEN 'O' THEN '' WHEN 'D' THEN ' -- disabled' ELSE ' -- enabled otherwise' END
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_trigger g ON g.tgrelid = c.oid AND NOT g.tgisinternal
WHERE c.relnamespace = pg_catalog.to_regnamespace('public') AND c.relname = ANY ($1)";

// A function of an extension belongs to the extension.
const FUNCTIONS: &str = "
SELECT DISTINCT c.relname::text, f.proname::text, pg_catalog.pg_get_functiondef(f.oid)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_trigger g ON g.tgrelid = c.oid AND NOT g.tgisinternal
JOIN pg_catalog.pg_proc f ON f.oid = g.tgfoid AND f.pronamespace = c.relnamespace
WHERE c.relnamespace = pg_catalog.to_regnamespace('public') AND c.relname = ANY ($1)
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
                    AND d.objid = f.oid AND d.deptype = 'e')";

// An owned sequence depends on its column ('a'; 'i' for an identity), a default depends on its sequence.
const SEQUENCES: &str = "
SELECT DISTINCT c.relname::text, s.relname::text,
    pg_catalog.format('AS %s INCREMENT BY %s MINVALUE %s MAXVALUE %s START WITH %s CACHE %s %s',
        pg_catalog.format_type(q.seqtypid, NULL), q.seqincrement, q.seqmin, q.seqmax, q.seqstart, q.seqcache,
        CASE WHEN q.seqcycle THEN 'CYCLE' ELSE 'NO CYCLE' END),
    (SELECT a.attname::text FROM pg_catalog.pg_depend o
     JOIN pg_catalog.pg_attribute a ON a.attrelid = o.refobjid AND a.attnum = o.refobjsubid
     WHERE o.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND o.objid = s.oid AND o.deptype = 'a'
        AND o.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND o.refobjid = c.oid)
FROM pg_catalog.pg_class c
CROSS JOIN LATERAL (
    SELECT d.objid AS oid FROM pg_catalog.pg_depend d
    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype = 'a'
        AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = c.oid
    UNION ALL
    SELECT d.refobjid FROM pg_catalog.pg_attrdef f
    JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = f.oid
    WHERE f.adrelid = c.oid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
) u
JOIN pg_catalog.pg_class s ON s.oid = u.oid AND s.relkind = 'S' AND s.relnamespace = c.relnamespace
JOIN pg_catalog.pg_sequence q ON q.seqrelid = s.oid
WHERE c.relnamespace = pg_catalog.to_regnamespace('public') AND c.relname = ANY ($1)";

/// One value that changes whenever the definition of one of the tables does, or an extension comes or goes.
const FINGERPRINT: &str = "
SELECT pg_catalog.md5(pg_catalog.concat_ws('|',
    (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(',', c.oid, c.relname, c.relkind, c.relpersistence, c.relrowsecurity), ';' ORDER BY c.oid)
     FROM pg_catalog.pg_class c WHERE c.oid = ANY (t.oids)),
    (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(',', a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod, a.attnotnull, a.atthasdef), ';' ORDER BY a.attrelid, a.attnum)
     FROM pg_catalog.pg_attribute a WHERE a.attrelid = ANY (t.oids)),
    (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(',', d.oid, d.adbin), ';' ORDER BY d.oid)
     FROM pg_catalog.pg_attrdef d WHERE d.adrelid = ANY (t.oids)),
    (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(',', k.oid, k.conname, k.convalidated), ';' ORDER BY k.oid)
     FROM pg_catalog.pg_constraint k WHERE k.conrelid = ANY (t.oids)),
    (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(',', i.indexrelid, i.indisvalid, i.indisready), ';' ORDER BY i.indexrelid)
     FROM pg_catalog.pg_index i WHERE i.indrelid = ANY (t.oids)),
    (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(',', g.oid, g.tgname, g.tgenabled), ';' ORDER BY g.oid)
     FROM pg_catalog.pg_trigger g WHERE g.tgrelid = ANY (t.oids) AND NOT g.tgisinternal),
    (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(',', f.oid, f.proname, f.prosrc), ';' ORDER BY f.oid)
     FROM pg_catalog.pg_proc f WHERE f.pronamespace = pg_catalog.to_regnamespace('public')
        AND f.prorettype = 'pg_catalog.trigger'::pg_catalog.regtype),
    (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(',', s.relname, q.*, d.refobjid, d.refobjsubid), ';' ORDER BY s.oid)
     FROM pg_catalog.pg_class s JOIN pg_catalog.pg_sequence q ON q.seqrelid = s.oid
     LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = s.oid AND d.deptype = 'a'
     WHERE s.relnamespace = pg_catalog.to_regnamespace('public')),
    (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(',', e.oid, e.extname, e.extnamespace), ';' ORDER BY e.oid)
     FROM pg_catalog.pg_extension e)))
FROM (SELECT coalesce(pg_catalog.array_agg(c.oid), '{}') AS oids FROM pg_catalog.pg_class c
      WHERE c.relnamespace = pg_catalog.to_regnamespace('public') AND c.relname = ANY ($1)) t";

/// Reads those of `tables` that exist.
///
/// # Errors
/// Any database error.
pub async fn read_schema(client: &Client, tables: &[String]) -> Result<Schema, tokio_postgres::Error> {
    let scope = Scope::public(client);
    begin_reading(scope).await?;
    let read = read_in_snapshot(scope, tables).await;
    end_reading(scope).await;
    read
}

/// Begins a transaction that only reads, with an empty search path.
pub(crate) async fn begin_reading(scope: Scope<'_>) -> Result<(), tokio_postgres::Error> {
    let begin = match scope.is_shadow() {
        true => "SAVEPOINT reading; SET LOCAL search_path = ''",
        false => {
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL search_path = ''; SET LOCAL lock_timeout = '500ms'"
        }
    };
    scope.batch(begin).await
}

/// Ends it. What it has read is there already, so an error here says nothing new.
pub(crate) async fn end_reading(scope: Scope<'_>) {
    let end = if scope.is_shadow() { "ROLLBACK TO SAVEPOINT reading; RELEASE SAVEPOINT reading" } else { "ROLLBACK" };
    if let Err(error) = scope.batch(end).await {
        tracing::debug!(%error, "the end of a reading transaction");
    }
}

/// Reads within a transaction that [`begin_reading`] has begun. One round trip: all is asked before the first answer.
pub(crate) async fn read_in_snapshot(scope: Scope<'_>, tables: &[String]) -> Result<Schema, tokio_postgres::Error> {
    let names: &[crate::scope::Typed<'_>] = &[(&tables, Type::TEXT_ARRAY)];
    let (found, columns, constraints, indexes, triggers, functions, sequences) = tokio::join!(
        scope.query(TABLES, names),
        scope.query(COLUMNS, names),
        scope.query(CONSTRAINTS, names),
        scope.query(INDEXES, names),
        scope.query(TRIGGERS, names),
        scope.query(FUNCTIONS, names),
        scope.query(SEQUENCES, names)
    );
    // In the order of the questions: the first error is the cause of the others.
    let (found, columns, constraints, indexes) = (found?, columns?, constraints?, indexes?);
    let (triggers, functions, sequences) = (triggers?, functions?, sequences?);
    let mut schema = Schema::new();
    for row in &found {
        schema.insert(row.try_get(0)?, table(row)?);
    }
    for row in &columns {
        if let Some(table) = schema.get_mut(row.try_get::<_, &str>(0)?) {
            table.columns.insert(row.try_get(1)?, column(row, scope)?);
        }
    }
    for row in &constraints {
        if let Some(table) = schema.get_mut(row.try_get::<_, &str>(0)?) {
            table.constraints.insert(row.try_get(1)?, constraint(row, scope)?);
        }
    }
    for row in &indexes {
        if let Some(table) = schema.get_mut(row.try_get::<_, &str>(0)?) {
            table.indexes.insert(row.try_get(1)?, index(row, scope)?);
        }
    }
    for row in &triggers {
        if let Some(table) = schema.get_mut(row.try_get::<_, &str>(0)?) {
            table.triggers.insert(row.try_get(1)?, scope.as_public(row.try_get(2)?));
        }
    }
    for row in &functions {
        if let Some(table) = schema.get_mut(row.try_get::<_, &str>(0)?) {
            table.functions.insert(row.try_get(1)?, scope.as_public(row.try_get(2)?));
        }
    }
    for row in &sequences {
        if let Some(table) = schema.get_mut(row.try_get::<_, &str>(0)?) {
            table.sequences.insert(row.try_get(1)?, Sequence { options: row.try_get(2)?, owned_by: row.try_get(3)? });
        }
    }
    Ok(schema)
}

/// A value that changes whenever the definition of one of `tables` does: cheap enough to ask after each statement.
pub(crate) async fn fingerprint(scope: Scope<'_>, tables: &[String]) -> Result<String, tokio_postgres::Error> {
    scope.query_one(FINGERPRINT, &[(&tables, Type::TEXT_ARRAY)]).await?.try_get(0)
}

fn table(row: &Row) -> Result<Table, tokio_postgres::Error> {
    let kind = match row.try_get(1)? {
        "r" => "table",
        "p" => "partitioned table",
        "v" => "view",
        "m" => "materialized view",
        "f" => "foreign table",
        "S" => "sequence",
        _ => "composite type",
    };
    Ok(Table {
        kind: kind.to_owned(),
        logged: row.try_get::<_, &str>(2)? == "p",
        row_security: row.try_get(3)?,
        ..Table::default()
    })
}

fn column(row: &Row, scope: Scope<'_>) -> Result<Column, tokio_postgres::Error> {
    let generated = match (row.try_get(5)?, row.try_get(6)?) {
        ("a", _) => Some("identity always"),
        ("d", _) => Some("identity by default"),
        (_, "s") => Some("stored"),
        (_, "v") => Some("virtual"),
        _ => None,
    };
    Ok(Column {
        type_name: row.try_get(2)?,
        nullable: row.try_get(3)?,
        default: row.try_get::<_, Option<String>>(4)?.map(|text| scope.as_public(text)),
        generated: generated.map(str::to_owned),
        collation: row.try_get(7)?,
        is_enum: row.try_get::<_, &str>(8)? == "e",
    })
}

fn constraint(row: &Row, scope: Scope<'_>) -> Result<Constraint, tokio_postgres::Error> {
    let kind = match row.try_get(2)? {
        "p" => ConstraintKind::PrimaryKey,
        "u" => ConstraintKind::Unique,
        "c" => ConstraintKind::Check,
        "x" => ConstraintKind::Exclusion,
        _ => ConstraintKind::ForeignKey,
    };
    let definition = scope.as_public(row.try_get(3)?);
    let references = row.try_get::<_, Option<String>>(6)?.map(|text| scope.as_public(text));
    Ok(Constraint {
        kind,
        definition: definition.trim_end_matches(" NOT VALID").to_owned(),
        // `ALTER TABLE … DISABLE TRIGGER ALL` leaves a foreign key that looks validated and checks nothing.
        valid: row.try_get::<_, bool>(4)? && row.try_get::<_, bool>(8)?,
        enforced: row.try_get(8)?,
        columns: row.try_get(5)?,
        references: references.map(|name| name.strip_prefix("public.").unwrap_or(&name).to_owned()),
        referenced_columns: row.try_get(7)?,
    })
}

fn index(row: &Row, scope: Scope<'_>) -> Result<Index, tokio_postgres::Error> {
    Ok(Index {
        definition: scope.as_public(row.try_get(2)?),
        unique: row.try_get(3)?,
        valid: row.try_get(4)?,
        columns: row.try_get(5)?,
        plain: row.try_get(6)?,
        requires: row.try_get(7)?,
    })
}
