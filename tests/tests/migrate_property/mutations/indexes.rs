//! Indexes that are dropped, renamed, of another shape, INVALID, or of others.

use migration_engine::Index;
use tests::Random;

use super::{How, Mutation, Propose, View, new_name, quoted};

pub(super) const KINDS: &[(&str, Propose)] = &[
    ("index dropped", dropped),
    ("index renamed", renamed),
    ("index names swapped", swapped),
    ("index of another shape", other_shape),
    ("index of another shape", other_shape),
    ("index build interrupted", interrupted),
    ("index build interrupted", interrupted),
    ("unique index build failed", failed),
    ("leftover of a rebuild", leftover),
    ("extra index", extra),
    ("extra unique index", extra_unique),
];

struct Found<'a> {
    table: &'a str,
    name: &'a str,
    index: &'a Index,
}

fn live<'a>(random: &mut Random, view: &'a View) -> Option<Found<'a>> {
    let mut found = Vec::new();
    for (table, shape) in view.live.iter().filter(|(_, shape)| shape.kind == "table") {
        found.extend(shape.indexes.iter().map(|(name, index)| Found { table, name, index }));
    }
    let at = if found.is_empty() { return None } else { random.below(found.len()) };
    Some(found.swap_remove(at))
}

/// An index that should be there, on a table that is there.
fn expected<'a>(random: &mut Random, view: &'a View) -> Option<Found<'a>> {
    let mut found = Vec::new();
    for (table, shape) in
        view.expected.iter().filter(|(table, _)| view.live.get(*table).is_some_and(|t| t.kind == "table"))
    {
        found.extend(shape.indexes.iter().map(|(name, index)| Found { table, name, index }));
    }
    let at = if found.is_empty() { return None } else { random.below(found.len()) };
    Some(found.swap_remove(at))
}

fn dropped(random: &mut Random, view: &View) -> Option<Mutation> {
    let found = live(random, view)?;
    Some(Mutation::new(format!("DROP INDEX {}", quoted(found.name))))
}

fn renamed(random: &mut Random, view: &View) -> Option<Mutation> {
    let found = live(random, view)?;
    Some(Mutation::new(format!(
        "ALTER INDEX {} RENAME TO {}",
        quoted(found.name),
        quoted(&new_name(random, found.name))
    )))
}

fn swapped(random: &mut Random, view: &View) -> Option<Mutation> {
    let first = live(random, view)?;
    let others: Vec<&String> = view.live[first.table].indexes.keys().filter(|name| *name != first.name).collect();
    let second = random.pick(&others)?;
    let rename = |from: &str, to: &str| format!("ALTER INDEX {} RENAME TO {}", quoted(from), quoted(to));
    let sql = [rename(first.name, "between"), rename(second, first.name), rename("between", second)].join("; ");
    Some(Mutation::new(sql))
}

/// The right name over the wrong thing: `IF NOT EXISTS` takes it for the index.
fn other_shape(random: &mut Random, view: &View) -> Option<Mutation> {
    let found = expected(random, view)?;
    let columns: Vec<&String> = view.live[found.table].columns.keys().collect();
    let (first, second) = (quoted(random.pick(&columns)?), quoted(random.pick(&columns)?));
    let shapes = [
        format!("({first})"),
        format!("({first} DESC)"),
        format!("({first}, {second})"),
        format!("({first}) INCLUDE ({second})"),
        format!("({first}) WHERE {second} IS NOT NULL"),
        format!("(({first} IS NULL))"),
        format!("({first}) WITH (fillfactor = 70)"),
    ];
    let unique = if found.index.unique && random.chance(30) { "UNIQUE " } else { "" };
    let (name, shape) = (quoted(found.name), &shapes[random.below(shapes.len())]);
    Some(Mutation::new(format!("DROP INDEX IF EXISTS {name}; CREATE {unique}INDEX {name} ON {} {shape}", found.table)))
}

/// INVALID, by a build that was cancelled while it waited for a writer.
fn interrupted(random: &mut Random, view: &View) -> Option<Mutation> {
    let found = expected(random, view)?;
    let build = found.index.definition.replacen(" INDEX ", " INDEX CONCURRENTLY ", 1);
    let sql = format!("DROP INDEX IF EXISTS {};\n{build}", quoted(found.name));
    Some(Mutation { table: found.table.to_owned(), ..Mutation::new(sql).how(How::Interrupted) })
}

/// INVALID, by rows that repeat; sometimes they are still there. Only keys of accounts can repeat without a key in the way.
fn failed(random: &mut Random, view: &View) -> Option<Mutation> {
    let columns = &view.live.get("users")?.columns;
    let column = ["email_key", "username_key"][random.below(2)];
    columns.get(column)?;
    let stay = random.chance(40);
    let mend =
        if stay { String::new() } else { format!(";\nUPDATE users SET {column} = NULL WHERE {column} = 'twice'") };
    let sql = format!(
        "DROP INDEX IF EXISTS users_{column}_key;\nUPDATE users SET {column} = 'twice' WHERE ctid IN (SELECT ctid FROM users LIMIT 2);\n\
         CREATE UNIQUE INDEX CONCURRENTLY users_{column}_key ON users ({column}){mend}"
    );
    Some(Mutation::new(sql).how(How::Alone).may_refuse(stay))
}

/// What a killed REINDEX CONCURRENTLY leaves, and the engine's own temporary names.
fn leftover(random: &mut Random, view: &View) -> Option<Mutation> {
    let found = expected(random, view)?;
    let mut names: Vec<&str> = vec![found.name];
    names.extend(view.expected[found.table].constraints.keys().map(String::as_str));
    let name = format!("{}{}", random.pick(&names)?, ["_ccnew", "_ccold", "_ccnew1", "__new"][random.below(4)]);
    // A build over a constant fails as soon as there are two rows.
    let sql = format!("CREATE UNIQUE INDEX CONCURRENTLY {} ON {} ((1))", quoted(&name), found.table);
    Some(Mutation::new(sql).how(How::Alone))
}

fn extra(random: &mut Random, view: &View) -> Option<Mutation> {
    let (table, shape) = view.table(random)?;
    let columns: Vec<&String> = shape.columns.keys().collect();
    let (column, name) = (quoted(random.pick(&columns)?), new_name(random, "extra_index"));
    let shape =
        [format!("({column})"), format!("USING hash ({column})"), format!("({column}) WHERE {column} IS NOT NULL")];
    Some(Mutation::new(format!("CREATE INDEX {name} ON {table} {}", shape[random.below(shape.len())])))
}

/// Fails where rows repeat.
fn extra_unique(random: &mut Random, view: &View) -> Option<Mutation> {
    let (table, shape) = view.table(random)?;
    let columns: Vec<&String> = shape.columns.keys().collect();
    let (column, name) = (quoted(random.pick(&columns)?), new_name(random, "extra_unique"));
    let shape = [format!("({column})"), format!("({column} DESC)"), format!("({column}) WHERE {column} IS NOT NULL")];
    Some(Mutation::new(format!("CREATE UNIQUE INDEX {name} ON {table} {}", shape[random.below(shape.len())])))
}
