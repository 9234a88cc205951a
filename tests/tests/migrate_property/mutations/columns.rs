//! Columns that are dropped, renamed, of another type, default or NOT NULL, and columns of others.

use migration_engine::{Column, ConstraintKind, Table};
use tests::Random;

use super::{Mutation, Propose, View, new_name, quoted};

pub(super) const KINDS: &[(&str, Propose)] = &[
    ("column dropped", dropped),
    ("column dropped", dropped),
    ("column renamed", renamed),
    ("text type changed", text_type),
    ("text type changed", text_type),
    ("number narrowed", narrowed),
    ("text as enum", enumerated),
    ("type that does not convert", other_type),
    ("collation changed", collation),
    ("default dropped", default_dropped),
    ("default changed", default_changed),
    ("NOT NULL dropped", not_null_dropped),
    ("NOT NULL dropped", not_null_dropped),
    ("NOT NULL set", not_null_set),
    ("values set to null", nulls),
    ("extra nullable column", extra_nullable),
    ("extra NOT NULL column", extra_not_null),
    ("extra column with a default", extra_default),
    ("extra generated column", extra_generated),
    ("generated in place of a column", generated_in_place),
];

struct Place<'a> {
    table: &'a str,
    shape: &'a Table,
    column: &'a str,
    there: &'a Column,
    wanted: Option<&'a Column>,
}

fn place<'a>(random: &mut Random, view: &'a View, fits: impl Fn(&Place<'_>) -> bool) -> Option<Place<'a>> {
    let mut places = Vec::new();
    for (table, shape) in view.live.iter().filter(|(_, shape)| shape.kind == "table") {
        for (column, there) in &shape.columns {
            let wanted = view.expected.get(table).and_then(|wanted| wanted.columns.get(column));
            let place = Place { table, shape, column, there, wanted };
            if fits(&place) {
                places.push(place);
            }
        }
    }
    let at = if places.is_empty() { return None } else { random.below(places.len()) };
    Some(places.swap_remove(at))
}

impl Place<'_> {
    fn alter(&self, what: &str) -> String {
        format!("ALTER TABLE {} ALTER COLUMN {} {what}", self.table, quoted(self.column))
    }

    fn is_text(&self) -> bool {
        self.there.type_name == "text" || self.there.type_name.starts_with("character varying")
    }

    fn in_key(&self) -> bool {
        let mut keys = self.shape.constraints.values();
        keys.any(|key| key.kind == ConstraintKind::PrimaryKey && key.columns.iter().any(|of| of == self.column))
    }

    /// Whether its values can be made up for the rows that are there.
    fn can_be_lost(&self, view: &View) -> bool {
        let Some(wanted) = self.wanted else { return true };
        let referred = view.expected.values().flat_map(|table| table.constraints.values()).any(|key| {
            key.references.as_deref() == Some(self.table) && key.referenced_columns.iter().any(|of| of == self.column)
        });
        let keyed = view.expected[self.table].constraints.values().any(|key| {
            matches!(key.kind, ConstraintKind::PrimaryKey | ConstraintKind::Unique)
                && key.columns.iter().any(|of| of == self.column)
        });
        let filled = View::is_filled(self.table, self.column);
        !referred && (wanted.nullable || filled || (wanted.default.is_some() && !keyed))
    }
}

fn dropped(random: &mut Random, view: &View) -> Option<Mutation> {
    let place = place(random, view, |_| true)?;
    let sql = format!("ALTER TABLE {} DROP COLUMN {} CASCADE", place.table, quoted(place.column));
    Some(Mutation::new(sql).may_refuse(!place.can_be_lost(view)))
}

fn renamed(random: &mut Random, view: &View) -> Option<Mutation> {
    let place = place(random, view, |_| true)?;
    let (old, new) = (quoted(place.column), new_name(random, place.column));
    let sql = format!("ALTER TABLE {} RENAME COLUMN {old} TO {}", place.table, quoted(&new));
    Some(Mutation::new(sql).may_refuse(!place.can_be_lost(view)))
}

/// A limit that is too short for what is there fails, and nothing is changed.
fn text_type(random: &mut Random, view: &View) -> Option<Mutation> {
    let place = place(random, view, |place| place.is_text())?;
    let types = ["text", "varchar", "varchar(20)", "varchar(64)", "varchar(120)", "varchar(400)", "varchar(20000)"];
    Some(Mutation::new(place.alter(&format!("TYPE {}", types[random.below(types.len())]))))
}

fn narrowed(random: &mut Random, view: &View) -> Option<Mutation> {
    let place = place(random, view, |place| place.there.type_name == "bigint" && place.wanted.is_some())?;
    Some(Mutation::new(place.alter(["TYPE integer", "TYPE smallint"][random.below(2)])))
}

fn enumerated(random: &mut Random, view: &View) -> Option<Mutation> {
    let place = place(random, view, |place| place.table == "tasks" && place.column == "status" && place.is_text())?;
    let name = new_name(random, "status_type");
    let default = place.there.default.is_some().then(|| place.alter("SET DEFAULT 'todo'"));
    let sql = format!(
        "CREATE TYPE {name} AS ENUM ('pending', 'todo', 'in_progress', 'completed', 'cancelled');
         ALTER TABLE tasks DROP CONSTRAINT IF EXISTS tasks_status_check; {}; {}; {}",
        place.alter("DROP DEFAULT"),
        place.alter(&format!("TYPE {name} USING status::text::{name}")),
        default.unwrap_or_default()
    );
    Some(Mutation::new(sql))
}

