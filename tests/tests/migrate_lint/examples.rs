//! Migrations that keep every rule, and for each rule some that break it.

use crate::files::Migration;

const DIRECTORY: &str = "2026-01-02-030405_create_things";

const UP: &str = "-- Things of users.
CREATE TABLE IF NOT EXISTS things (
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    size numeric(3, 1) DEFAULT 1,
    CONSTRAINT things_pkey PRIMARY KEY (user_id, id),
    CONSTRAINT things_size_check CHECK (size > 0)
);
ALTER TABLE things ADD COLUMN IF NOT EXISTS id uuid;
ALTER TABLE things ADD COLUMN IF NOT EXISTS user_id uuid;
ALTER TABLE things ADD COLUMN IF NOT EXISTS size numeric(3, 1) DEFAULT 1;
CREATE INDEX IF NOT EXISTS idx_things_size ON things (size);
";
const DOWN: &str = "-- Loses every thing.\nDROP TABLE IF EXISTS things;\n";
const NOTHING_TO_UNDO: &str = "-- What was changed is not recorded.\nSELECT 1;\n";
const OUTSIDE: &str = "# An index is built beside the writers.\nrun_in_transaction = false\n";

/// One that keeps the rules, under this name.
pub(crate) fn plain(directory: &str) -> Migration {
    let files = [("up.sql", UP), ("down.sql", DOWN)];
    Migration {
        service: "auth",
        directory: directory.to_owned(),
        files: files.map(|(name, text)| (name.to_owned(), text.to_owned())).into(),
    }
}

/// One with this `up.sql` and nothing to undo.
fn up(sql: &str) -> Migration {
    with(&plain(DIRECTORY), &[("up.sql", &format!("{sql}\n")), ("down.sql", NOTHING_TO_UNDO)])
}

/// The plain one with this `down.sql`.
fn down(sql: &str) -> Migration {
    with(&plain(DIRECTORY), &[("down.sql", &format!("{sql}\n"))])
}

fn outside(sql: &str, undo: &str) -> Migration {
    with(&up(sql), &[("down.sql", &format!("{undo}\n")), ("metadata.toml", OUTSIDE)])
}

fn task(migration: Migration) -> Migration {
    Migration { service: "task", ..migration }
}

fn with(migration: &Migration, files: &[(&str, &str)]) -> Migration {
    let mut changed = migration.clone();
    changed.files.extend(files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())));
    changed
}

fn without(file: &str) -> Migration {
    let mut changed = plain(DIRECTORY);
    changed.files.remove(file);
    changed
}

/// Sets that keep every rule.
pub(crate) fn good() -> Vec<Vec<Migration>> {
    let guarded = "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_constraint WHERE conname = 'c') THEN \
        ALTER TABLE things ADD CONSTRAINT c CHECK (size < 9) NOT VALID; END IF; END $$;";
    let seed = "INSERT INTO things (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET size = excluded.size;";
    let update = "UPDATE things SET size = (SELECT max(size) FROM others WHERE a) WHERE size IS NULL;";
    let cte = "WITH moved AS (UPDATE things SET size = 2 WHERE size = 1 RETURNING id) SELECT * FROM moved FOR UPDATE;";
    let on_empty = "DO $$ BEGIN IF NOT EXISTS (SELECT FROM things) AND a THEN \
        CREATE INDEX IF NOT EXISTS i ON things (size); END IF; END $$;";
    let index = "CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON things (size);";
    vec![
        vec![plain(DIRECTORY)],
        vec![task(plain(DIRECTORY))],
        vec![
            up(guarded),
            Migration {
                directory: "2026-01-02-030406_validate_things".to_owned(),
                ..up("ALTER TABLE things VALIDATE CONSTRAINT c;\nALTER TABLE things ALTER COLUMN size SET NOT NULL;")
            },
        ],
        vec![up(seed)],
        vec![up(update)],
        vec![up(cte)],
        vec![up("ALTER TABLE things ALTER COLUMN size DROP NOT NULL;")],
        vec![up("ALTER TABLE things DROP CONSTRAINT IF EXISTS c;")],
        vec![with(&up(on_empty), &[("down.sql", "-- Nothing is lost.\nDROP INDEX IF EXISTS i;\n")])],
        vec![outside(index, "DROP INDEX CONCURRENTLY IF EXISTS i;")],
        vec![with(
            &up("ALTER TABLE things ADD COLUMN IF NOT EXISTS a text;"),
            &[("down.sql", "-- Loses a.\nALTER TABLE things DROP COLUMN IF EXISTS a;\n")],
        )],
    ]
}

/// The name of a rule and a migration that breaks it.
pub(crate) fn bad() -> Vec<(&'static str, Migration)> {
    [files(), schema(), data(), undo(), distributed()].concat()
}

