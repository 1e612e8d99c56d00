"""From pytest-benchmark's JSON to rows, from rows to a Markdown table and a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any

from benchmarks.pictures import mark, new_figure, time_text, to_png
from benchmarks.problems import PROBLEMS
from benchmarks.timing import summarize

Row = dict[str, Any]  # op width batch device variant, then median_us iqr_us rounds gflops|gbs, or refused
Record = Mapping[str, Any]  # one run: date commit dirty machine grid rows
KEY = ("op", "width", "batch", "device", "variant")
RATE = {"GFLOP/s": "gflops", "GB/s": "gbs"}
TITLES = {
    "affine_forward": "Affine, forward: out = x W + b",
    "affine_backward": "Affine, backward: dx, dW, db",
    "batchnorm_forward": "Batch norm, forward (training)",
    "batchnorm_backward": "Batch norm, backward: dx, dγ, dβ",
}


def rows_from(measured: Mapping[str, Any]) -> list[Row]:
    """Return one row per (op, width, batch, device, variant): the rounds of all its passes together."""
    rounds: dict[tuple, list[float]] = {}
    for test in measured["benchmarks"]:
        key = tuple(test["extra_info"][name] for name in KEY)
        rounds.setdefault(key, []).extend(test["stats"]["data"])
    rows = []
    for key, seconds in rounds.items():
        op, width, batch, *_ = key
        problem, summary = PROBLEMS[op], summarize(seconds)
        rate = problem.work(width, batch) / summary.median_us / 1e3  # per nanosecond: 10⁹ per second
        row = dict(zip(KEY, key, strict=True)) | summary._asdict()
        rows.append(row | {RATE[problem.unit]: float(f"{rate:.4g}")})
    return rows


def to_json(record: Record) -> str:
    """Return the record with one row a line, so that two of them compare well."""

    def dump(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    head = "".join(f" {dump(key)}: {dump(value)},\n" for key, value in record.items() if key != "rows")
    rows = ",\n".join(f"  {dump(row)}" for row in record["rows"])
    return f'{{\n{head} "rows": [\n{rows}\n ]\n}}\n'


def contenders(rows: Iterable[Row]) -> dict[tuple[str, str], str]:
    """Return (device, variant) -> its name in table and legend, the baseline first."""
    found = list(dict.fromkeys((row["device"], row["variant"]) for row in rows))
    devices = list(dict.fromkeys(device for device, _ in found))
    found.sort(key=lambda who: devices.index(who[0]))
    plain = len({variant for _, variant in found}) == 1
    return {who: who[0] if plain else " ".join(who) for who in found}


def heading(title: str, record: Record, versions: Mapping[str, str] | None = None) -> list[str]:
    """Return the title of a table, and the machine for people, with the versions of what was measured."""
    machine = record["machine"]
    parts = [
        f"{machine['cpu']}, {machine['cores']} cores, BLAS threads: {machine['blas_threads'] or 'unknown'}",
        f"Python {machine['python']}, NumPy {machine['numpy']} ({machine['blas']})",
    ]
    if "gpu" in machine:
        gpus = ", ".join(machine["gpu"])
        parts.append(f"{gpus}, driver {machine['driver']}, CuPy {machine['cupy']}, CUDA {machine['cuda']}")
    if machine["load"] is not None:
        parts.append(f"load before the run {machine['load']}")
    commit = (record["commit"] or "unknown")[:12] + (" with changes" if record["dirty"] else "")
    parts.append(f"fcnet {machine['fcnet']}, commit {commit}")
    if versions:
        parts.append(", ".join(f"{name} {number}" for name, number in versions.items()))
    return [f"# {title}", "", f"{'; '.join(parts)}.", ""]


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], left: Iterable[int] = (0,)) -> list[str]:
    """Return the lines of a table; the columns in `left` are text, the others numbers.

    >>> table(["", "µs"], [["a", "1"]])
    ['|  | µs |', '| --- | --: |', '| a | 1 |']
    """
    rule = ["---" if at in left else "--:" for at in range(len(heads))]
    return [f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows)]


def markdown(record: Record) -> str:
    """Return the tables: one per op, a line per width and batch, the devices side by side."""
    rows: Sequence[Row] = record["rows"]
    names = contenders(rows)
    lines = [
        *heading(f"Kernels, {record['date']}", record),
        "Time of one call in float32, outputs given (`out=`, `dx=`, `cache=`) as in a training step: median over "
        "the rounds ± interquartile range, in microseconds. Every result was proved right before it was timed. "
        "What the numbers mean: `benchmarks/README.md`.",
    ]
    by_key = {tuple(row[name] for name in KEY): row for row in rows}
    for op in dict.fromkeys(row["op"] for row in rows):
        unit = PROBLEMS[op].unit
        base, *others = names
        head = ["width", "batch"]
        for who in names:
            head += [f"{names[who]}, µs", unit]
        head += [f"{names[base]} ÷ {names[who]}" for who in others]
        table_rows = []
        for width, batch in dict.fromkeys((row["width"], row["batch"]) for row in rows if row["op"] == op):
            cells = [str(width), str(batch)]
            medians: dict[tuple[str, str], float] = {}
            for who in names:
                row = by_key.get((op, width, batch, *who), {})
                medians[who] = row.get("median_us", 0.0)
                cells += _cells(row, RATE[unit])
            for who in others:
                both = medians[base] and medians[who]
                cells.append(digits(medians[base] / medians[who]) if both else "")
            table_rows.append(cells)
        lines += ["", f"## {TITLES.get(op, op)}", "", *table(head, table_rows, left=())]
    refused = [row for row in rows if "refused" in row]
    if refused:
        lines += ["", "## Refused: not timed", ""]
        lines += [f"- {' '.join(str(row[name]) for name in KEY)}: {row['refused']}" for row in refused]
    return "\n".join(lines) + "\n"


def _cells(row: Row, rate: str) -> list[str]:
    if "refused" in row:
        return ["refused", ""]
    if not row:
        return ["", ""]
    return [f"{digits(row['median_us'])} ± {digits(row['iqr_us'])}", digits(row[rate])]


def digits(value: float) -> str:
    """Return a number with three significant digits: 0.123, 12.3, 1,234."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 0.1 or value == 0 else f"{value:.2f}"