fn other_type(random: &mut Random, view: &View) -> Option<Mutation> {
    let place =
        place(random, view, |place| place.wanted.is_some_and(|wanted| wanted.type_name == place.there.type_name))?;
    let column = quoted(place.column);
    let change = match place.there.type_name.as_str() {
        "timestamp with time zone" if random.chance(50) => format!("TYPE timestamp USING {column} AT TIME ZONE 'UTC'"),
        "boolean" if random.chance(50) => format!("TYPE int USING {column}::int"),
        "text" => format!("TYPE bytea USING convert_to({column}, 'UTF8')"),
        "bytea" => format!("TYPE text USING encode({column}, 'hex')"),
        "bigint" => format!("TYPE numeric USING {column}::numeric"),
        name if name.starts_with("character varying") => format!("TYPE char(300) USING {column}::char(300)"),
        _ => format!("TYPE text USING {column}::text"),
    };
    let sql = format!("{}; {}", place.alter("DROP DEFAULT"), place.alter(&change));
    Some(Mutation::new(sql).may_refuse(true))
}

fn collation(random: &mut Random, view: &View) -> Option<Mutation> {
    let place = place(random, view, |place| place.is_text())?;
    Some(Mutation::new(place.alter(&format!("TYPE {} COLLATE \"C\"", place.there.type_name))))
}

fn default_dropped(random: &mut Random, view: &View) -> Option<Mutation> {
    let place = place(random, view, |place| place.there.default.is_some())?;
    Some(Mutation::new(place.alter("DROP DEFAULT")))
}

fn default_changed(random: &mut Random, view: &View) -> Option<Mutation> {
    let place = place(random, view, |place| place.there.generated.is_none())?;
    let default = match place.there.type_name.as_str() {
        "timestamp with time zone" => "now() + interval '1 day'",
        "boolean" => ["true", "false"][random.below(2)],
        "uuid" => "'00000000-0000-0000-0000-000000000000'",
        "bigint" => "7",
        "bytea" => "'\\x00'",
        _ => "'x'",
    };
    Some(Mutation::new(place.alter(&format!("SET DEFAULT {default}"))))
}

fn not_null_dropped(random: &mut Random, view: &View) -> Option<Mutation> {
    let place = place(random, view, |place| !place.there.nullable && !place.in_key())?;
    Some(Mutation::new(place.alter("DROP NOT NULL")))
}

/// Fails where a null is.
fn not_null_set(random: &mut Random, view: &View) -> Option<Mutation> {
    let place = place(random, view, |place| place.there.nullable)?;
    Some(Mutation::new(place.alter("SET NOT NULL")))
}

fn nulls(random: &mut Random, view: &View) -> Option<Mutation> {
    let place = place(random, view, |place| place.there.generated.is_none())?;
    let column = quoted(place.column);
    let may_be_null = place.wanted.is_none_or(|wanted| wanted.nullable) || View::is_filled(place.table, place.column);
    let key = place
        .shape
        .constraints
        .iter()
        .find(|(_, key)| key.kind == ConstraintKind::PrimaryKey && key.columns.iter().any(|of| of == place.column));
    let free = key.map(|(key, _)| format!("ALTER TABLE {} DROP CONSTRAINT {} CASCADE; ", place.table, quoted(key)));
    let sql = format!(
        "{}{}; UPDATE {} SET {column} = NULL WHERE ctid IN (SELECT ctid FROM {} LIMIT {})",
        free.unwrap_or_default(),
        place.alter("DROP NOT NULL"),
        place.table,
        place.table,
        1 + random.below(3)
    );
    Some(Mutation::new(sql).may_refuse(!may_be_null))
}

fn extra_nullable(random: &mut Random, view: &View) -> Option<Mutation> {
    let (table, _) = view.table(random)?;
    let what = ["int", "text", "jsonb", "timestamptz DEFAULT now()"][random.below(4)];
    Some(Mutation::new(format!("ALTER TABLE {table} ADD COLUMN {} {what}", new_name(random, "extra"))))
}

/// An insert of ours does not name it.
fn extra_not_null(random: &mut Random, view: &View) -> Option<Mutation> {
    let (table, _) = view.table(random)?;
    let name = new_name(random, "shoe_size");
    let sql = format!(
        "ALTER TABLE {table} ADD COLUMN {name} int NOT NULL DEFAULT 7; ALTER TABLE {table} ALTER COLUMN {name} DROP DEFAULT"
    );
    Some(Mutation::new(sql))
}

fn extra_default(random: &mut Random, view: &View) -> Option<Mutation> {
    let (table, _) = view.table(random)?;
    let what =
        ["int NOT NULL DEFAULT 7", "bigint GENERATED ALWAYS AS IDENTITY", "text NOT NULL DEFAULT 'é'"][random.below(3)];
    Some(Mutation::new(format!("ALTER TABLE {table} ADD COLUMN {} {what}", new_name(random, "extra"))))
}

/// In the way of a column whose type must change.
fn extra_generated(random: &mut Random, view: &View) -> Option<Mutation> {
    let place = place(random, view, |place| place.is_text())?;
    let sql = format!(
        "ALTER TABLE {} ADD COLUMN {} text GENERATED ALWAYS AS (upper({})) STORED",
        place.table,
        new_name(random, "upper"),
        quoted(place.column)
    );
    Some(Mutation::new(sql).may_refuse(true))
}

fn generated_in_place(random: &mut Random, view: &View) -> Option<Mutation> {
    let place = place(random, view, |place| place.there.type_name == "boolean")?;
    let column = quoted(place.column);
    let sql = format!(
        "ALTER TABLE {0} DROP COLUMN {column} CASCADE; ALTER TABLE {0} ADD COLUMN {column} boolean NOT NULL GENERATED ALWAYS AS (true) STORED",
        place.table
    );
    Some(Mutation::new(sql).may_refuse(true))
}
