"""The tools: how each is called, where it keeps its history, and what else it offers for such a database."""

import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass, field

import sources

# Nothing here takes longer; a tool that waits for ever is ended and told as such.
PATIENCE = 120

TELLING = re.compile(r"error|fail|fatal|panic|refus|cannot|mismatch|missing|violat|in the way|not converge|deadlock|not valid|invalid", re.I)


@dataclass
class Run:
    """What a run did: exit code (None: ended for taking too long), seconds, and everything it printed."""

    code: int | None
    seconds: float
    output: str = ""

    @property
    def said(self):
        """The first line that tells of a failure, or for a success the last line."""
        lines = [line.strip() for line in clean(self.output).splitlines() if line.strip()]
        # The first line that any of these finds, the most telling first: some print the whole SQL before the reason.
        patterns = [r"^Failed to run migrations", r"\bERROR:", TELLING] if self.code != 0 else []
        telling = [line for pattern in patterns for line in lines if re.search(pattern, line)]
        line = (telling or lines[-1:] or ["(nothing)"])[0]
        return line if len(line) <= 200 else line[:199] + "…"


def clean(text):
    """Without colours, addresses of this run and its directories."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    text = re.sub(r"\S*@127\.0\.0\.1:\d+/\S*", "<url>", text)
    return re.sub(r"(/[\w.@+-]+){2,}/", "…/", text)


def start_process(command, environment, directory):
    """A process in a group of its own, so that it can be killed with all that it started."""
    return subprocess.Popen(command, env=environment, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True)


def kill(process):
    """SIGKILL to the process and all that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def finish(process, since, patience=PATIENCE):
    """Waits for the end and answers the run."""
    try:
        output, _ = process.communicate(timeout=patience)
        return Run(process.returncode, time.monotonic() - since, output)
    except subprocess.TimeoutExpired:
        kill(process)
        output, _ = process.communicate()
        return Run(None, time.monotonic() - since, output)


@dataclass(frozen=True)
class Option:
    """Something else that a tool offers: tried on one start, after `before` if that is given."""

    start: str
    words: str
    commands: object
    history: str | None = None


@dataclass
class Tool:
    """A tool as the comparison sees it."""

    key: str
    title: str
    program: str
    version_command: list[str]
    # Tables of its own, dropped before its result is compared; the first is the history.
    tables: list[str] = field(default_factory=list)
    # SQL that answers the recorded versions as text.
    recorded: str = ""
    directory: str = ""
    environment: dict = field(default_factory=dict)
    note: str = ""

    @property
    def template(self):
        """The database that this tool itself made from an empty one, with rows in it."""
        return f"complete_{self.key}"

    def lay(self, work):
        """Generates the layout it reads, under `work`."""
        raise NotImplementedError

    def commands(self, url):
        """The command lines of one run, in order; the next is not run when one fails."""
        raise NotImplementedError

    def options(self, url):
        """What else it offers."""
        return []

    def variables(self, url):
        """The environment of a run: nothing of the caller's but where programs are."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME", "LANG") if name in os.environ}
        return {**kept, "DATABASE_URL": url, "NO_COLOR": "1", **self.environment}

    def run(self, url, commands=None):
        """Runs it once, to its end."""
        began, output, code = time.monotonic(), "", 0
        for command in commands or self.commands(url):
            run = finish(start_process(command, self.variables(url), self.directory), time.monotonic())
            output, code = output + run.output, run.code
            if code != 0:
                break
        return Run(code, time.monotonic() - began, output)

    def spawn(self, url):
        """Starts the run and does not wait; several commands are chained by a shell."""
        commands = self.commands(url)
        if len(commands) > 1:
            commands = [["sh", "-c", " && ".join(" ".join(f"'{word}'" for word in command) for command in commands)]]
        return start_process(commands[0], self.variables(url), self.directory)

    def version(self):
        """What it says of itself."""
        answer = subprocess.run(self.version_command, capture_output=True, text=True)
        found = re.search(r"\d+\.\d+(\.\d+)?", answer.stdout + answer.stderr)
        return found[0] if found else "?"

    def remember(self, postgres):
        """Keeps the history of the template, to fill it in by hand elsewhere."""
        self.history = postgres.dump(self.template, *[f"--table={table}" for table in self.tables[:1]]) if self.tables else ""

    def set_history(self, postgres, database, state):
        """Brings the tool's own history to `state` (see `Start`)."""
        if not self.tables or state in ("kept", "none"):
            return
        if state == "dropped":
            postgres.sql(database, self.drop_history())
        elif state == "empty":
            postgres.sql(database, self.forget("true"))
        else:
            postgres.sql(database, self.drop_history() + self.history)
            if state.startswith("only:"):
                kept = ", ".join(f"'{version}'" for version in state.removeprefix("only:").split(","))
                postgres.sql(database, self.forget(f"{self.recorded} NOT IN ({kept})"))

    def drop_history(self):
        """SQL that takes all its own tables away."""
        return "".join(f"DROP TABLE IF EXISTS public.{table} CASCADE;\n" for table in self.tables)

    def forget(self, condition):
        """SQL that removes the history rows of which `condition` is true."""
        return f"DELETE FROM public.{self.tables[0]} WHERE {condition};"

    def count(self, postgres, database):
        """How many versions it has recorded; None where it keeps no history."""
        if not self.tables:
            return None
        table = self.tables[0] if "." in self.tables[0] else f"public.{self.tables[0]}"
        if postgres.sql(database, f"SELECT to_regclass('{table}') IS NULL").strip() == "t":
            return 0
        return int(postgres.sql(database, f"SELECT count(*) FROM {table}"))


