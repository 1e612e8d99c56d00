"""The record of a comparison as Markdown and as a picture of ratios."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks import ceiling
from benchmarks.pictures import COLORS, mark, new_figure, to_png
from benchmarks.report import digits, heading, table
from benchmarks.workloads import Workload
from fcnet.backends.cuda.gemm import WORKSPACE
from fcnet.backends.cuda.side_stream import STREAMS

Record = Mapping[str, Any]
SHORT = {"unavailable": "n/a", "unsupported": "–", "slow": "–", "wrong": "refused"}  # other kinds as they are


def markdown(record: Record) -> str:
    """Return the tables of times, ratios with their goals, memory, and what was not timed."""
    rows = {(row["workload"], row["contender"]): row for row in record["rows"]}
    workloads = [Workload.from_dict(fields) for fields in record["workloads"]]
    columns = list(dict.fromkeys(contender for _, contender in rows))
    lines = [
        *heading(f"Training steps on {record['device']}, {record['date']}", record, record["versions"]),
        "Microseconds per step (gather a shuffled batch, forward, backward, Adam; float32; "
        f"{record['threads']} thread{'s' * (record['threads'] > 1)}): median over the rounds ± interquartile range. "
        "Contenders took turns, each in a process of its own, "
        "and every one's losses agreed with a float64 answer before it was timed. `jax` queues its steps, `jax-sync` "
        "waits for each as the others do; `gemm` is the matrix products alone. What is timed: "
        "`benchmarks/README.md`.",
        "",
    ]
    steps = [
        [f"{workload.name}: {workload.describe()}", *(_cell(rows.get((workload.name, name), {})) for name in columns)]
        for workload in workloads
    ]
    lines += table(["workload", *columns], steps)
    lines += _both_times(record, workloads)
    lines += _ratios(record)
    lines += _paces(record)
    lines += _of_ceiling(record)
    lines += _memory(record)
    lines += _compilation(record, columns)
    refused = [row for row in record["rows"] if "refused" in row and row["kind"] not in ("unsupported", "slow")]
    if untold := [*(f"- {row['workload']}, {row['contender']}: {row['refused']}" for row in refused), *_late(record)]:
        lines += ["", "## Not timed", "", *untold]
    return "\n".join(lines) + "\n"


def _late(record: Record) -> Iterable[str]:
    """Yield the ways to write a step that there was no time to build, or that failed; another one was timed."""
    for row in record["rows"]:
        about = row.get("about", {})
        for way in about.get("no_time_for", []):
            yield f"- {row['workload']}, {row['contender']}, {way}: there was no time to build it"
        for way, why in about.get("failed", {}).items():
            yield f"- {row['workload']}, {row['contender']}, {way}: {why}"


def _cell(row: Mapping[str, Any]) -> str:
    if "median_us" in row:
        return f"{digits(row['median_us'])} ± {digits(row['iqr_us'])}"
    return SHORT.get(row.get("kind", ""), row.get("kind", ""))


def _ratios(record: Record) -> Iterable[str]:
    if not record["ratios"]:
        return
    yield from ("", "## Ratios", "", "Time of the first over the second, round by round: median (quartiles).", "")
    rows = []
    for row in record["ratios"]:
        goal, value = row["goal"], row["ratio"]
        verdict = "" if goal is None else "reached" if value >= goal else "missed"
        spread = f"{value:.2f} ({row['low']:.2f}–{row['high']:.2f})"
        pair = f"{row['of']} ÷ {row['to']}"
        rows.append([row["workload"], pair, spread, f"{goal:.2f}" if goal else "", verdict])
    yield from table(["workload", "ratio", "", "goal", ""], rows, left=(0, 1, 4))


def _both_times(record: Record, workloads: Iterable[Workload]) -> Iterable[str]:
    """Return of each net timed twice the best framework's time over fcnet's, and NumPy's, at first and later."""
    names = [workload.name for workload in workloads]
    both = [name for name in names if f"{name}-later" in names]
    if not both:
        return
    found: dict[tuple[str, str], str] = {}
    for row in record["ratios"]:  # the best framework's comes first
        found.setdefault((row["workload"], row["to"]), f"{row['ratio']:.2f} ({row['of']})")
    yield from ("", "## First steps and later ones", "", "Median ratios of times; above 1 fcnet is faster.", "")
    rows = [
        [name, *(found.get((form, to), "") for to in ("fcnet", "fcnet-numpy") for form in (name, f"{name}-later"))]
        for name in both
    ]
    columns = ("best framework ÷ fcnet", "later", "NumPy as in the courses ÷ fcnet, NumPy only", "later")
    yield from table(["net", *columns], rows)