fn files() -> Vec<(&'static str, Migration)> {
    let named = |name: &str| ("directory", plain(name));
    vec![
        named("create_things"),
        named("2026-01-02_create_things"),
        named("2026-13-02-030405_create_things"),
        named("2026-01-02-036405_create_things"),
        named("20260102030405_create_things"),
        named("2026-01-02-030405_things"),
        named("2026-01-02-030405_create"),
        named("2026-01-02-030405_createThings"),
        named("2026-01-02-030405_create-things"),
        ("files", without("up.sql")),
        ("files", without("down.sql")),
        ("files", down("-- Nothing.")),
        ("files", with(&plain(DIRECTORY), &[("notes.txt", "a\n")])),
        ("metadata", with(&plain(DIRECTORY), &[("metadata.toml", "# nothing\n")])),
        ("metadata", with(&plain(DIRECTORY), &[("metadata.toml", "run_in_transaction = true\n")])),
        ("metadata", with(&plain(DIRECTORY), &[("metadata.toml", "run_in_transaction = fals\n")])),
        ("metadata", with(&plain(DIRECTORY), &[("metadata.toml", "run_in_transaction = false\nother = 1\n")])),
        ("line_ends", with(&plain(DIRECTORY), &[("up.sql", "SELECT 1;\r\n")])),
        ("line_ends", with(&plain(DIRECTORY), &[("down.sql", "-- Nothing.\nSELECT 1;")])),
        ("transaction", up("BEGIN;\nSELECT 1;\nCOMMIT;")),
    ]
}

fn schema() -> Vec<(&'static str, Migration)> {
    let columns = |from: &str, to: &str| ("columns", with(&plain(DIRECTORY), &[("up.sql", &UP.replace(from, to))]));
    let plain_up = |from: &str, to: &str| with(&plain(DIRECTORY), &[("up.sql", &UP.replace(from, to))]);
    vec![
        ("unqualified", up("UPDATE public.things SET size = 1 WHERE size = 0;")),
        ("unqualified", up("UPDATE things SET size = 1 FROM \"public\".others WHERE size = 0;")),
        ("unqualified", plain_up("NOT EXISTS things", "NOT EXISTS auth.things")),
        ("create", plain_up("CREATE TABLE IF NOT EXISTS", "CREATE TABLE")),
        ("create", plain_up("CREATE INDEX IF NOT EXISTS", "CREATE INDEX")),
        ("create", up("CREATE TYPE mood AS ENUM ('a');")),
        ("create", up("CREATE TRIGGER t BEFORE UPDATE ON things FOR EACH ROW EXECUTE FUNCTION f();")),
        ("serial", up("ALTER TABLE things ADD COLUMN IF NOT EXISTS number bigserial;")),
        ("create", down("-- Loses.\nCREATE TABLE things (id uuid);")),
        columns("ALTER TABLE things ADD COLUMN IF NOT EXISTS id uuid;\n", ""),
        columns("ADD COLUMN IF NOT EXISTS size numeric(3, 1)", "ADD COLUMN IF NOT EXISTS size numeric(4, 1)"),
        columns(
            "ALTER TABLE things ADD COLUMN IF NOT EXISTS user_id",
            "ALTER TABLE others ADD COLUMN IF NOT EXISTS user_id",
        ),
        ("add_column", up("ALTER TABLE things ADD COLUMN a text;")),
        ("add_column", up("ALTER TABLE things ADD a text;")),
        ("named", plain_up("CONSTRAINT things_pkey PRIMARY", "PRIMARY")),
        ("named", plain_up("CONSTRAINT things_size_check CHECK", "CHECK")),
        ("named", plain_up("    id uuid NOT NULL,", "    id uuid NOT NULL UNIQUE,")),
        ("named", plain_up("    id uuid NOT NULL,", "    id uuid NOT NULL REFERENCES others (id),")),
        ("named", plain_up("NOT EXISTS idx_things_size ON", "NOT EXISTS ON")),
        ("named", up("CREATE INDEX ON things (size);")),
        ("named", up("ALTER TABLE things ADD CHECK (size > 1);")),
        ("named", up("ALTER TABLE things ADD COLUMN IF NOT EXISTS a text UNIQUE;")),
        ("add_constraint", up("ALTER TABLE things ADD CONSTRAINT c CHECK (size > 1) NOT VALID;")),
        ("rename", up("ALTER TABLE things RENAME COLUMN size TO width;")),
        ("rename", up("ALTER INDEX i RENAME TO j;")),
        ("guard", up("DO $$ BEGIN ALTER TABLE things ADD CONSTRAINT c CHECK (size > 1) NOT VALID; END $$;")),
        ("concurrently", up("CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON things (size);")),
        ("concurrently", down("DROP INDEX CONCURRENTLY IF EXISTS i;")),
        (
            "concurrently",
            outside("SELECT 1;\nCREATE INDEX CONCURRENTLY IF NOT EXISTS i ON things (size);", "SELECT 1;"),
        ),
        ("concurrently", outside("SELECT 1;", "SELECT 1;\nSELECT 2;")),
        (
            "subcommand",
            up("ALTER TABLE things ADD COLUMN IF NOT EXISTS a numeric(3, 1), ADD COLUMN IF NOT EXISTS b text;"),
        ),
        ("index", up("CREATE INDEX IF NOT EXISTS i ON things (size);")),
        ("index", up("CREATE UNIQUE INDEX IF NOT EXISTS i ON things (size);")),
        ("index", up("DO $$ BEGIN IF a THEN CREATE INDEX IF NOT EXISTS i ON things (size); END IF; END $$;")),
        (
            "index",
            up(
                "DO $$ BEGIN IF NOT EXISTS (SELECT FROM others) THEN CREATE INDEX IF NOT EXISTS i ON things (size); END IF; END $$;",
            ),
        ),
        ("not_null", up("ALTER TABLE things ADD COLUMN IF NOT EXISTS a text NOT NULL;")),
        ("not_null", up("ALTER TABLE things ALTER COLUMN size SET NOT NULL;")),
        ("rewrite", up("ALTER TABLE things ADD COLUMN IF NOT EXISTS a uuid DEFAULT gen_random_uuid();")),
        ("rewrite", up("ALTER TABLE things ALTER COLUMN size TYPE bigint;")),
        ("not_valid", up("DO $$ BEGIN IF a THEN ALTER TABLE t ADD CONSTRAINT c CHECK (a); END IF; END $$;")),
        ("not_valid", up("DO $$ BEGIN IF a THEN ALTER TABLE t ADD CONSTRAINT c UNIQUE (a); END IF; END $$;")),
    ]
}

