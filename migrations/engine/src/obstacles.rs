//! Objects that are in the way of a run: taken names, dependents of what must be replaced, inheritance, rules. The catalog
//! tells all of it before anything is changed; [`crate::rights`] tells what the role may not do.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::blockers::{Blocker, blocker, plain};
use crate::diff::{Difference, Guard, Leave};
use crate::error::EngineError;
use crate::repair::{Step, beside, name, table as qualified};
use crate::report::{Kind, Problem};
use crate::schema::{ConstraintKind, Schema};
use crate::scope::Scope;
use crate::set::MigrationSet;
use crate::{ledger, locks};

/// A dependent object of `pg_depend d` in words, and the statement that drops it; a view is known by its rule.
const DEPENDENT: &str = "
    CASE WHEN o.type = 'rule' AND o.identity LIKE '\"_RETURN\" on %'
        THEN 'view ' || substr(o.identity, 14) ELSE o.type || ' ' || o.identity END,
    CASE WHEN o.type = 'rule' AND o.identity LIKE '\"_RETURN\" on %'
        THEN 'DROP ' || (SELECT CASE c.relkind WHEN 'm' THEN 'MATERIALIZED ' ELSE '' END FROM pg_catalog.pg_rewrite w
            JOIN pg_catalog.pg_class c ON c.oid = w.ev_class WHERE w.oid = d.objid) || 'VIEW ' || substr(o.identity, 14)
        WHEN o.type = 'default value' THEN (SELECT 'ALTER TABLE ' || g.adrelid::pg_catalog.regclass || ' DROP COLUMN '
            || pg_catalog.quote_ident(n.attname) FROM pg_catalog.pg_attrdef g
            JOIN pg_catalog.pg_attribute n ON n.attrelid = g.adrelid AND n.attnum = g.adnum WHERE g.oid = d.objid)
        ELSE 'DROP ' || upper(o.type) || ' ' || o.identity END || ';'";

/// What is in the way of any change, whatever differs.
///
/// # Errors
/// Any database error.
pub(crate) async fn standing(scope: Scope<'_>, set: &MigrationSet, live: &Schema) -> Result<Vec<Blocker>, EngineError> {
    let client = scope.client;
    let mut found = Vec::new();
    for table in live.keys() {
        found.extend(inheritance(client, table).await?);
        found.extend(rules(client, table).await?);
    }
    for (table, columns) in ledger::SHAPES {
        if ledger::there(scope, table).await? && !ledger::writable(scope, table, columns).await? {
            found.push(plain(
                table,
                format!("public.{table} is not the table that the engine keeps its ledger in"),
                format!("ALTER TABLE public.{table} RENAME TO {table}_of_somebody_else;"),
            ));
        }
    }
    for (table, wanted) in &set.expected.tables {
        if live.contains_key(table) {
            continue;
        }
        found.extend(type_of_name(client, table).await?);
        let keys = wanted.constraints.iter().filter(|(_, key)| has_index(key.kind)).map(|(key, _)| key);
        for relation in std::iter::once(table).chain(keys).chain(wanted.indexes.keys()) {
            found.extend(taken(client, table, relation, None).await?);
        }
        for sequence in wanted.sequences.keys() {
            found.extend(sequence_taken(client, table, sequence, None).await?);
        }
    }
    Ok(found)
}

/// What is in the way of one difference's fix.
///
/// # Errors
/// Any database error.
pub(crate) async fn of_fix(
    scope: Scope<'_>,
    difference: &Difference,
    live: &Schema,
    leave: &Leave,
) -> Result<Vec<Blocker>, EngineError> {
    let client = scope.client;
    let mut found = Vec::new();
    if difference.fix.is_some() && !matches!(difference.guard, Some(Guard::Never { .. })) {
        found.extend(name_taken(client, difference).await?);
        if difference.drift.kind == Kind::Sequence && difference.drift.problem == Problem::Missing {
            let (table, sequence) = (&difference.drift.table, &difference.drift.object);
            found.extend(sequence_taken(client, table, sequence, Some(difference)).await?);
        }
        found.extend(dependent_keys(client, difference).await?);
        found.extend(dependents_of_constraint(client, difference).await?);
        found.extend(dependents_of_column(client, difference).await?);
        if !leave.may_block {
            found.extend(rewrite(scope, difference, live).await?);
        }
    }
    Ok(found)
}

/// A table up to this size is written anew within about a second.
const REWRITTEN_AT_ONCE: i64 = 64 * 1024 * 1024;