def picture(record: Record) -> bytes:
    """Return a PNG: time against width, both logarithmic, a panel per op, colour by batch, stroke by device.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    rows = [row for row in record["rows"] if "refused" not in row]
    names = contenders(rows)
    ops = list(dict.fromkeys(row["op"] for row in rows))
    batches = sorted({row["batch"] for row in rows})
    widths = sorted({row["width"] for row in rows})
    colors = {batch: _color(i, len(batches)) for i, batch in enumerate(batches)}
    strokes = dict(zip(names, cycle([("-", "o"), ("--", "^"), (":", "s"), ("-.", "D"), ("-", "x")]), strict=False))
    columns = min(2, len(ops))
    height = -(-len(ops) // columns)
    figure = new_figure("the picture of the benchmark", 4.4 * columns + 1.4, 3.1 * height + 0.5, dpi=100)
    from matplotlib.lines import Line2D
    from matplotlib.ticker import NullFormatter

    panels = figure.subplots(height, columns, squeeze=False, sharex=True, sharey="row").ravel()
    for op, panel in zip(ops, panels, strict=False):
        for who, (dashes, marker) in strokes.items():
            for batch in batches:
                points = sorted(
                    (row["width"], row["median_us"])
                    for row in rows
                    if (row["op"], row["batch"], row["device"], row["variant"]) == (op, batch, *who)
                )
                if points:
                    style = {"color": colors[batch], "linestyle": dashes, "marker": marker}
                    panel.plot(*zip(*points, strict=True), linewidth=1.4, markersize=4, **style)
        panel.set(xscale="log", yscale="log", title=TITLES.get(op, op))
        mark(panel.xaxis, widths, "{x:.0f}")
        panel.yaxis.set_major_formatter(time_text)
        panel.yaxis.set_minor_formatter(NullFormatter())
        panel.set(ylabel="time of one call", xlabel="width (features)")
        panel.tick_params(labelbottom=True, labelleft=True)
        panel.grid(alpha=0.25, linewidth=0.6)
    for panel in panels[: len(ops)]:
        low, high = panel.get_ylim()  # whole decades, so that each end has its number
        panel.set_ylim(10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high)))
    for panel in panels[len(ops) :]:
        panel.remove()
    handles = [Line2D([], [], color=colors[batch], linewidth=3, label=f"batch {batch}") for batch in reversed(batches)]
    handles += [
        Line2D([], [], color="0.3", linestyle=dashes, marker=marker, markersize=4, label=names[who])
        for who, (dashes, marker) in strokes.items()
    ]
    figure.legend(handles=handles, loc="outside right upper", frameon=False)
    machine = record["machine"]
    figure.suptitle(", ".join([machine["cpu"], *machine.get("gpu", []), record["date"]]), fontsize=9, color="0.3")
    return to_png(figure)


def _color(index: int, count: int) -> Any:
    """Return a colour, darker as the batch grows, readable without colour vision."""
    from matplotlib import colormaps

    return colormaps["viridis_r"](0.15 + 0.75 * index / max(1, count - 1))
