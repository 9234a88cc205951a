//! Tables that are dropped, renamed, replaced, unlogged, hidden or hung on by others.

use tests::Random;

use super::{How, Mutation, Propose, View, new_name, quoted};

pub(super) const KINDS: &[(&str, Propose)] = &[
    ("table dropped", dropped),
    ("table emptied", emptied),
    ("table unlogged", unlogged),
    ("table renamed", renamed),
    ("view in a table's place", view_in_place),
    ("row level security", row_security),
    ("table inherited", inherited),
    ("view on a table", view_on),
    ("rule on a table", rule),
    ("trigger of others", trigger),
    ("triggers switched off", switched_off),
    ("name of ours taken", name_taken),
];

/// Whether rows of other tables should refer to it; without the foreign key they can become orphans.
pub(super) fn is_parent(view: &View, table: &str) -> bool {
    let mut keys = view.expected.values().flat_map(|table| table.constraints.values());
    keys.any(|key| key.references.as_deref() == Some(table))
}

fn dropped(random: &mut Random, view: &View) -> Option<Mutation> {
    let (table, _) = view.table(random)?;
    // Rows that refer to it become orphans.
    Some(Mutation::new(format!("DROP TABLE {table} CASCADE")).may_refuse(is_parent(view, table)))
}

fn emptied(random: &mut Random, view: &View) -> Option<Mutation> {
    let (table, _) = view.table(random)?;
    Some(Mutation::new(format!("TRUNCATE {table} CASCADE")).may_refuse(is_parent(view, table)))
}

/// A logged table may not refer to an unlogged one, so those that refer go first.
fn unlogged(random: &mut Random, view: &View) -> Option<Mutation> {
    let (table, _) = view.table(random)?;
    let mut order = vec![table.to_owned()];
    let mut at = 0;
    while at < order.len() {
        for (other, shape) in &view.live {
            let refers = shape.constraints.values().any(|key| key.references.as_deref() == Some(&order[at]));
            if refers && *other != order[at] {
                order.retain(|known| known != other);
                order.push(other.clone());
            }
        }
        at += 1;
    }
    let sql: Vec<String> = order.iter().rev().map(|table| format!("ALTER TABLE {table} SET UNLOGGED")).collect();
    Some(Mutation::new(sql.join("; ")))
}

fn renamed(random: &mut Random, view: &View) -> Option<Mutation> {
    let (table, _) = view.table(random)?;
    let other = new_name(random, table);
    Some(Mutation::new(format!("ALTER TABLE {table} RENAME TO {other}")).may_refuse(true))
}

fn view_in_place(random: &mut Random, view: &View) -> Option<Mutation> {
    let (table, _) = view.table(random)?;
    let base = new_name(random, table);
    let sql = format!("ALTER TABLE {table} RENAME TO {base}; CREATE VIEW {table} AS SELECT * FROM {base}");
    Some(Mutation::new(sql).may_refuse(true))
}

fn row_security(random: &mut Random, view: &View) -> Option<Mutation> {
    let (table, _) = view.table(random)?;
    let policy = new_name(random, "policy");
    let sql = format!("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; CREATE POLICY {policy} ON {table} USING (false)");
    Some(Mutation::new(sql).may_refuse(true))
}

fn inherited(random: &mut Random, view: &View) -> Option<Mutation> {
    let (table, _) = view.table(random)?;
    let child = new_name(random, table);
    Some(Mutation::new(format!("CREATE TABLE {child} () INHERITS ({table})")).may_refuse(true))
}

/// In the way only of a column whose type must change, or of a key by which it groups.
fn view_on(random: &mut Random, view: &View) -> Option<Mutation> {
    let (table, shape) = view.table(random)?;
    let columns: Vec<&String> = shape.columns.keys().collect();
    let (column, name) = (random.pick(&columns)?, new_name(random, "view"));
    let sql = format!("CREATE VIEW {name} AS SELECT {} FROM {table}", quoted(column));
    Some(Mutation::new(sql).may_refuse(true))
}

/// A rule that does something INSTEAD swallows writes, and one on INSERT or UPDATE forbids ON CONFLICT.
fn rule(random: &mut Random, view: &View) -> Option<Mutation> {
    let (table, _) = view.table(random)?;
    let name = new_name(random, "rule");
    let (event, instead) = (["INSERT", "UPDATE", "DELETE"][random.below(3)], random.chance(50));
    let what = if instead { "INSTEAD" } else { "ALSO" };
    let sql = format!("CREATE RULE {name} AS ON {event} TO {table} DO {what} NOTHING");
    Some(Mutation::new(sql).may_refuse(instead || event != "DELETE"))
}

/// One that disturbs nobody: it may stay.
fn trigger(random: &mut Random, view: &View) -> Option<Mutation> {
    let (table, _) = view.table(random)?;
    let name = new_name(random, "watch");
    let (time, level) = [("BEFORE", "ROW"), ("AFTER", "ROW"), ("AFTER", "STATEMENT")][random.below(3)];
    let sql = format!(
        "CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS 'begin return new; end';
         CREATE TRIGGER {name} {time} INSERT OR UPDATE ON {table} FOR EACH {level} EXECUTE FUNCTION {name}()"
    );
    Some(Mutation::new(sql))
}

/// As some load a dump, and forget to switch them on again: foreign keys are there and enforce nothing.
fn switched_off(random: &mut Random, view: &View) -> Option<Mutation> {
    let (table, shape) = view.table(random)?;
    shape.constraints.values().find(|key| key.references.is_some())?;
    Some(Mutation::new(format!("ALTER TABLE {table} DISABLE TRIGGER ALL")).how(How::Superuser))
}

fn name_taken(random: &mut Random, view: &View) -> Option<Mutation> {
    let names: Vec<&String> = view.expected.values().flat_map(|table| table.indexes.keys()).collect();
    let (name, other) = (random.pick(&names)?, new_name(random, "other"));
    let sql = format!("DROP INDEX IF EXISTS {name}; CREATE TABLE {other} (a int); CREATE INDEX {name} ON {other} (a)");
    Some(Mutation::new(sql).may_refuse(true))
}
