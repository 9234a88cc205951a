//! Rows as people and old programs leave them: odd names, odd times, rows in the way, roles edited.

use migration_engine::ConstraintKind;
use tests::Random;

use super::tables::is_parent;
use super::{Mutation, Propose, View, new_name, quoted};

pub(super) const KINDS: &[(&str, Propose)] = &[
    ("accounts with odd names", odd_names),
    ("accounts that differ by case", by_case),
    ("times that no client can read", odd_times),
    ("more tasks", more_tasks),
    ("long texts", long_texts),
    ("status of the bulk route", pending),
    ("unknown status", unknown_status),
    ("value too long", too_long),
    ("orphans", orphans),
    ("rows twice", twice),
    ("rows deleted", deleted),
    ("seed missing", seed_missing),
    ("seed edited", seed_edited),
    ("seed renamed", seed_renamed),
];

const NAMES: &[&str] = &[
    "jürgen",
    "İstanbul",
    "ß",
    "ＡＢＣ",
    "Ώmega",
    "🦀 crab",
    "O''Neil",
    "ﬁne",
    "e\u{301}clair",
    "tab\tname",
    "ǅ",
    "x",
];

/// `INSERT` of the columns that are there.
fn insert(view: &View, table: &str, values: &[(&str, String)]) -> Option<String> {
    let there = &view.live.get(table)?.columns;
    let used: Vec<_> = values.iter().filter(|(column, _)| there.contains_key(*column)).collect();
    let list = |of: &dyn Fn(&(&str, String)) -> String| used.iter().map(|pair| of(pair)).collect::<Vec<_>>().join(", ");
    Some(format!("INSERT INTO {table} ({}) SELECT {}", list(&|pair| pair.0.to_owned()), list(&|pair| pair.1.clone())))
}

fn account(view: &View, email: &str, name: &str) -> Option<String> {
    let role =
        if view.live.contains_key("roles") { "(SELECT id FROM roles WHERE name = 'member' LIMIT 1)" } else { "NULL" };
    insert(
        view,
        "users",
        &[
            ("id", "gen_random_uuid()".to_owned()),
            ("email", email.to_owned()),
            ("username", name.to_owned()),
            ("password_hash", "'x'".to_owned()),
            ("is_active", "true".to_owned()),
            ("role_id", role.to_owned()),
        ],
    )
}

fn odd_names(random: &mut Random, view: &View) -> Option<Mutation> {
    let mut sql = Vec::new();
    for _ in 0..=random.below(3) {
        let (name, number) = (random.pick(NAMES)?, random.below(10_000));
        sql.push(account(view, &format!("'{name}{number}@example.com'"), &format!("'{name}{number}'"))?);
    }
    Some(Mutation::new(sql.join("; ")))
}

/// The same account again in other letters; the login keys cannot be both.
fn by_case(random: &mut Random, view: &View) -> Option<Mutation> {
    let change = ["upper", "initcap", "lower"][random.below(3)];
    let sql = account(view, &format!("{change}(email)"), &format!("{change}(username)"))?;
    Some(Mutation::new(format!(
        "{sql} FROM users WHERE email <> {change}(email) AND username <> {change}(username) LIMIT 3"
    )))
}

fn odd_times(random: &mut Random, view: &View) -> Option<Mutation> {
    let places = [
        ("users", "created_at"),
        ("users", "updated_at"),
        ("users", "last_login_at"),
        ("roles", "created_at"),
        ("tasks", "due_date"),
        ("tasks", "created_at"),
        ("refresh_tokens", "expires_at"),
        ("password_reset_tokens", "expires_at"),
    ];
    let places: Vec<_> = places.iter().filter(|(table, _)| view.live.contains_key(*table)).collect();
    let (table, column) = random.pick(&places)?;
    let time = ["infinity", "-infinity", "12000-01-01 00:00:00+00", "0044-03-15 00:00:00+00 BC"][random.below(4)];
    let limit = 1 + random.below(3);
    Some(Mutation::new(format!(
        "UPDATE {table} SET {column} = '{time}' WHERE ctid IN (SELECT ctid FROM {table} LIMIT {limit})"
    )))
}

fn tasks(view: &View, title: &str, status: &str, count: usize) -> Option<String> {
    let owner = if view.live.contains_key("users") { "(SELECT id FROM users LIMIT 1)" } else { "gen_random_uuid()" };
    let sql = insert(
        view,
        "tasks",
        &[
            ("id", "gen_random_uuid()".to_owned()),
            ("title", title.to_owned()),
            ("status", status.to_owned()),
            ("user_id", owner.to_owned()),
            ("note", "'a note ' || n".to_owned()),
        ],
    )?;
    Some(format!("{sql} FROM generate_series(1, {count}) n"))
}

fn more_tasks(random: &mut Random, view: &View) -> Option<Mutation> {
    let status = ["todo", "in_progress", "completed", "cancelled"][random.below(4)];
    let title = format!("'title {} 任務 ' || n", random.below(1000));
    Some(Mutation::new(tasks(view, &title, &format!("'{status}'"), 1 + random.below(300))?))
}

