//! The history and the engine's ledger: partial, empty, repeated, elsewhere, ahead of the schema, of another shape.

use migration_engine::ConstraintKind;
use tests::Random;

use super::{HISTORY, How, Mutation, Propose, View, new_name, quoted};

pub(super) const KINDS: &[(&str, Propose)] = &[
    ("history rows deleted", partly),
    ("history emptied", emptied),
    ("history dropped", dropped),
    ("history rows twice", twice),
    ("history in another schema", elsewhere),
    ("history ahead of the schema", ahead),
    ("history ahead of the schema", ahead),
    ("history of another shape", other_shape),
    ("history demands more", demanding),
    ("ledger dropped", ledger_dropped),
    ("ledger renamed", ledger_renamed),
    ("ledger of another shape", ledger_changed),
    ("history of SeaORM", seaorm),
];

fn partly(random: &mut Random, view: &View) -> Option<Mutation> {
    view.history.as_ref()?;
    let (first, last) = (random.pick(&view.versions)?, random.pick(&view.versions)?);
    Some(Mutation::new(format!(
        "DELETE FROM {HISTORY} WHERE version BETWEEN least('{first}', '{last}') AND greatest('{first}', '{last}')"
    )))
}

fn emptied(_: &mut Random, view: &View) -> Option<Mutation> {
    view.history.as_ref()?;
    Some(Mutation::new(format!("TRUNCATE {HISTORY}")))
}

fn dropped(_: &mut Random, view: &View) -> Option<Mutation> {
    view.history.as_ref()?;
    Some(Mutation::new(format!("DROP TABLE {HISTORY}")))
}

fn twice(random: &mut Random, view: &View) -> Option<Mutation> {
    let keys = view.history.as_ref()?.constraints.iter().filter(|(_, key)| key.kind == ConstraintKind::PrimaryKey);
    let drops: String =
        keys.map(|(key, _)| format!("ALTER TABLE {HISTORY} DROP CONSTRAINT {}; ", quoted(key))).collect();
    Some(Mutation::new(format!("{drops}INSERT INTO {HISTORY} SELECT * FROM {HISTORY} LIMIT {}", 1 + random.below(40))))
}

/// As a search path of `"$user", public` makes it.
fn elsewhere(random: &mut Random, view: &View) -> Option<Mutation> {
    view.history.as_ref()?;
    let schema = new_name(random, "elsewhere");
    let sql = format!(
        "CREATE SCHEMA {schema}; ALTER TABLE {HISTORY} SET SCHEMA {schema};
         DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = {schema}, public', current_database()); END $$"
    );
    Some(Mutation::new(sql))
}

/// All recorded by hand, whatever is there.
fn ahead(_: &mut Random, view: &View) -> Option<Mutation> {
    let create = format!(
        "CREATE TABLE IF NOT EXISTS {HISTORY} (version varchar(50) PRIMARY KEY NOT NULL, run_on timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP)"
    );
    let insert = format!(
        "INSERT INTO {HISTORY} (version) SELECT v FROM unnest(ARRAY['{}']) v WHERE NOT EXISTS (SELECT FROM {HISTORY} WHERE version = v)",
        view.versions.join("', '")
    );
    Some(Mutation::new(format!("{create}; {insert}")))
}

fn other_shape(random: &mut Random, view: &View) -> Option<Mutation> {
    view.history.as_ref()?;
    let changes = [
        "ALTER COLUMN version TYPE text",
        "ALTER COLUMN run_on TYPE timestamptz",
        "DROP COLUMN run_on",
        "ALTER COLUMN run_on DROP NOT NULL",
        "ALTER COLUMN run_on DROP DEFAULT",
        "DROP CONSTRAINT __diesel_schema_migrations_pkey",
        "RENAME CONSTRAINT __diesel_schema_migrations_pkey TO history_key",
        "ADD COLUMN checksum text",
        "SET UNLOGGED",
    ];
    Some(Mutation::new(format!("ALTER TABLE {HISTORY} {}", changes[random.below(changes.len())])))
}

fn demanding(_: &mut Random, view: &View) -> Option<Mutation> {
    view.history.as_ref()?;
    let sql = format!(
        "ALTER TABLE {HISTORY} ADD COLUMN sum text NOT NULL DEFAULT 'x'; ALTER TABLE {HISTORY} ALTER COLUMN sum DROP DEFAULT"
    );
    Some(Mutation::new(sql))
}

fn ledger_dropped(random: &mut Random, _: &View) -> Option<Mutation> {
    let table = ["__migration_runs", "__migration_versions"][random.below(2)];
    Some(Mutation::new(format!("DROP TABLE {table} CASCADE")))
}

/// Its keys and indexes keep their names.
fn ledger_renamed(random: &mut Random, _: &View) -> Option<Mutation> {
    let (table, other) =
        (["__migration_runs", "__migration_versions"][random.below(2)], new_name(random, "old_ledger"));
    Some(Mutation::new(format!("ALTER TABLE {table} RENAME TO {other}")))
}

fn ledger_changed(random: &mut Random, _: &View) -> Option<Mutation> {
    let changes = [
        "DROP TABLE IF EXISTS __migration_runs CASCADE;\nCREATE TABLE __migration_runs (id int)",
        "DROP TABLE IF EXISTS __migration_versions CASCADE;\nCREATE VIEW __migration_versions AS SELECT 1 AS version",
    ];
    Some(Mutation::new(changes[random.below(2)]).how(How::Alone).may_refuse(true))
}

fn seaorm(_: &mut Random, _: &View) -> Option<Mutation> {
    let sql = "CREATE TABLE IF NOT EXISTS seaql_migrations (version varchar NOT NULL PRIMARY KEY, applied_at bigint NOT NULL);
        INSERT INTO seaql_migrations VALUES ('m20250511_073638_create_task_table', 1749700000) ON CONFLICT DO NOTHING";
    Some(Mutation::new(sql))
}
