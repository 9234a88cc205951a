"""A private PostgreSQL on a free loopback port, and the few things that are asked of it."""

import atexit
import glob
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

OLDEST_MAJOR = 14

# No notices.
QUIET = {**os.environ, "PGOPTIONS": "-c client_min_messages=warning"}

# What psql echoes after each call; no value in the databases looks like it.
END = "end-of-answer-of-psql"


class Failure(Exception):
    """Stops the comparison: says what is wrong and what to do."""


def version_of(directory):
    """(major, minor) of the server in `directory`, or None."""
    if not all(os.path.isfile(os.path.join(directory, name)) for name in ("initdb", "pg_ctl", "postgres")):
        return None
    answer = subprocess.run([os.path.join(directory, "postgres"), "--version"], capture_output=True, text=True)
    found = re.search(r"\(PostgreSQL\) (\d+)(?:\.(\d+))?", answer.stdout)
    return (int(found[1]), int(found[2] or 0)) if found else None


def find_binaries():
    """The directory of the newest PostgreSQL: `PG_BIN_DIR` alone if set, else PATH, Debian's places and Homebrew's."""
    chosen = os.environ.get("PG_BIN_DIR")
    places = [chosen] if chosen else os.environ.get("PATH", "").split(os.pathsep) + [
        place
        for pattern in ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin",
                        "/usr/local/opt/postgresql*/bin")
        for place in glob.glob(pattern)
    ]
    found = [(version, place) for place in places if (version := version_of(place))]
    if not found or max(found)[0][0] < OLDEST_MAJOR:
        where = f"PG_BIN_DIR={chosen}" if chosen else "PATH, /usr/lib/postgresql/*/bin"
        raise Failure(f"no PostgreSQL {OLDEST_MAJOR} or later in {where}: install it (`sudo apt-get install -y postgresql`) or set PG_BIN_DIR")
    version, place = max(found)
    return place, ".".join(map(str, version))


class Postgres:
    """The cluster; gone when the program ends, also by Ctrl-C or SIGTERM."""

    def __init__(self):
        self.bin, self.version = find_binaries()
        self.user = self._unprivileged()
        self.base = tempfile.mkdtemp(prefix="compare-pg-")
        if self.user:
            shutil.chown(self.base, *self.user)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._psql, self._errors = None, None
        data = os.path.join(self.base, "data")
        atexit.register(self.stop)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        self._run("initdb", "-D", data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
        # Nothing here must survive a power cut; every other setting is PostgreSQL's default.
        settings = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.base} -c fsync=off"
        self._run("pg_ctl", "-D", data, "-l", os.path.join(self.base, "log"), "-w", "-o", settings, "start")

    @staticmethod
    def _unprivileged():
        """PostgreSQL refuses to run as root: (uid, gid) of `postgres` or `nobody` then."""
        if os.geteuid() != 0:
            return None
        for name in ("postgres", "nobody"):
            try:
                entry = pwd.getpwnam(name)
                return entry.pw_uid, entry.pw_gid
            except KeyError:
                continue
        raise Failure("PostgreSQL refuses to run as root and there is no user postgres or nobody: create one with `useradd --system postgres`")

    def _run(self, program, *arguments):
        drop = {"user": self.user[0], "group": self.user[1], "extra_groups": []} if self.user else {}
        # The server keeps what it inherits open: no pipe, or reading its end would wait for the server.
        with tempfile.TemporaryFile() as output:
            code = subprocess.run([os.path.join(self.bin, program), *arguments], stdin=subprocess.DEVNULL, stdout=output,
                                  stderr=output, cwd="/", **drop).returncode
            output.seek(0)
            if code != 0:
                raise Failure(f"{program} failed: {output.read().decode(errors='replace').strip()[-500:]}")

    def stop(self):
        """Ends the server and removes its files."""
        if self._psql:
            self._psql.kill()
        data = os.path.join(self.base, "data")
        if os.path.exists(os.path.join(data, "postmaster.pid")):
            self._run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(self.base, ignore_errors=True)

    def url(self, database):
        """The URL of `database`."""
        return f"postgres://postgres@127.0.0.1:{self.port}/{database}?sslmode=disable"

    def client(self, name):
        """Path of psql or pg_dump: beside the server, else on PATH."""
        beside = os.path.join(self.bin, name)
        path = beside if os.path.isfile(beside) else shutil.which(name)
        if not path:
            raise Failure(f"{name} is not beside {self.bin} nor on PATH: install it (`sudo apt-get install -y postgresql-client`)")
        return path

    def psql_command(self, database, *more):
        """The command line of a psql that stops at the first error and reads no configuration."""
        return [self.client("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", self.url(database), *more]

    def sql(self, database, text):
        """Runs `text`; answers what psql prints. One psql serves all calls: starting one each time is most of the work."""
        if self._psql is None or self._psql.poll() is not None:
            self._errors = tempfile.TemporaryFile(mode="w+")
            self._psql = subprocess.Popen(self.psql_command("postgres"), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                          stderr=self._errors, text=True, env=QUIET)
        # Back to `postgres` at the end: a connection would keep its database from being copied or dropped.
        self._psql.stdin.write(f"\\connect {self.url(database)}\n{text}\n;\n\\connect {self.url('postgres')}\n\\echo {END}\n")
        self._psql.stdin.flush()
        lines = []
        for line in self._psql.stdout:
            if line == f"{END}\n":
                return "".join(lines)
            lines.append(line)
        self._psql.wait()
        self._errors.seek(0)
        raise Failure(f"SQL failed in {database}: {self._errors.read().strip()}\n{text[:400]}")

    def file(self, database, path):
        """Runs a file, which may include others with \\ir."""
        answer = subprocess.run(self.psql_command(database, "-f", path), capture_output=True, text=True)
        if answer.returncode != 0:
            raise Failure(f"{path} failed in {database}: {answer.stderr.strip()}")

    def create(self, database, template="template0"):
        """Makes `database` anew as a copy of `template`."""
        self.drop(database)
        self.sql("postgres", f'CREATE DATABASE "{database}" TEMPLATE "{template}"')

    def drop(self, database):
        """Drops `database` and ends who is connected to it."""
        self.sql("postgres", f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')

    def dump(self, database, *arguments):
        """pg_dump as text, without the random key of its \\restrict line."""
        command = [self.client("pg_dump"), "-d", self.url(database), *arguments]
        answer = subprocess.run(command, capture_output=True, text=True)
        if answer.returncode != 0:
            raise Failure(f"pg_dump of {database} failed: {answer.stderr.strip()}")
        return "\n".join(line for line in answer.stdout.splitlines() if not re.match(r"\\(un)?restrict ", line))
