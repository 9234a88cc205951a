"""The tables of docs/COMPARISON.md, made from the results; the text around them is written by hand."""

import re

from postgres import Failure


def fill(path, results):
    """Replaces what stands between `<!-- begin NAME -->` and `<!-- end NAME -->` in the page."""
    with open(path, encoding="utf-8") as file:
        whole = file.read()
    for name, table in tables(results).items():
        pattern = re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.S)
        if not pattern.search(whole):
            raise Failure(f"{path}: no place for the table {name}: add the lines <!-- begin {name} --> and <!-- end {name} -->")
        whole = pattern.sub(lambda found: found[1] + table.rstrip("\n") + "\n" + found[2], whole)
    with open(path, "w", encoding="utf-8") as file:
        file.write(whole)


def text(results):
    """All tables one after the other."""
    return "\n".join(f"## {name}\n\n{table}" for name, table in tables(results).items())


def tables(results):
    """Each table by its name; those of parts that were not run are left out. The tools stand in the same order everywhere."""
    def in_order(part):
        return {key: part[key] for key in results["tools"] if key in part}

    results = results | {part: in_order(results[part]) for part in ("recorded_shape", "options", "two", "off")}
    results["starts"] = {name: start | {"tools": in_order(start["tools"])} for name, start in results["starts"].items()}
    made = {"versions": versions(results), "summary": summary(results), "starts": matrix(results), "left": left(results),
            "recorded": recorded(results), "options": options(results), "opinion": opinion(results), "runs": runs(results)}
    if results["times"]:
        made |= {"times": times(results), "two": two(results), "off": off(results)}
    return made


def table(head, rows):
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines) + "\n"


def quoted(said):
    """What a tool said, as code."""
    return "`" + said.replace("`", "'") + "`"


def versions(results):
    named = ", ".join(f"{tool['title']} {tool['version']}" for key, tool in results["tools"].items() if key != "ours")
    return (f"Run on {results['date']}, PostgreSQL {results['postgres']}, {results['cores']} cores, our programs at commit `{results['commit']}` "
            f"with {results['migrations']} migrations. Compared: {named}.\n")


def cell(answer, key):
    """One start given to one tool, in a few words. Exit code 3 is a refusal where we say it; for psql it is an error."""
    first, second = answer["first"], answer["second"]
    words = {
        "right": "equal",
        "false": f"**done, {len(first['errors'])} wrong**",
        "refused": f"{'refused' if key == 'ours' and first['code'] == 3 else 'failed'} ({first['code']}), nothing changed",
        "half": f"failed ({first['code']}) half way, {len(first['errors'])} wrong",
        "late": f"failed ({first['code']}), schema equal",
    }[answer["outcome"]]
    if first["lost"]:
        words += f", **{first['lost']} rows lost**"
    if (answer["again"], len(second["errors"])) != (answer["outcome"], len(first["errors"])):
        words += "; again: " + {"right": "equal", "false": f"**done, {len(second['errors'])} wrong**", "refused": f"stopped ({second['code']})",
                                "half": f"failed ({second['code']}), {len(second['errors'])} wrong", "late": f"failed ({second['code']})"}[answer["again"]]
    return words


def matrix(results):
    titles = [tool["title"] for tool in results["tools"].values()]
    rows = [[start["title"], *[cell(start["tools"][key], key) for key in results["tools"]]] for start in results["starts"].values()]
    return table(["start", *titles], rows)


def summary(results):
    rows = []
    for key, tool in results["tools"].items():
        answers = [start["tools"][key] for start in results["starts"].values()]
        count = {word: sum(answer["outcome"] == word for answer in answers) for word in ("right", "false", "refused", "half", "late")}
        rows.append([
            tool["title"], count["right"] + count["late"], f"**{count['false']}**", count["refused"], count["half"],
            sum(answer["first"]["lost"] + answer["second"]["lost"] for answer in answers),
        ])
    total = len(results["starts"])
    return table([f"of {total} starts", "schema equal", "says done over a wrong schema", "refused or failed, nothing changed", "failed half way", "rows lost"], rows)


def left(results):
    """What was still wrong where a tool said it was done."""
    rows = []
    for start in results["starts"].values():
        groups = {}
        for key, answer in start["tools"].items():
            if answer["outcome"] == "false":
                groups.setdefault(tuple(answer["first"]["errors"]), []).append(results["tools"][key]["title"])
        for errors, titles in groups.items():
            named = "; ".join(errors[:10]) + (f"; and {len(errors) - 10} more" if len(errors) > 10 else "")
            rows.append([start["title"], ", ".join(titles), named])
    return table(["start", "said done", "still wrong"], rows)