/// A fix that writes a large table anew makes everybody wait for minutes: not while others work.
async fn rewrite(scope: Scope<'_>, difference: &Difference, live: &Schema) -> Result<Option<Blocker>, EngineError> {
    let Some(fix) = &difference.fix else { return Ok(None) };
    let statements = fix.steps.iter().flat_map(Step::statements);
    if !statements.into_iter().any(|sql| locks::effect(sql, live).rewrites) {
        return Ok(None);
    }
    let sql = "SELECT coalesce(pg_catalog.pg_table_size(pg_catalog.to_regclass($1)), 0), \
        pg_catalog.pg_size_pretty(pg_catalog.pg_table_size(pg_catalog.to_regclass($1)))";
    let row = scope.query_one(sql, &[(&qualified(&difference.drift.table), Type::TEXT)]).await?;
    if row.try_get::<_, i64>(0)? <= REWRITTEN_AT_ONCE {
        return Ok(None);
    }
    let size: String = row.try_get(1)?;
    let reason = format!(
        "the repair writes {} anew ({size}), and nobody can read or write it meanwhile",
        difference.drift.table
    );
    let resolve = "run `migrate repair --apply` at a time when the service may stand still, then this command again";
    Ok(Some(blocker(difference, reason, 0, Vec::new(), resolve.to_owned())))
}

fn has_index(kind: ConstraintKind) -> bool {
    matches!(kind, ConstraintKind::PrimaryKey | ConstraintKind::Unique | ConstraintKind::Exclusion)
}

/// A change of a parent reaches its children, which are not ours; a child cannot be changed on its own.
async fn inheritance(client: &Client, table: &str) -> Result<Vec<Blocker>, EngineError> {
    let rows = client
        .query(
            "SELECT inhrelid::pg_catalog.regclass::text, inhparent::pg_catalog.regclass::text, c.relispartition
             FROM pg_catalog.pg_inherits JOIN pg_catalog.pg_class c ON c.oid = inhrelid
             WHERE c.relkind IN ('r', 'f') AND pg_catalog.to_regclass($1) IN (inhrelid, inhparent)
                AND (SELECT relkind FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass($1)) = 'r'",
            &[&qualified(table)],
        )
        .await?;
    let mut found = Vec::new();
    for row in &rows {
        let (child, parent): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let resolve = if row.try_get(2)? {
            format!("ALTER TABLE {parent} DETACH PARTITION {child};")
        } else {
            format!("ALTER TABLE {child} NO INHERIT {parent};")
        };
        found.push(plain(table, format!("{child} inherits from {parent}, so neither can be changed alone"), resolve));
    }
    Ok(found)
}

/// A rule that does something else INSTEAD swallows what the migrations write, and with any rule on INSERT or UPDATE
/// PostgreSQL refuses ON CONFLICT.
async fn rules(client: &Client, table: &str) -> Result<Vec<Blocker>, EngineError> {
    let target = qualified(table);
    let rows = client
        .query(
            "SELECT pg_catalog.quote_ident(rulename), is_instead FROM pg_catalog.pg_rewrite
             WHERE ev_class = pg_catalog.to_regclass($1) AND ev_type <> '1' AND ev_enabled <> 'D'
                AND (is_instead OR ev_type IN ('2', '3'))",
            &[&target],
        )
        .await?;
    let mut found = Vec::new();
    for row in &rows {
        let rule: String = row.try_get(0)?;
        found.push(if row.try_get(1)? {
            let resolve = format!("ALTER TABLE {target} DISABLE RULE {rule};");
            plain(table, format!("rule {rule} on {table} does something else instead of a write"), resolve)
        } else {
            let resolve =
                format!("DROP RULE {rule} ON {target}; -- keep its definition, and create it again afterwards");
            plain(table, format!("rule {rule} on {table} forbids writes with ON CONFLICT"), resolve)
        });
    }
    Ok(found)
}

/// A table takes a type of its name too.
async fn type_of_name(client: &Client, table: &str) -> Result<Option<Blocker>, EngineError> {
    let row = client
        .query_opt(
            "SELECT FROM pg_catalog.pg_type WHERE typnamespace = pg_catalog.to_regnamespace('public') AND typname = $1
                AND typrelid = 0 AND typcategory <> 'A'",
            &[&table],
        )
        .await?;
    let target = qualified(table);
    Ok(row.map(|_| {
        let resolve = format!("ALTER TYPE {target} RENAME TO {};", name(&format!("{table}_type")));
        plain(table, format!("the name {table} is taken by a type"), resolve)
    }))
}

