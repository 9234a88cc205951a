//! Constraints that are dropped, renamed, not validated, of another definition, or of others.

use migration_engine::{Constraint, ConstraintKind};
use tests::Random;

use super::{Mutation, Propose, View, new_name, quoted};

pub(super) const KINDS: &[(&str, Propose)] = &[
    ("constraint dropped", dropped),
    ("constraint dropped", dropped),
    ("constraint renamed", renamed),
    ("constraint names swapped", swapped),
    ("constraint not validated", not_valid),
    ("foreign key with other actions", other_actions),
    ("foreign key to another table", other_parent),
    ("check of another definition", other_check),
    ("unique index instead of a constraint", bare_index),
    ("plain index instead of a constraint", plain_index),
    ("key of other columns", other_columns),
    ("key deferrable", deferrable),
    ("extra check", extra_check),
    ("extra foreign key", extra_foreign_key),
    ("extra unique constraint", extra_unique),
    ("exclusion instead of a key", exclusion),
];

struct Found<'a> {
    table: &'a str,
    name: &'a str,
    key: &'a Constraint,
}

fn constraint<'a>(random: &mut Random, view: &'a View, fits: impl Fn(&Constraint) -> bool) -> Option<Found<'a>> {
    let mut found = Vec::new();
    for (table, shape) in view.live.iter().filter(|(_, shape)| shape.kind == "table") {
        found.extend(shape.constraints.iter().filter(|(_, key)| fits(key)).map(|(name, key)| Found {
            table,
            name,
            key,
        }));
    }
    let at = if found.is_empty() { return None } else { random.below(found.len()) };
    Some(found.swap_remove(at))
}

impl Found<'_> {
    fn drop(&self) -> String {
        format!("ALTER TABLE {} DROP CONSTRAINT {} CASCADE", self.table, quoted(self.name))
    }

    fn add(&self, definition: &str) -> String {
        format!("ALTER TABLE {} ADD CONSTRAINT {} {definition}", self.table, quoted(self.name))
    }

    fn replaced(&self, definition: &str) -> Mutation {
        Mutation::new(format!("{}; {}", self.drop(), self.add(definition)))
    }

    fn columns(&self) -> String {
        self.key.columns.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", ")
    }
}

fn is_key(key: &Constraint) -> bool {
    matches!(key.kind, ConstraintKind::PrimaryKey | ConstraintKind::Unique)
}

fn dropped(random: &mut Random, view: &View) -> Option<Mutation> {
    Some(Mutation::new(constraint(random, view, |_| true)?.drop()))
}

fn renamed(random: &mut Random, view: &View) -> Option<Mutation> {
    let found = constraint(random, view, |_| true)?;
    let other = new_name(random, found.name);
    Some(Mutation::new(format!(
        "ALTER TABLE {} RENAME CONSTRAINT {} TO {}",
        found.table,
        quoted(found.name),
        quoted(&other)
    )))
}

fn swapped(random: &mut Random, view: &View) -> Option<Mutation> {
    let first = constraint(random, view, |_| true)?;
    let others: Vec<&String> = view.live[first.table].constraints.keys().filter(|name| *name != first.name).collect();
    let second = random.pick(&others)?;
    let rename = |from: &str, to: &str| {
        format!("ALTER TABLE {} RENAME CONSTRAINT {} TO {}", first.table, quoted(from), quoted(to))
    };
    let sql = [rename(first.name, "between"), rename(second, first.name), rename("between", second)].join("; ");
    Some(Mutation::new(sql))
}

fn not_valid(random: &mut Random, view: &View) -> Option<Mutation> {
    let found = constraint(random, view, |key| matches!(key.kind, ConstraintKind::Check | ConstraintKind::ForeignKey))?;
    Some(found.replaced(&format!("{} NOT VALID", found.key.definition)))
}

fn other_actions(random: &mut Random, view: &View) -> Option<Mutation> {
    let found = constraint(random, view, |key| key.references.is_some())?;
    let parent = found.key.references.as_deref()?;
    let actions = [
        "",
        "ON DELETE SET NULL",
        "ON DELETE RESTRICT",
        "ON UPDATE CASCADE ON DELETE SET DEFAULT",
        "MATCH FULL",
        "ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED",
        "ON DELETE NO ACTION NOT VALID",
    ];
    let action = actions[random.below(actions.len())];
    let referred = found.key.referenced_columns.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", ");
    Some(found.replaced(&format!("FOREIGN KEY ({}) REFERENCES {parent} ({referred}) {action}", found.columns())))
}

/// A hand-made table that has the same ids.
fn other_parent(random: &mut Random, view: &View) -> Option<Mutation> {
    let found = constraint(random, view, |key| key.references.is_some() && key.columns.len() == 1)?;
    let parent = new_name(random, "parent");
    let sql = format!(
        "CREATE TABLE {parent} (id uuid PRIMARY KEY); INSERT INTO {parent} SELECT DISTINCT {1} FROM {0} WHERE {1} IS NOT NULL;
         {2}; {3}",
        found.table,
        found.columns(),
        found.drop(),
        found.add(&format!("FOREIGN KEY ({}) REFERENCES {parent} (id)", found.columns()))
    );
    Some(Mutation::new(sql))
}