fn data() -> Vec<(&'static str, Migration)> {
    vec![
        ("insert", up("INSERT INTO things (id) VALUES (1);")),
        ("insert", up("DO $$ BEGIN IF a THEN INSERT INTO things (id) VALUES (1); END IF; END $$;")),
        ("where", up("UPDATE things SET size = 1;")),
        ("where", up("UPDATE things SET size = (SELECT a FROM b WHERE c);")),
        ("where", up("WITH moved AS (UPDATE things SET size = 2 RETURNING id) SELECT * FROM moved WHERE true;")),
        ("where", down("-- Loses every thing.\nDELETE FROM things;")),
        ("cascade", down("-- Loses every thing.\nDROP TABLE IF EXISTS things CASCADE;")),
        ("cascade", up("ALTER TABLE things DROP CONSTRAINT IF EXISTS things_pkey CASCADE;")),
        ("drop", up("ALTER TABLE things DROP CONSTRAINT things_pkey;")),
        ("drop", down("-- Loses every thing.\nDROP TABLE things;")),
        ("drop", up("DROP INDEX i;")),
        ("data", up("DROP TABLE IF EXISTS things;")),
        ("data", up("ALTER TABLE things DROP COLUMN IF EXISTS size;")),
        ("data", up("ALTER TABLE things DROP IF EXISTS size;")),
        ("data", up("TRUNCATE things;")),
        ("data", up("DELETE FROM things WHERE size = 0;")),
        ("data", up("DO $$ BEGIN IF a THEN EXECUTE 'DROP TABLE things'; END IF; END $$;")),
        ("data", up("DO $$ BEGIN IF a THEN DELETE FROM things WHERE size = 0; END IF; END $$;")),
    ]
}

fn undo() -> Vec<(&'static str, Migration)> {
    vec![
        ("down_comment", down("DROP TABLE IF EXISTS things;")),
        ("down_comment", down("-- Undoes it.\nDROP TABLE IF EXISTS things;")),
        ("down_comment", down("SELECT 1;")),
        ("down_undoes", down("-- Loses nothing.\nSELECT 1;")),
        ("down_undoes", down("-- Loses others.\nDROP TABLE IF EXISTS others;")),
        (
            "down_undoes",
            outside(
                "CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON things (size);",
                "DROP INDEX CONCURRENTLY IF EXISTS j;",
            ),
        ),
        ("down_undoes", up("ALTER TABLE things ADD COLUMN IF NOT EXISTS a text;")),
    ]
}

fn distributed() -> Vec<(&'static str, Migration)> {
    let key = UP.replace("PRIMARY KEY (user_id, id)", "PRIMARY KEY (id)");
    let late = "INSERT INTO things (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET updated_at = ";
    vec![
        ("task_alone", task(up("CREATE TRIGGER t BEFORE UPDATE ON things EXECUTE FUNCTION f();"))),
        (
            "task_alone",
            task(up(
                "DO $$ BEGIN IF a THEN ALTER TABLE things ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES b (c) NOT VALID; END IF; END $$;",
            )),
        ),
        ("task_time", task(up(&format!("{late}now();")))),
        ("task_time", task(up(&format!("{late}CURRENT_TIMESTAMP;")))),
        ("task_key", task(with(&plain(DIRECTORY), &[("up.sql", &key)]))),
        (
            "task_key",
            task(outside(
                "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON things (size);",
                "DROP INDEX CONCURRENTLY IF EXISTS i;",
            )),
        ),
    ]
}
