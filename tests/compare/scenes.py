"""What cannot be told from one run on a quiet database: a run with nothing to do, two runners at once, a runner killed in an index build."""

import statistics
import subprocess
import time

import starts
from tools import Run, finish, kill

# Enough for an index build that lasts long enough to be caught.
BIG_ROWS = 600_000
FROM_VERSION = 20261123090210


def no_op_times(postgres, tools, rounds):
    """Seconds of a run on an up-to-date database: per tool the median of `rounds`, taken in turns so that all meet the same load."""
    times = {}
    for _ in range(rounds):
        for tool in tools:
            run = tool.run(postgres.url(tool.template))
            if run.code == 0:
                times.setdefault(tool.key, []).append(run.seconds)
            if hasattr(tool, "binary_commands"):
                run = tool.run(postgres.url(tool.template), tool.binary_commands())
                times.setdefault(f"{tool.key}_binary", []).append(run.seconds)
        began = time.monotonic()
        subprocess.run(postgres.psql_command("postgres", "-c", "SELECT 1"), capture_output=True, check=True)
        times.setdefault("psql", []).append(time.monotonic() - began)
    return {key: statistics.median(values) for key, values in times.items()}


def two_runners(postgres, judge, tool, rounds):
    """Two runs started together on an empty database, `rounds` times: what both said, and what they left."""
    results = []
    for number in range(rounds):
        database = f"two_{tool.key}"
        postgres.create(database)
        began = time.monotonic()
        processes = [tool.spawn(postgres.url(database)) for _ in range(2)]
        runs = [finish(process, began) for process in processes]
        settle(postgres, database)
        errors, _ = judge.differences(database)
        results.append({
            "round": number, "codes": [run.code for run in runs], "said": [run.said for run in runs if run.code != 0],
            "errors": errors, "seconds": max(run.seconds for run in runs), "recorded": tool.count(postgres, database),
        })
        postgres.drop(database)
    return results


def big_template(postgres, tool):
    """The tool's own complete database with many tasks, two of its indexes gone and the migrations from there on not recorded."""
    name = f"big_{tool.key}"
    postgres.create(name, tool.template)
    postgres.sql(name, f"""
DROP INDEX idx_tasks_user_created_at; DROP INDEX idx_tasks_user_due_date;
INSERT INTO tasks (id, user_id, title, due_date, created_at, updated_at)
SELECT md5('big' || n)::uuid, md5('user' || n % 50 + 1)::uuid, 'task ' || n, '2026-06-01Z', '2026-01-01Z'::timestamptz + n * interval '1 second', '2026-01-01Z'
FROM generate_series(1, {BIG_ROWS}) n;
VACUUM ANALYZE tasks;""")
    if tool.tables:
        postgres.sql(name, tool.forget(f"{tool.recorded} >= '{FROM_VERSION}'"))
    return name


BUILDING = """SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'
AND query ILIKE '%INDEX%idx_tasks_user_created_at%' AND pid <> pg_backend_pid()"""


def wait_for_build(postgres, database, process):
    """The pid of the backend that builds the index, once it has read some of the table."""
    until = time.monotonic() + 60
    query = f"SELECT p.pid FROM pg_stat_progress_create_index p JOIN ({BUILDING}) a USING (pid) WHERE p.blocks_done > 0 OR p.tuples_done > 0"
    while time.monotonic() < until and process.poll() is None:
        pid = postgres.sql(database, query).split()
        if pid:
            return int(pid[0])
    return None


def settle(postgres, database, patience=60):
    """Waits until nobody works in the database any more; answers the seconds."""
    began = time.monotonic()
    while time.monotonic() - began < patience:
        busy = postgres.sql("postgres", f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND backend_type = 'client backend'")
        if int(busy) == 0:
            break
        time.sleep(0.05)
    return time.monotonic() - began


def broken_off(postgres, judge, tool, how):
    """A run broken off in the middle of an index build, then run once more, at once.

    `how` is `client` (SIGKILL to the program) or `server` (its connection ended, as a failover or a restart does).
    """
    template, database = f"big_{tool.key}", f"off_{tool.key}"
    postgres.create(database, template)
    before = count_rows(postgres, database)
    began = time.monotonic()
    process = tool.spawn(postgres.url(database))
    backend = wait_for_build(postgres, database, process)
    if backend is None:
        kill(process)
        first = finish(process, began)
        return {"how": how, "caught": False, "said": first.said}
    after_first = []
    if how == "client":
        kill(process)
        first = Run(None, 0.0, "killed")
        finish(process, began)
    else:
        postgres.sql("postgres", f"SELECT pg_terminate_backend({backend})")
        first = finish(process, began)
        settle(postgres, database)
        after_first, _ = judge.differences(database)
    second = tool.run(postgres.url(database))
    settle(postgres, database)
    errors, _ = judge.differences(database)
    third = tool.run(postgres.url(database)) if errors or second.code != 0 else None
    settle(postgres, database)
    last_errors = judge.differences(database)[0] if third else errors
    result = {
        "how": how, "caught": True, "first": [first.code, first.said, after_first], "second": [second.code, second.said, errors],
        "third": [third.code, third.said, last_errors] if third else None, "lost": before - count_rows(postgres, database),
    }
    postgres.drop(database)
    return result


def count_rows(postgres, database):
    """Rows of the table on which the index is built."""
    return int(postgres.sql(database, "SELECT count(*) FROM tasks"))


def with_recorded_history(postgres, judge, tool):
    """The drifts of shape, with all versions recorded: what a run answers when the schema drifted after the migrations."""
    results = {}
    for start in (start for start in starts.STARTS if start.shape):
        database = f"rec_{tool.key}"
        starts.make(postgres, tool, start, database, "kept")
        run = tool.run(postgres.url(database))
        errors, _ = judge.differences(database)
        results[start.name] = {"code": run.code, "errors": len(errors), "said": run.said}
        postgres.drop(database)
    return results