fn other_check(random: &mut Random, view: &View) -> Option<Mutation> {
    let found = constraint(random, view, |key| key.kind == ConstraintKind::Check)?;
    let column = quoted(found.key.columns.first()?);
    let checks =
        [format!("CHECK ({column} IS NOT NULL)"), "CHECK (true)".to_owned(), "CHECK (false) NOT VALID".to_owned()];
    Some(found.replaced(&checks[random.below(checks.len())]))
}

fn bare_index(random: &mut Random, view: &View) -> Option<Mutation> {
    let found = constraint(random, view, is_key)?;
    let create = format!("CREATE UNIQUE INDEX {} ON {} ({})", quoted(found.name), found.table, found.columns());
    Some(Mutation::new(format!("{}; {create}", found.drop())))
}

fn plain_index(random: &mut Random, view: &View) -> Option<Mutation> {
    let found = constraint(random, view, is_key)?;
    let create = format!("CREATE INDEX {} ON {} ({})", quoted(found.name), found.table, found.columns());
    Some(Mutation::new(format!("{}; {create}", found.drop())))
}

/// Fails where these columns do not make a key.
fn other_columns(random: &mut Random, view: &View) -> Option<Mutation> {
    let found = constraint(random, view, is_key)?;
    let columns: Vec<&String> = view.live[found.table].columns.keys().collect();
    let mut chosen = vec![quoted(random.pick(&columns)?)];
    if random.chance(60) {
        chosen.push(quoted(random.pick(&columns)?));
    }
    let kind = if found.key.kind == ConstraintKind::PrimaryKey { "PRIMARY KEY" } else { "UNIQUE" };
    Some(found.replaced(&format!("{kind} ({})", chosen.join(", "))))
}

fn deferrable(random: &mut Random, view: &View) -> Option<Mutation> {
    let found = constraint(random, view, is_key)?;
    Some(found.replaced(&format!("{} DEFERRABLE", found.key.definition)))
}

fn extra_check(random: &mut Random, view: &View) -> Option<Mutation> {
    let (table, shape) = view.table(random)?;
    let columns: Vec<&String> = shape.columns.keys().collect();
    let column = quoted(random.pick(&columns)?);
    let check = [
        "CHECK (true)".to_owned(),
        "CHECK (false) NOT VALID".to_owned(),
        format!("CHECK ({column} IS NOT NULL) NOT VALID"),
        format!("CHECK ({column} IS NOT NULL OR {column} IS NULL)"),
    ];
    let name = new_name(random, "extra_check");
    Some(Mutation::new(format!("ALTER TABLE {table} ADD CONSTRAINT {name} {}", check[random.below(check.len())])))
}

fn extra_foreign_key(random: &mut Random, view: &View) -> Option<Mutation> {
    let (table, shape) = view.table(random)?;
    let columns: Vec<_> =
        shape.columns.iter().filter(|(_, column)| column.type_name == "uuid").map(|(name, _)| name).collect();
    let column = quoted(random.pick(&columns)?);
    let parents: Vec<&str> =
        ["users", "roles", "sessions"].into_iter().filter(|parent| view.live.contains_key(*parent)).collect();
    let (parent, name) = (random.pick(&parents)?, new_name(random, "extra_fk"));
    let action = ["", "ON DELETE CASCADE", "ON UPDATE CASCADE ON DELETE RESTRICT"][random.below(3)];
    let sql = format!(
        "ALTER TABLE {table} ADD CONSTRAINT {name} FOREIGN KEY ({column}) REFERENCES {parent} (id) {action} NOT VALID"
    );
    Some(Mutation::new(sql))
}

/// Fails where rows repeat.
fn extra_unique(random: &mut Random, view: &View) -> Option<Mutation> {
    let (table, shape) = view.table(random)?;
    let columns: Vec<&String> = shape.columns.keys().collect();
    let (first, second) = (random.pick(&columns)?, random.pick(&columns)?);
    let name = new_name(random, "extra_key");
    let list = if first == second || random.chance(50) {
        quoted(first)
    } else {
        format!("{}, {}", quoted(first), quoted(second))
    };
    Some(Mutation::new(format!("ALTER TABLE {table} ADD CONSTRAINT {name} UNIQUE ({list})")))
}

fn exclusion(random: &mut Random, view: &View) -> Option<Mutation> {
    let found = constraint(random, view, is_key)?;
    let parts: Vec<String> = found.key.columns.iter().map(|column| format!("{} WITH =", quoted(column))).collect();
    Some(found.replaced(&format!("EXCLUDE USING btree ({})", parts.join(", "))))
}