def _paces(record: Record) -> Iterable[str]:
    """Return how long fcnet's steps take in the course of a training, a hundred at a time."""
    rows = []
    for row in record["rows"]:
        if paces := row.get("paces_us"):
            slowest = max(paces)
            cells = [digits(paces[0]), digits(slowest), f"{100 * paces.index(slowest):,}"]
            rows.append([row["workload"], row["contender"], *cells, f"{slowest / paces[0]:.2f}"])
    if rows:
        yield from ("", "## In the course of a training", "")
        yield "Medians of each hundred steps of a training, microseconds (goal: the highest at most 1.1 of the first)."
        yield ""
        yield from table(["workload", "", "first", "highest", "from step", "ratio"], rows, left=(0, 1))


def _of_ceiling(record: Record) -> Iterable[str]:
    """Return what share of its best speed a step's products reach on a GPU, and fcnet's memory there."""
    if "ceiling" not in record:
        return
    found = record["ceiling"]
    yield from ("", "## Share of the ceiling, and memory of the device", "")
    yield ceiling.described(found)
    yield "Share: floating-point operations of the step's products, over its time, over that speed."
    yield "Memory: fcnet's own pool without cuBLAS's workspace, over parameters x 4 + data + activations (goal: 1.20)."
    yield ""
    rows = []
    for fields in record["workloads"]:
        workload = Workload.from_dict(fields)
        ours = (r for r in record["rows"] if (r["workload"], r["contender"]) == (workload.name, "fcnet"))
        row: Mapping[str, Any] = next(ours, {})
        if "median_us" not in row or workload.precision not in found["flops"]:
            continue
        share = workload.flops / (row["median_us"] / 1e6) / found["flops"][workload.precision]
        goal = workload.goal_ceiling
        verdict = "" if goal is None else "reached" if share >= goal else "missed"
        held = row["about"].get("device_memory")
        memory = "" if held is None else f"{(held - STREAMS * WORKSPACE) / workload.device_memory:.2f}"
        rows.append([workload.name, f"{share:.2f}", "" if goal is None else f"{goal:.2f}", verdict, memory])
    yield from table(["workload", "share", "goal", "", "memory"], rows, left=(0, 3))


def _memory(record: Record) -> Iterable[str]:
    weighed = [row for row in record["memory"] if "growth" in row]
    if not weighed:
        return
    allowed = weighed[0]["allowed"] / 2**20
    yield from ("", f"## Peak memory of `{weighed[0]['workload']}`", "")
    yield (
        "Above the same process after imports and a first training; beside parameters x 5 + data + activations "
        f"= {allowed:.0f} MiB (goal for fcnet: at most 1.30 of it)."
    )
    yield ""
    rows = []
    for row in weighed:
        note = "" if row["exact"] else " (of the process's whole life)"
        share = row["growth"] / row["allowed"]
        rows.append([row["contender"] + note, f"{row['growth'] / 2**20:.0f}", f"{share:.2f}"])
    yield from table(["contender", "MiB", "of that"], rows)