fn long_texts(random: &mut Random, view: &View) -> Option<Mutation> {
    let title = ["''", "repeat('long ', 100) || n", "repeat('é', 200) || n", "repeat('x', 9000) || n"][random.below(4)];
    let sql =
        format!("ALTER TABLE tasks DROP CONSTRAINT IF EXISTS tasks_limits_check; {}", tasks(view, title, "'todo'", 2)?);
    Some(Mutation::new(sql))
}

fn pending(_: &mut Random, view: &View) -> Option<Mutation> {
    let sql = tasks(view, "'bulk ' || n", "'pending'", 5)?;
    Some(Mutation::new(format!("ALTER TABLE tasks DROP CONSTRAINT IF EXISTS tasks_status_check; {sql}")))
}

fn unknown_status(_: &mut Random, view: &View) -> Option<Mutation> {
    let sql = tasks(view, "'done ' || n", "'done'", 2)?;
    Some(
        Mutation::new(format!("ALTER TABLE tasks DROP CONSTRAINT IF EXISTS tasks_status_check; {sql}"))
            .may_refuse(true),
    )
}

fn too_long(random: &mut Random, view: &View) -> Option<Mutation> {
    let places = [
        ("users", "username"),
        ("users", "email"),
        ("roles", "name"),
        ("sessions", "user_agent"),
        ("roles", "display_name"),
    ];
    let (table, column) = places[random.below(places.len())];
    view.live.get(table)?.columns.get(column)?;
    let sql = format!(
        "ALTER TABLE {table} ALTER COLUMN {column} TYPE text;
         UPDATE {table} SET {column} = repeat('long', 200) WHERE ctid IN (SELECT ctid FROM {table} LIMIT 1)"
    );
    Some(Mutation::new(sql).may_refuse(true))
}

fn orphans(random: &mut Random, view: &View) -> Option<Mutation> {
    let mut found = Vec::new();
    for (table, shape) in &view.live {
        found.extend(
            shape.constraints.iter().filter(|(_, key)| key.references.is_some()).map(|(name, key)| (table, name, key)),
        );
    }
    let (table, name, key) = random.pick(&found)?;
    let sql = format!(
        "ALTER TABLE {table} DROP CONSTRAINT {}; UPDATE {table} SET {} = gen_random_uuid() WHERE ctid IN (SELECT ctid FROM {table} LIMIT {})",
        quoted(name),
        quoted(key.columns.first()?),
        1 + random.below(7)
    );
    Some(Mutation::new(sql).may_refuse(true))
}

/// Rows that repeat, once their key is gone.
fn twice(random: &mut Random, view: &View) -> Option<Mutation> {
    let (table, shape) = view.table(random)?;
    let keys = shape
        .constraints
        .iter()
        .filter(|(_, key)| matches!(key.kind, ConstraintKind::PrimaryKey | ConstraintKind::Unique));
    let drops: Vec<String> =
        keys.map(|(name, _)| format!("ALTER TABLE {table} DROP CONSTRAINT {} CASCADE", quoted(name))).collect();
    let indexes =
        shape.indexes.iter().filter(|(_, index)| index.unique).map(|(name, _)| format!("DROP INDEX {}", quoted(name)));
    let copy = format!("INSERT INTO {table} SELECT * FROM {table} LIMIT {}", 1 + random.below(7));
    let all: Vec<String> = drops.into_iter().chain(indexes).chain([copy]).collect();
    Some(Mutation::new(all.join("; ")).may_refuse(true))
}

fn deleted(random: &mut Random, view: &View) -> Option<Mutation> {
    let (table, _) = view.table(random)?;
    let limit = 1 + random.below(20);
    let sql = format!("DELETE FROM {table} WHERE ctid IN (SELECT ctid FROM {table} LIMIT {limit})");
    Some(Mutation::new(sql).may_refuse(is_parent(view, table)))
}

fn seed_missing(random: &mut Random, view: &View) -> Option<Mutation> {
    view.live.get("roles")?;
    let (gone, other) = if random.chance(50) { ("member", "admin") } else { ("admin", "member") };
    let moved = match view.live.get("users").map(|users| users.columns.contains_key("role_id")) {
        Some(true) => format!(
            "UPDATE users SET role_id = (SELECT id FROM roles WHERE name = '{other}') WHERE role_id = (SELECT id FROM roles WHERE name = '{gone}'); "
        ),
        _ => String::new(),
    };
    Some(Mutation::new(format!("{moved}DELETE FROM roles WHERE name = '{gone}'")))
}

fn seed_edited(random: &mut Random, view: &View) -> Option<Mutation> {
    let columns = &view.live.get("roles")?.columns;
    let edits = [("is_system", "false"), ("is_active", "false"), ("display_name", "'Chief'"), ("description", "NULL")];
    let edits: Vec<_> = edits.iter().filter(|(column, _)| columns.contains_key(*column)).collect();
    let (column, value) = random.pick(&edits)?;
    let name = ["admin", "member"][random.below(2)];
    Some(Mutation::new(format!("UPDATE roles SET {column} = {value} WHERE name = '{name}'")))
}

fn seed_renamed(random: &mut Random, view: &View) -> Option<Mutation> {
    view.live.get("roles")?;
    let (name, other) = (["admin", "member"][random.below(2)], new_name(random, "role"));
    Some(Mutation::new(format!("UPDATE roles SET name = '{other}' WHERE name = '{name}'")))
}