async fn name_taken(client: &Client, difference: &Difference) -> Result<Option<Blocker>, EngineError> {
    let drift = &difference.drift;
    if !matches!(drift.problem, Problem::Missing | Problem::Different)
        || !matches!(drift.kind, Kind::Index | Kind::Constraint)
    {
        return Ok(None);
    }
    // Only constraints that are backed by an index take a relation's name.
    let relational = drift.kind == Kind::Index
        || drift.expected.as_deref().is_some_and(|text| text.starts_with("PRIMARY") || text.starts_with("UNIQUE"));
    if !relational {
        return Ok(None);
    }
    let repair = drift.repair.as_deref().unwrap_or_default();
    for relation in [drift.object.clone(), beside(&drift.object)] {
        if relation == drift.object || repair.contains(&name(&relation)) {
            let found = taken(client, &drift.table, &relation, Some(difference)).await?;
            if found.is_some() {
                return Ok(found);
            }
        }
    }
    Ok(None)
}

/// Whether something that is not an index of `table` has the name `relation` in `public`.
async fn taken(
    client: &Client,
    table: &str,
    relation: &str,
    difference: Option<&Difference>,
) -> Result<Option<Blocker>, EngineError> {
    let row = client
        .query_opt(
            "SELECT pg_catalog.pg_describe_object('pg_catalog.pg_class'::pg_catalog.regclass, c.oid, 0), c.relkind::text
             FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
             WHERE c.relnamespace = pg_catalog.to_regnamespace('public') AND c.relname = $1
                AND i.indrelid IS DISTINCT FROM pg_catalog.to_regclass($2)::oid",
            &[&relation, &qualified(table)],
        )
        .await?;
    row.map(|row| named_already(&row, table, relation, difference)).transpose()
}

/// Whether something that is not a sequence of `table`, or free to become one, has the name `sequence` in `public`.
async fn sequence_taken(
    client: &Client,
    table: &str,
    sequence: &str,
    difference: Option<&Difference>,
) -> Result<Option<Blocker>, EngineError> {
    let row = client
        .query_opt(
            "SELECT pg_catalog.pg_describe_object('pg_catalog.pg_class'::pg_catalog.regclass, c.oid, 0), c.relkind::text
             FROM pg_catalog.pg_class c
             WHERE c.relnamespace = pg_catalog.to_regnamespace('public') AND c.relname = $1 AND (c.relkind <> 'S'
                OR EXISTS (SELECT FROM pg_catalog.pg_depend d
                    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i')
                        AND d.refobjid IS DISTINCT FROM pg_catalog.to_regclass($2)::oid)
                OR EXISTS (SELECT FROM pg_catalog.pg_attrdef f
                    JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = f.oid
                    WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = c.oid
                        AND f.adrelid IS DISTINCT FROM pg_catalog.to_regclass($2)::oid))",
            &[&sequence, &qualified(table)],
        )
        .await?;
    row.map(|row| named_already(&row, table, sequence, difference)).transpose()
}

fn named_already(
    row: &tokio_postgres::Row,
    table: &str,
    relation: &str,
    difference: Option<&Difference>,
) -> Result<Blocker, EngineError> {
    let kind = match row.try_get(1)? {
        "v" => "VIEW",
        "m" => "MATERIALIZED VIEW",
        "S" => "SEQUENCE",
        "i" | "I" => "INDEX",
        "c" => "TYPE",
        "f" => "FOREIGN TABLE",
        _ => "TABLE",
    };
    let reason = format!("the name {relation} is taken by {}", row.try_get::<_, String>(0)?);
    let resolve =
        format!("ALTER {kind} {} RENAME TO {};", qualified(relation), name(&beside(&format!("{relation}_of_others"))));
    Ok(match difference {
        Some(difference) => blocker(difference, reason, 0, Vec::new(), resolve),
        None => Blocker { object: relation.to_owned(), ..plain(table, reason, resolve) },
    })
}

/// Foreign keys of other tables that hang on a key or unique index which would be replaced or dropped.
async fn dependent_keys(client: &Client, difference: &Difference) -> Result<Option<Blocker>, EngineError> {
    let drift = &difference.drift;
    // A primary key may be replaced under another name: every key of the table that the repair drops counts.
    let rows = client
        .query(
            "SELECT f.conrelid::pg_catalog.regclass::text, f.conname::text
             FROM pg_catalog.pg_constraint f
             JOIN pg_catalog.pg_class x ON x.oid = f.conindid
             WHERE f.contype = 'f' AND f.confrelid = pg_catalog.to_regclass($1)
                AND (pg_catalog.strpos($2, 'DROP CONSTRAINT ' || pg_catalog.quote_ident(x.relname) || ';') > 0
                    OR pg_catalog.strpos($2, 'DROP INDEX CONCURRENTLY IF EXISTS public.' || pg_catalog.quote_ident(x.relname) || ';') > 0
                    OR pg_catalog.strpos($2, 'DROP INDEX public.' || pg_catalog.quote_ident(x.relname) || ';') > 0)",
            &[&qualified(&drift.table), &drift.repair.clone().unwrap_or_default()],
        )
        .await?;
    let dependents: Vec<(String, String)> =
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, tokio_postgres::Error>>()?;
    if dependents.is_empty() {
        return Ok(None);
    }
    let drops: Vec<String> =
        dependents.iter().map(|(table, key)| format!("ALTER TABLE {table} DROP CONSTRAINT {};", name(key))).collect();
    let names: Vec<String> = dependents.into_iter().map(|(table, key)| format!("{table}.{key}")).collect();
    let reason = format!("foreign keys depend on the key that must change: {}", names.join(", "));
    Ok(Some(blocker(difference, reason, 0, Vec::new(), drops.join(" "))))
}

