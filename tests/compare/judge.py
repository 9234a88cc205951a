"""What became of a database: the schema by our catalog comparison and, as a second opinion, by pg_dump; the rows by their values."""

import hashlib
import json
import os
import re
import subprocess
from dataclasses import dataclass

import sources
from postgres import Failure

# The column that says which row it is; the whole row where a table has none of these.
KEYS = ("id", "kid", "version")


@dataclass
class Snapshot:
    """A database at one moment."""

    schema: str
    rows: dict

    @property
    def fingerprint(self):
        """The same only for the same schema and the same rows."""
        return hashlib.sha256((self.schema + json.dumps(self.rows, sort_keys=True)).encode()).hexdigest()


@dataclass
class Verdict:
    """What a run left behind."""

    errors: list
    warnings: int
    lost: int
    changed: int
    untouched: bool


class Judge:
    """Compares databases; `services` is the directory of our programs."""

    def __init__(self, postgres, services):
        self.postgres, self.services = postgres, services
        self.owned = sources.owned_tables()

    def snapshot(self, database, tool):
        """Schema and rows, without the tables in which the tool keeps its own notes."""
        listed = self.postgres.sql(database, "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY 1")
        tables = [table for table in listed.split() if table not in tool.tables]
        rows = {}
        if tables:
            query = " UNION ALL ".join(f"SELECT json_build_object('table', '{t}', 'row', to_jsonb(r)) FROM public.\"{t}\" r" for t in tables)
            for line in self.postgres.sql(database, query).splitlines():
                item = json.loads(line)
                rows.setdefault(item["table"], {})[key_of(item["row"])] = item["row"]
        options = [f"--exclude-table={table}" for table in tool.tables if "." not in table]
        return Snapshot(self.postgres.dump(database, "--schema-only", "--schema=public", *options), rows)

    def differences(self, database):
        """(errors, number of warnings) of both services' `migrate verify`, which reads only; the history is left out."""
        errors, warnings = [], 0
        for service in sources.SERVICES:
            command = [os.path.join(self.services, f"{service}-service"), "migrate", "verify", "--output", "json"]
            answer = subprocess.run(command, env={"DATABASE_URL": self.postgres.url(database)}, capture_output=True, text=True)
            if answer.returncode not in (0, 3, 4, 7):
                raise Failure(f"{' '.join(command)} ended with {answer.returncode} on {database}: {(answer.stderr or answer.stdout).strip()[-300:]}")
            for drift in json.loads(answer.stdout)["drift"]:
                if drift["kind"] == "history":
                    continue
                if drift["severity"] == "error":
                    errors.append(f"{drift['kind']} {drift['table']}.{drift['object']} {drift['problem']}")
                else:
                    warnings += 1
        return errors, warnings

    def second_opinion(self, database):
        """What pg_dump says of our tables, as sorted lines: the order of columns does not count, and INVALID indexes are not in it."""
        there = self.postgres.sql(database, "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'").split()
        tables = [f"--table=public.{table}" for table in self.owned if table in there]
        if not tables:
            return []
        lines = self.postgres.dump(database, "--schema-only", "--no-owner", *tables).splitlines()
        return sorted(line.strip().rstrip(",") for line in lines if line.strip() and not re.match(r"--|SET |SELECT pg_catalog", line))

    def verdict(self, database, tool, before):
        """(verdict, snapshot): what has become of `database` since the snapshot `before`."""
        errors, warnings = self.differences(database)
        after = self.snapshot(database, tool)
        lost = changed = 0
        for table, rows in before.rows.items():
            now = after.rows.get(table, {})
            for key, row in rows.items():
                if key not in now:
                    lost += 1
                elif any(column not in now[key] or now[key][column] != value for column, value in row.items()):
                    changed += 1
        return Verdict(errors, warnings, lost, changed, after.fingerprint == before.fingerprint), after


def key_of(row):
    """Which row it is, as text."""
    for key in KEYS:
        if key in row:
            return str(row[key])
    return json.dumps(row, sort_keys=True)