def _compilation(record: Record, columns: list[str]) -> Iterable[str]:
    """Return the table of first steps and the ways chosen, apart from the times above."""
    yield from ("", "## First step, compilation included", "")
    rows = []
    for name in columns:
        made = [row for row in record["rows"] if row["contender"] == name and "import_s" in row]
        if not made:
            continue
        first = [row["about"]["first_step_s"] for row in made if "first_step_s" in row.get("about", {})]
        ways: dict[str, list[str]] = {}
        for row in made:
            if "variant" in row.get("about", {}):
                ways.setdefault(row["about"]["variant"], []).append(row["workload"])
        # One way for all workloads needs no list of them.
        said = [way if len(ways) == 1 else f"{way} ({', '.join(where)})" for way, where in ways.items()]
        span = "–".join(dict.fromkeys(f"{seconds:.2f}" for seconds in (min(first), max(first)))) if first else ""
        if span:
            rows.append([name, span, "; ".join(said)])
    yield from table(["contender", "first step, s", "written as"], rows, left=(0, 2))


def bars(record: Record) -> bytes:
    """Draw a PNG: time of each contender over fcnet's, a group per workload, goals as dashes.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    medians = {(r["workload"], r["contender"]): r["median_us"] for r in record["rows"] if "median_us" in r}
    groups = [w for w in (fields["name"] for fields in record["workloads"]) if (w, "fcnet") in medians]
    names = [name for name in dict.fromkeys(r["contender"] for r in record["rows"]) if name != "fcnet"]
    names = [name for name in names if any((group, name) in medians for group in groups)]
    goals = {row["workload"]: row["goal"] for row in record["ratios"] if row["to"] == "fcnet" and row["goal"]}
    figure = new_figure("the picture of the comparison", 1.8 + 1.85 * max(2, len(groups)), 3.6)
    panel = figure.subplots()
    width = 0.84 / max(1, len(names))
    highest = lowest = 1.0
    for place, name in enumerate(names):
        for at, group in enumerate(groups):
            if (group, name) not in medians:
                continue
            value = medians[group, name] / medians[group, "fcnet"]
            highest, lowest = max(highest, value), min(lowest, value)
            x = at - 0.42 + (place + 0.5) * width
            label = name if at == next(i for i, g in enumerate(groups) if (g, name) in medians) else None
            panel.bar(x, value - 1, width * 0.92, bottom=1, color=COLORS.get(name, "#777777"), label=label)
            above = value >= 1
            panel.annotate(
                f"{value:.1f}" if value >= 1.095 else f"{value:.2f}",
                (x, value),
                (0, 2 if above else -2),
                textcoords="offset points",
                ha="center",
                va="bottom" if above else "top",
                fontsize=6,
            )
    for at, group in enumerate(groups):
        if group in goals:
            first = "goal for the best framework" if group == next(iter(goals)) else None
            panel.hlines(goals[group], at - 0.45, at + 0.45, colors="0.25", linestyles=(0, (3, 2)), lw=1, label=first)
    panel.axhline(1, color="black", linewidth=1.2)
    panel.set_yscale("log")
    panel.set_ylim(lowest * 0.75, highest * 1.3)
    ticks = [
        t
        for t in (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50)
        if lowest * 0.75 <= t <= highest * 1.3
    ]
    mark(panel.yaxis, ticks, "{x:g}")
    panel.set_xticks(range(len(groups)), groups)
    panel.tick_params(axis="x", length=0)
    panel.set_ylabel("time of a step ÷ fcnet's")
    panel.grid(axis="y", alpha=0.3, linewidth=0.6)
    panel.set_axisbelow(True)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    figure.legend(loc="outside right center", frameon=False, fontsize=8)
    machine = record["machine"]
    where = f"{machine['cpu']}, {record['threads']} threads"
    if record["device"] != "cpu":
        where = ", ".join(machine["gpu"])
    title = f"above 1: slower than fcnet ({where}, {record['date']})"
    panel.set_title(title, fontsize=8, color="0.3", loc="left")
    return to_png(figure)