def recorded(results):
    rows = []
    for key, drifts in results["recorded_shape"].items():
        said = {"false": [], "right": [], "stopped": []}
        for name, answer in drifts.items():
            said["stopped" if answer["code"] != 0 else "false" if answer["errors"] else "right"].append(name)
        rows.append([results["tools"][key]["title"], len(said["right"]), f"**{len(said['false'])}**",
                     f"{len(said['stopped'])}" + (f" ({', '.join(said['stopped'])})" if said["stopped"] else "")])
    total = max((len(drifts) for drifts in results["recorded_shape"].values()), default=0)
    return table([f"of {total} drifts", "equal", "says done over a wrong schema", "exit code other than 0"], rows)


def options(results):
    rows = []
    for key, tried in results["options"].items():
        for option in tried:
            words = cell({"first": option, "second": option, "outcome": option["outcome"], "again": option["outcome"]}, key)
            rows.append([results["tools"][key]["title"], option["words"], results["starts"].get(option["start"], {}).get("title", option["start"]),
                         words, quoted(option["said"]) if option["code"] != 0 else ""])
    return table(["tool", "tried", "on", "what came of it", "says"], rows)


def opinion(results):
    """How far pg_dump agrees with our comparison."""
    both, neither, apart = 0, 0, []
    for start in results["starts"].values():
        for key, answer in start["tools"].items():
            ours = not answer["first"]["errors"]
            if ours == answer["pg_dump_equal"]:
                both, neither = both + ours, neither + (not ours)
            else:
                what = "; ".join(answer["first"]["errors"]) or f"{answer['first']['warnings']} warnings"
                apart.append([start["title"], results["tools"][key]["title"], "equal" if ours else "differs", what])
    rows = f"Both say equal: {both}. Both say different: {neither}. They disagree: {len(apart)}.\n"
    return rows + ("\n" + table(["start", "tool", "our comparison", "what it names"], apart) if apart else "")


def times(results):
    medians, ours = results["times"], results["times"].get("ours")
    names = {key: tool["title"] for key, tool in results["tools"].items()}
    names["ours"] = "ours, both services one after the other"
    if "sea_orm" in names:
        names |= {"sea_orm": "sea-orm-cli (runs `cargo run`)", "sea_orm_binary": "sea-orm, the migration program alone"}
    names["psql"] = "`psql -c 'SELECT 1'`, for scale"
    rows = [[names[key], f"{seconds * 1000:.0f} ms", f"{seconds / ours:.2f}" if ours else ""]
            for key, seconds in sorted(medians.items(), key=lambda item: item[1]) if key in names]
    return table(["run with nothing to do", f"median of {results['rounds']}", "ratio to ours"], rows)


def two(results):
    rows = []
    for key, rounds in results["two"].items():
        bad = [r for r in rounds if any(code != 0 for code in r["codes"])]
        said = sorted({line for r in rounds for line in r["said"]})
        rows.append([
            results["tools"][key]["title"], f"{len(rounds) - len(bad)} of {len(rounds)}",
            sum(bool(r["errors"]) for r in rounds), f"{max(r['seconds'] for r in rounds):.1f} s", "<br>".join(quoted(line) for line in said[:2]),
        ])
    return table(["two runners on an empty database", "both exit 0", "schema wrong afterwards", "longest", "what the failing one said"], rows)


def off(results):
    rows = []
    for key, tries in results["off"].items():
        for one in tries:
            how = {"client": "SIGKILL to the program", "server": "its connection ended by the server"}[one["how"]]
            if not one["caught"]:
                rows.append([results["tools"][key]["title"], how, "no index build to catch", quoted(one["said"]), ""])
                continue
            first = "killed" if one["how"] == "client" else after(one["first"])
            rows.append([results["tools"][key]["title"], how, first, after(one["second"]), after(one["third"]) if one["third"] else ""])
    return table(["tool", "broken off by", "what that run left", "run once more, at once", "and once more"], rows)


def after(run):
    """A run after the broken one."""
    code, said, errors = run
    if code == 0:
        return f"**done, {len(errors)} wrong: {'; '.join(errors)}**" if errors else "equal"
    return f"exit {code}, {len(errors)} wrong: {quoted(said)}" if code is not None else f"ended after two minutes, {len(errors)} wrong"


def runs(results):
    rows = []
    for start in results["starts"].values():
        for key, answer in start["tools"].items():
            first, second = answer["first"], answer["second"]
            recorded_of = "" if answer["recorded"] is None else f"{answer['recorded']}"
            rows.append([
                start["title"], results["tools"][key]["title"], first["code"], f"{first['seconds']:.1f}", len(answer["before"]), len(first["errors"]),
                first["warnings"], first["changed"], first["lost"], recorded_of, second["code"], len(second["errors"]), quoted(first["said"]),
            ])
    return table(["start", "tool", "exit", "s", "wrong before", "wrong after", "warnings", "rows changed", "rows lost", "recorded", "exit again",
                  "wrong then", "says"], rows)