/// Views that group by a primary key depend on it.
async fn dependents_of_constraint(client: &Client, difference: &Difference) -> Result<Option<Blocker>, EngineError> {
    let drift = &difference.drift;
    let rows = client
        .query(
            &format!("SELECT DISTINCT {DEPENDENT}
             FROM pg_catalog.pg_constraint k
             JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND d.refobjid = k.oid
             CROSS JOIN LATERAL pg_catalog.pg_identify_object(d.classid, d.objid, d.objsubid) o
             WHERE k.conrelid = pg_catalog.to_regclass($1) AND d.deptype = 'n'
                AND d.classid IN ('pg_catalog.pg_rewrite'::pg_catalog.regclass, 'pg_catalog.pg_proc'::pg_catalog.regclass)
                AND pg_catalog.strpos($2, 'DROP CONSTRAINT ' || pg_catalog.quote_ident(k.conname) || ';') > 0"),
            &[&qualified(&drift.table), &drift.repair.clone().unwrap_or_default()],
        )
        .await?;
    dependents(difference, &rows, "depend on the constraint that must change")
}

/// Views, rules, triggers, policies, generated columns and functions that use a column whose type must change; for an
/// enum also indexes whose expression or condition compares it: as a plain key it converts like the column.
async fn dependents_of_column(client: &Client, difference: &Difference) -> Result<Option<Blocker>, EngineError> {
    let drift = &difference.drift;
    let retyped = drift.kind == Kind::Column && drift.repair.as_ref().is_some_and(|sql| sql.contains(" TYPE "));
    if !retyped {
        return Ok(None);
    }
    let rows = client
        .query(
            &format!("SELECT DISTINCT {DEPENDENT}
             FROM pg_catalog.pg_depend d
             JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
             JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
             CROSS JOIN LATERAL pg_catalog.pg_identify_object(d.classid, d.objid, d.objsubid) o
             WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                AND d.refobjid = pg_catalog.to_regclass($1) AND a.attname = $2
                AND (d.classid IN ('pg_catalog.pg_rewrite'::pg_catalog.regclass, 'pg_catalog.pg_trigger'::pg_catalog.regclass,
                        'pg_catalog.pg_policy'::pg_catalog.regclass, 'pg_catalog.pg_proc'::pg_catalog.regclass,
                        'pg_catalog.pg_publication_rel'::pg_catalog.regclass)
                    OR (d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND EXISTS (
                        SELECT FROM pg_catalog.pg_attrdef g WHERE g.oid = d.objid AND g.adnum <> a.attnum))
                    OR (d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objsubid > 0 AND d.objid = d.refobjid)
                    OR (t.typtype = 'e' AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND EXISTS (
                        SELECT FROM pg_catalog.pg_index i WHERE i.indexrelid = d.objid
                            AND pg_catalog.concat_ws(' ', pg_catalog.pg_get_expr(i.indpred, i.indrelid),
                                pg_catalog.pg_get_expr(i.indexprs, i.indrelid)) ~ ('(^|[^[:alnum:]_])' || pg_catalog.regexp_replace(
                                pg_catalog.quote_ident(a.attname), '([^[:alnum:]_])', '\\\\\\1', 'g') || '($|[^[:alnum:]_])'))))"),
            &[&qualified(&drift.table), &drift.object],
        )
        .await?;
    dependents(difference, &rows, "use the column whose type must change")
}

fn dependents(
    difference: &Difference,
    rows: &[tokio_postgres::Row],
    how: &str,
) -> Result<Option<Blocker>, EngineError> {
    let names: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    let drops: Vec<String> = rows.iter().map(|row| row.try_get(1)).collect::<Result<_, _>>()?;
    if names.is_empty() {
        return Ok(None);
    }
    let reason = format!("these {how}: {}", names.join(", "));
    let resolve = format!("{} -- keep their definitions, and create them again afterwards", drops.join(" "));
    Ok(Some(blocker(difference, reason, 0, Vec::new(), resolve)))
}
