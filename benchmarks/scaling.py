"""Time of a step against width, depth, batch and threads, with a picture: `python -m benchmarks.scaling`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

from benchmarks import command
from benchmarks.command import chosen, describe, names, say
from benchmarks.machine import cores
from benchmarks.peers import CONTENDERS, FLOOR, OWN, PEERS
from benchmarks.peers.compare_peers import Effort, Row, compare_peers
from benchmarks.peers.table import SHORT
from benchmarks.pictures import COLORS, mark, new_figure, time_text, to_png
from benchmarks.report import Record, digits, heading, table
from benchmarks.workloads import Workload

BASE = Workload("base", 256, (256,) * 3, 128, 0)
WIDTHS, DEPTHS, BATCHES = (32, 64, 128, 256, 512, 1024, 2048), (1, 2, 4, 8, 16), (16, 32, 64, 128, 256, 512, 1024, 2048)
QUICK_POINTS = 2
EFFORT, QUICK = Effort(rounds=7, pause=0.25), Effort(rounds=3, scale=0.2, pause=0.05)
DEFAULT = ("torch", "naive")
SECONDS, FLOPS, OVERHEAD = 0.15, 5e10, 5e-5  # of a turn; a guess at the speed; per layer


def points(threads: int, quick: bool) -> list[tuple[str, int, Workload, int]]:
    """Return (panel, value, net, threads): one variable at a time is moved away from the base."""
    found = []
    for panel, values in (("width", WIDTHS), ("depth", DEPTHS), ("batch", BATCHES), ("threads", range(1, threads + 1))):
        for value in list(values)[:QUICK_POINTS] if quick else values:
            net, count = BASE, threads
            if panel == "width":
                net = replace(BASE, inputs=value, hidden=(value,) * len(BASE.hidden))
            elif panel == "depth":
                # Each layer of a deep net makes more of a rounding: PyTorch's losses are as far off at 16.
                net = replace(BASE, hidden=BASE.hidden[:1] * value, tolerance=max(BASE.tolerance, value**2 * 1e-4))
            elif panel == "batch":
                net = replace(BASE, batch=value)
            else:
                count = value
            guess = net.flops / FLOPS + OVERHEAD * net.layers
            net = replace(net, name=f"{panel} {value}", steps=min(1000, max(3, round(SECONDS / guess))))
            found.append((panel, value, net, count))
    return found


def markdown(record: Record) -> str:
    """Return a table per variable."""
    rows = record["rows"]
    lines = heading(f"Time of a step against size, {record['date']}", record)
    lines += [f"Microseconds, {record['threads']} threads unless said; base: {BASE.describe()}; Adam, float32."]
    columns = list(dict.fromkeys(row["contender"] for row in rows))
    for panel in dict.fromkeys(row["panel"] for row in rows):
        cells = []
        for value in dict.fromkeys(row["value"] for row in rows if row["panel"] == panel):
            here = {row["contender"]: row for row in rows if (row["panel"], row["value"]) == (panel, value)}
            times = [
                digits(here[name]["median_us"]) if "median_us" in here[name] else SHORT[here[name]["kind"]]
                for name in columns
            ]
            cells.append([str(value), *times])
        lines += ["", *table([panel, *columns], cells, left=())]
    refused = dict.fromkeys(f"- {row['contender']}: {row['refused']}" for row in rows if "refused" in row)
    return "\n".join([*lines, *(["", *refused] if refused else [])]) + "\n"


def picture(record: Record) -> bytes:
    """Return a PNG of four panels, both axes logarithmic.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    rows: list[Row] = [row for row in record["rows"] if "median_us" in row]
    figure = new_figure("the picture of the scaling study", 8.4, 5.6)
    contenders = list(dict.fromkeys(row["contender"] for row in rows))
    for panel, axes in zip(("width", "depth", "batch", "threads"), figure.subplots(2, 2).ravel(), strict=True):
        for name, marker in zip(contenders, "os^Dvx*P", strict=False):
            line = sorted(
                (row["value"], row["median_us"]) for row in rows if (row["panel"], row["contender"]) == (panel, name)
            )
            if line:
                style = {"color": COLORS.get(name), "marker": marker, "markersize": 4, "linewidth": 1.4}
                axes.plot(*zip(*line, strict=True), label=name, **style)
        values = sorted({row["value"] for row in rows if row["panel"] == panel})
        axes.set(xscale="log", yscale="log", ylabel="time of a step")
        axes.set_xlabel({"width": "width (features)", "depth": "hidden layers"}.get(panel, panel))
        mark(axes.xaxis, values, "{x:.0f}")
        axes.tick_params(axis="x", labelsize=8)
        low, high = axes.get_ylim()
        mark(axes.yaxis, [b * 10**e for e in range(7) for b in (1, 2, 5) if low <= b * 10**e <= high], time_text)
        axes.grid(alpha=0.25, linewidth=0.6)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False)
    title = f"{record['machine']['cpu']}, {record['threads']} threads, {record['date']}; base {BASE.describe()}, Adam"
    figure.suptitle(title, fontsize=9, color="0.3")
    return to_png(figure)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--peers", type=names, default=list(DEFAULT), metavar="LIST", help=f"of {', '.join(PEERS)}")


def _plan(options: argparse.Namespace) -> Callable[[], Record]:
    peers = chosen("--peers", options.peers, PEERS)
    contenders = [c for name, c in CONTENDERS.items() if name in (*OWN, *peers, FLOOR) and "cpu" in c.devices]
    effort = QUICK if options.quick else EFFORT

    def measured() -> Record:
        record = describe("cpu", options.threads) | {"base": BASE.to_dict(), "cores": cores()}
        record |= {"versions": {}, "rows": []}
        for panel, value, net, threads in points(options.threads, options.quick):
            say(f"{panel} {value}")
            for row in compare_peers(net, contenders, threads=threads, effort=effort):
                record["versions"] |= row.pop("versions", {})
                record["rows"].append({"panel": panel, "value": value, **row})
        return record

    return measured


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code, as `command.run` says."""
    return command.run("scaling", __doc__, arguments, _plan, markdown, picture=picture, add=_options)


if __name__ == "__main__":
    sys.exit(main())
