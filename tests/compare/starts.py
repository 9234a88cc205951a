"""The databases that every tool is given. Each is made from SQL alone, the same for every tool."""

import os
from dataclasses import dataclass

from sources import ROOT

FIXTURES = os.path.join(ROOT, "tests", "fixtures", "legacy")

# Rows with fixed keys and times, so that a row that changes is seen.
ROWS = """
INSERT INTO users (id, email, username, password_hash, role_id, email_key, username_key, created_at, updated_at)
SELECT md5('user' || n)::uuid, 'u' || n || '@example.com', 'u' || n, 'x', (SELECT id FROM roles WHERE name = 'member'),
    'u' || n || '@example.com', 'u' || n, '2026-01-01Z', '2026-01-01Z' FROM generate_series(1, 50) n;
INSERT INTO sessions (id, user_id, created_at, last_used_at, expires_at)
SELECT md5('session' || username)::uuid, id, '2026-01-01Z', '2026-01-01Z', '2026-12-01Z' FROM users;
INSERT INTO refresh_tokens (id, user_id, token_hash, expires_at, session_id, created_at, updated_at)
SELECT md5('token' || id)::uuid, user_id, id::text, expires_at, id, created_at, created_at FROM sessions;
INSERT INTO tasks (id, user_id, title, due_date, created_at, updated_at)
SELECT md5('task' || n || username)::uuid, id, 'task ' || n, '2026-06-01Z', '2026-01-01Z', '2026-01-01Z'
FROM users, generate_series(1, 4) n;
"""


@dataclass(frozen=True)
class Start:
    """A database before the run.

    It begins as a copy of what the tool itself made of an empty database, with rows in it; with `fixture` it begins empty and
    loads that file, and with `empty` it stays empty.
    `history` is what becomes of the tool's own history table: `kept`, `empty`, `dropped`, `filled` (all versions recorded by
    hand), `none` (there never was one), or `only:` with the versions that are recorded.
    """

    name: str
    title: str
    fixture: str | None = None
    empty: bool = False
    sql: str = ""
    history: str = "empty"
    # Whether it is also given with every version recorded: a drift that came after the migrations.
    shape: bool = False


STARTS = [
    Start("empty", "empty database", empty=True, history="none"),
    Start("complete", "fresh and migrated, nothing to do", history="kept"),
    Start("history_empty", "complete schema, history empty"),
    Start("history_dropped", "complete schema, history table gone", history="dropped"),
    Start("incident", "legacy, made by hand, history empty (`incident.sql`)", fixture="incident", history="none"),
    Start("hand_repaired", "legacy, repaired by hand, all versions recorded (`hand_repaired.sql`)", fixture="hand_repaired", history="filled"),
    Start("legacy_complete", "legacy as its own migrations left it (`complete.sql`)", fixture="complete", history="none"),
    Start("half_by_hand", "half made by hand, two versions recorded (`half_by_hand.sql`)", fixture="half_by_hand",
          history="only:20261123080000,20261123090000"),
    Start("ahead", "all recorded, a column and an index missing", history="kept",
          sql="ALTER TABLE users DROP COLUMN last_login_at; DROP INDEX idx_tasks_user_due_date;"),
    Start("type", "a column of another type that converts (`tasks.title varchar(300)`)", shape=True,
          sql="ALTER TABLE tasks ALTER COLUMN title TYPE varchar(300);"),
    Start("zone", "a column of another type that needs a decision (`tasks.due_date timestamp`)", shape=True,
          sql="ALTER TABLE tasks ALTER COLUMN due_date TYPE timestamp;"),
    Start("nullable", "two columns nullable, no null in them", shape=True,
          sql="ALTER TABLE users ALTER COLUMN role_id DROP NOT NULL; ALTER TABLE tasks ALTER COLUMN title DROP NOT NULL;"),
    Start("invalid", "an INVALID unique index of the right name", shape=True, sql="""
DROP INDEX users_email_key_key;
UPDATE users SET email_key = 'u1@example.com' WHERE username = 'u2';
\\set ON_ERROR_STOP 0
CREATE UNIQUE INDEX CONCURRENTLY users_email_key_key ON users (email_key);
\\set ON_ERROR_STOP 1
UPDATE users SET email_key = 'u2@example.com' WHERE username = 'u2';"""),
    Start("columns", "an index of the right name over another column", shape=True,
          sql="DROP INDEX idx_tasks_user_status; CREATE INDEX idx_tasks_user_status ON tasks (status);"),
    Start("key", "a foreign key with another action, NOT VALID", shape=True,
          sql="""ALTER TABLE users DROP CONSTRAINT fk_users_role_id;
ALTER TABLE users ADD CONSTRAINT fk_users_role_id FOREIGN KEY (role_id) REFERENCES roles (id) ON DELETE SET NULL NOT VALID;"""),
    Start("check", "a check of the right name that lets everything in", shape=True,
          sql="""ALTER TABLE tasks DROP CONSTRAINT tasks_status_check;
ALTER TABLE tasks ADD CONSTRAINT tasks_status_check CHECK (status <> '');"""),
    Start("seed", "a seeded role missing, the other switched off", shape=True,
          sql="DELETE FROM roles WHERE name = 'admin'; UPDATE roles SET is_active = false WHERE name = 'member';"),
    Start("rows", "rows in the way: no unique key, the same address twice", shape=True,
          sql="""ALTER TABLE users DROP CONSTRAINT users_email_key;
UPDATE users SET email = 'u1@example.com' WHERE username = 'u2';"""),
]


def make(postgres, tool, start, database, history=None):
    """Makes the database `database` in the state `start` for `tool`; `history` replaces the start's own."""
    if start.empty or start.fixture:
        postgres.create(database)
    else:
        postgres.create(database, tool.template)
    if start.fixture:
        postgres.file(database, os.path.join(FIXTURES, f"{start.fixture}.sql"))
        # Two fixtures come with rows in Diesel's history: each tool gets the same state in its own.
        postgres.sql(database, "DROP TABLE IF EXISTS __diesel_schema_migrations")
    if start.sql:
        postgres.sql(database, start.sql)
    tool.set_history(postgres, database, history or start.history)
