"""Our migrations, and the layouts that other tools want, generated from them."""

import json
import os
import re
from dataclasses import dataclass

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SERVICES = ("auth", "task")


@dataclass(frozen=True)
class Migration:
    """One directory of `migrations/<service>`."""

    version: str
    name: str
    up: str
    down: str
    transaction: bool
    metadata: str | None

    @property
    def stem(self):
        """`<version>_<name>`."""
        return f"{self.version}_{self.name}"


def read(path):
    """The text of a file."""
    with open(path, encoding="utf-8") as file:
        return file.read()


def write(path, text):
    """Writes a file and the directories above it."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def migrations(services=SERVICES):
    """All migrations of the services, in the order of their versions."""
    found = []
    for service in services:
        base = os.path.join(ROOT, "migrations", service)
        for directory in sorted(os.listdir(base)):
            place = os.path.join(base, directory)
            if not os.path.isdir(place):
                continue
            stamp, name = directory.split("_", 1)
            metadata = os.path.join(place, "metadata.toml")
            metadata = read(metadata) if os.path.exists(metadata) else None
            found.append(Migration(
                version=stamp.replace("-", ""),
                name=name,
                up=read(os.path.join(place, "up.sql")),
                down=read(os.path.join(place, "down.sql")),
                transaction=not (metadata and re.search(r"^run_in_transaction\s*=\s*false", metadata, re.M)),
                metadata=metadata,
            ))
    return sorted(found, key=lambda migration: migration.version)


def owned_tables():
    """The tables that the two services own."""
    return sorted(
        table for service in SERVICES
        for table in json.loads(read(os.path.join(ROOT, "migrations", service, "expected.json")))["tables"]
    )


def diesel_layout(directory, services=SERVICES):
    """`<version>_<name>/{up,down}.sql` and metadata.toml: what is in the repository, both services in one directory."""
    for m in migrations(services):
        write(f"{directory}/{m.stem}/up.sql", m.up)
        write(f"{directory}/{m.stem}/down.sql", m.down)
        if m.metadata:
            write(f"{directory}/{m.stem}/metadata.toml", m.metadata)


def sqlx_layout(directory, services=SERVICES):
    """`<version>_<name>.{up,down}.sql`; the first line takes a migration out of its transaction."""
    for m in migrations(services):
        first = "" if m.transaction else "-- no-transaction\n"
        write(f"{directory}/{m.stem}.up.sql", first + m.up)
        write(f"{directory}/{m.stem}.down.sql", first + m.down)


def refinery_layout(directory, concurrently=False):
    """`V<version>__<name>.sql`. refinery runs every migration in a transaction: CONCURRENTLY is taken out."""
    for m in migrations():
        write(f"{directory}/V{m.version}__{m.name}.sql", m.up if concurrently else m.up.replace(" CONCURRENTLY", ""))


def sea_orm_layout(directory):
    """`<version>_<name>.{up,down}.sql`, read by the migration crate beside this file."""
    for m in migrations():
        write(f"{directory}/{m.stem}.up.sql", m.up)
        write(f"{directory}/{m.stem}.down.sql", m.down)
        if not m.transaction:
            write(f"{directory}/{m.stem}.no-transaction", "")


def dbmate_layout(directory):
    """`<version>_<name>.sql` with both directions in one file."""
    for m in migrations():
        option = "" if m.transaction else " transaction:false"
        write(f"{directory}/{m.stem}.sql", f"-- migrate:up{option}\n{m.up}\n-- migrate:down{option}\n{m.down}")


def sqitch_layout(directory):
    """A project: plan, deploy, revert and verify scripts. Verify asks as the tool's manual shows: for columns and names."""
    plan = ["%syntax-version=1.0.0", "%project=compare", ""]
    previous = None
    for m in migrations():
        change = f"{m.name}_{m.version}"
        wrap = ("BEGIN;\n", "\nCOMMIT;\n") if m.transaction else ("", "\n")
        write(f"{directory}/deploy/{change}.sql", wrap[0] + m.up + wrap[1])
        write(f"{directory}/revert/{change}.sql", wrap[0] + m.down + wrap[1])
        write(f"{directory}/verify/{change}.sql", sqitch_verify(m))
        needs = f" [{previous}]" if previous else ""
        plan.append(f"{change}{needs} 2026-11-23T08:00:00Z compare <compare@example.com> # {m.name}")
        previous = change
    write(f"{directory}/sqitch.plan", "\n".join(plan) + "\n")
    write(f"{directory}/sqitch.conf", "[core]\n\tengine = pg\n[user]\n\tname = compare\n\temail = compare@example.com\n")


def sqitch_verify(migration):
    """Selects each column that the migration makes; divides by zero where a named index is not there."""
    columns = {}
    for table, column in re.findall(r"ALTER TABLE (\w+) ADD COLUMN IF NOT EXISTS (\w+)", migration.up):
        columns.setdefault(table, []).append(column)
    checks = [f"SELECT {', '.join(names)} FROM {table} WHERE false;" for table, names in columns.items()]
    checks += [f"SELECT 1 / count(*) FROM pg_class WHERE relname = '{name}';"
               for name in re.findall(r"CREATE (?:UNIQUE )?INDEX CONCURRENTLY IF NOT EXISTS (\w+)", migration.up)]
    return "\n".join(checks or ["SELECT 1;"]) + "\n"