class Ours(Tool):
    """`auth-service migrate up` and `task-service migrate up`."""

    def lay(self, work):
        self.directory = work

    def commands(self, url):
        return [[os.path.join(self.program, f"{service}-service"), "migrate", "up"] for service in sources.SERVICES]

    def remember(self, postgres):
        """The history, and whichever tables the engine keeps its ledger in."""
        ledger = postgres.sql(self.template, "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname LIKE '\\_\\_migration%'")
        self.tables = [self.tables[0], *ledger.split()]
        super().remember(postgres)

    def offers(self, command, word):
        """Whether this build knows `word` in the help of `migrate <command>`."""
        program = os.path.join(self.program, "auth-service")
        answer = subprocess.run([program, "migrate", *command, "--help"], capture_output=True, text=True)
        return answer.returncode == 0 and word in answer.stdout

    def options(self, url):
        both = [os.path.join(self.program, f"{service}-service") for service in sources.SERVICES]
        found = []
        if self.offers(["up"], "--time-zone"):
            found.append(Option("zone", "`migrate up --time-zone UTC`", [[p, "migrate", "up", "--time-zone", "UTC"] for p in both]))
        if self.offers(["repair"], "--apply"):
            found.append(Option("ahead", "`migrate repair --apply`", [[p, "migrate", "repair", "--apply"] for p in both]))
        if self.offers(["down"], "--allow-data-loss"):
            found.append(Option("ahead", "`migrate down --steps 19` without `--allow-data-loss`", [[both[0], "migrate", "down", "--steps", "19"]]))
        return found


class Diesel(Tool):
    """`diesel migration run`."""

    def lay(self, work):
        self.directory = work
        sources.write(f"{work}/diesel.toml", "")
        sources.diesel_layout(f"{work}/migrations")

    def commands(self, url, *words):
        return [[self.program, "migration", *(words or ["run"]), "--migration-dir", "migrations"]]

    def options(self, url):
        return [
            Option("ahead", "`diesel migration redo`: reverts and runs the last migration", self.commands(url, "redo")),
            Option("ahead", "`diesel migration redo --all`: reverts and runs all", self.commands(url, "redo", "--all")),
        ]


class Sqlx(Tool):
    """`sqlx migrate run`."""

    def lay(self, work):
        self.directory = work
        sources.sqlx_layout(f"{work}/migrations")
        for service in sources.SERVICES:
            sources.sqlx_layout(f"{work}/{service}", [service])

    def commands(self, url, *words, source="migrations"):
        return [[self.program, "migrate", *(words or ["run"]), "--source", source, "--no-dotenv"]]

    def options(self, url):
        return [
            Option("nullable", "`sqlx migrate override skip`: the baseline", self.commands(url, "override", "skip")),
            Option("empty", "two directories, as the services have them, one after the other", self.commands(url, source="auth") + self.commands(url, source="task")),
            Option("empty", "the same with `--ignore-missing`", self.commands(url, source="auth") + self.commands(url, "run", "--ignore-missing", source="task")),
            Option("half_by_hand", "`sqlx migrate run --ignore-missing`", self.commands(url, "run", "--ignore-missing")),
        ]


class Refinery(Tool):
    """`refinery migrate`."""

    def lay(self, work):
        self.directory = work
        sources.refinery_layout(f"{work}/migrations")
        sources.refinery_layout(f"{work}/concurrently", concurrently=True)

    def commands(self, url, *words, path="migrations"):
        return [[self.program, "migrate", "-e", "DATABASE_URL", "-p", path, *words]]

    def options(self, url):
        return [
            Option("empty", "our SQL as it is, with CONCURRENTLY", self.commands(url, path="concurrently")),
            Option("incident", "`-g`: all migrations in one transaction", self.commands(url, "-g")),
            Option("nullable", "`-f`: the baseline", self.commands(url, "-f")),
            Option("half_by_hand", "`-d -m`: stop at divergent or missing versions", self.commands(url, "-d", "-m")),
        ]


class SeaOrm(Tool):
    """`sea-orm-cli migrate up`, which builds and runs a migration crate of ours."""

    crate = ""

    def lay(self, work):
        self.directory = work
        sources.sea_orm_layout(f"{work}/sql")
        self.environment = {"SQL_DIR": f"{work}/sql", "CARGO_TARGET_DIR": f"{self.crate}/target", "CARGO_NET_OFFLINE": "true", "CARGO_TERM_QUIET": "true"}

    def commands(self, url, *words):
        return [[self.program, "migrate", "-d", self.crate, *(words or ["up"])]]

    def binary_commands(self):
        """The migration program itself, without `cargo run` before it."""
        return [[f"{self.crate}/target/debug/migration", "up"]]

    def options(self, url):
        return [
            Option("ahead", "`sea-orm-cli migrate refresh`: reverts and runs all", self.commands(url, "refresh")),
            Option("ahead", "`sea-orm-cli migrate fresh`: drops every table and runs all", self.commands(url, "fresh")),
        ]


class Dbmate(Tool):
    """`dbmate migrate`."""

    def lay(self, work):
        self.directory = work
        sources.dbmate_layout(f"{work}/migrations")

    def commands(self, url, *words):
        return [[self.program, "--no-dump-schema", "--migrations-dir", "migrations", *(words or ["migrate"])]]

    def options(self, url):
        return [
            Option("half_by_hand", "`dbmate migrate --strict`", self.commands(url, "migrate", "--strict")),
            Option("ahead", "`dbmate rollback`, then `migrate`", self.commands(url, "rollback") + self.commands(url)),
        ]


class Sqitch(Tool):
    """`sqitch deploy --verify`."""

    def lay(self, work):
        self.directory = work
        sources.sqitch_layout(work)

    def commands(self, url, *words):
        return [[self.program, *(words or ["deploy", "--verify"]), self.target(url)]]

    @staticmethod
    def target(url):
        return "db:pg:" + url.removeprefix("postgres:").split("?")[0]

    def remember(self, postgres):
        self.history = postgres.dump(self.template, "--schema=sqitch")

    def drop_history(self):
        return "DROP SCHEMA IF EXISTS sqitch CASCADE;\n"

    def forget(self, condition):
        doomed = f"SELECT change_id FROM sqitch.changes WHERE {condition}"
        return f"DELETE FROM sqitch.dependencies WHERE dependency_id IN ({doomed}); " + "".join(
            f"DELETE FROM sqitch.{table} WHERE change_id IN ({doomed}); " for table in ("dependencies", "tags", "events", "changes"))

    def options(self, url):
        return [
            Option("nullable", "`sqitch deploy --log-only`: the baseline, then `sqitch verify`", self.commands(url, "deploy", "--log-only") + self.commands(url, "verify")),
            Option("ahead", "`sqitch verify`, with verify scripts that ask for columns and index names", self.commands(url, "verify")),
            Option("ahead", "`sqitch rebase -y`: reverts and runs all", self.commands(url, "rebase", "-y")),
        ]


class Migra(Tool):
    """`migra`: the schema difference to a fresh database as SQL, read by a person, given to psql."""

    expected_url = ""

    def lay(self, work):
        self.directory = work

    def commands(self, url, *words):
        return [[os.path.join(os.path.dirname(os.path.abspath(__file__)), "migra_and_psql"), *words]]

    def variables(self, url):
        return {**super().variables(url), "EXPECTED_URL": self.expected_url, "OWNED_TABLES": " ".join(sources.owned_tables())}

    def options(self, url):
        return [Option("incident", "without `--unsafe` and without a person", self.commands(url, "--safe"))]
