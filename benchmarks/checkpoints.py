"""What checkpoints cost a training: steps with one being written beside the same steps without, in turns.

`python -m benchmarks.checkpoints`. Of each net of `benchmarks.compare`: a turn makes so many steps that one checkpoint,
from its capture to the disk, is over within them. What it adds to the turn, over the interval at which checkpoints
come, is its share of the time: of the default 60 s, and where they come as often as `fcnet` lets them.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import command
from benchmarks.command import describe, say
from benchmarks.peers.ours import Ours
from benchmarks.report import Record, Row, heading, table
from benchmarks.workloads import Workload, draw, initial, prepared, workloads_for
from fcnet.runs.checkpoints import Checkpoints
from fcnet.training import checkpointing
from fcnet.training.checkpointing import Checkpointing, Every

GOAL = 0.02  # of the time
DEFAULT_S, SHARE = 60.0, checkpointing.SHARE
TURN_S, LONGER = 0.05, 3.0  # a turn takes at least that, and so many times a checkpoint
NET_S, TURNS = 15.0, (9, 201)  # of all turns of a net; the least and the most of them


class Trial:
    """Train a net, and begin checkpoints when asked for."""

    def __init__(self, workload: Workload, folder: Path) -> None:
        """Build it; the first checkpoint, which also takes the data's fingerprint, is written here."""
        data = draw(workload)
        self.peer = Ours()
        self.peer.make(workload, prepared(workload, data), initial(workload), "cpu")
        self.solver = self.peer.solver
        self.solver.step(3)
        self.keeper = Checkpointing(self.solver, Checkpoints(folder), Every(1, None), 2, say)
        self.first_s = self._written()
        self.seconds = median(self._written() for _ in range(3))
        started = time.perf_counter()
        self.solver.step(5)
        self.steps = math.ceil(max(TURN_S, LONGER * self.seconds) / (time.perf_counter() - started) * 5)

    def _written(self) -> float:
        """Return the seconds of writing one, waited for."""
        started = time.perf_counter()
        self.keeper.write()
        return time.perf_counter() - started

    def turn(self, *, with_one: bool) -> float:
        """Return the seconds of a turn's steps."""
        started = time.perf_counter()
        self.solver.step(1)
        if with_one:
            self.keeper.look()
        self.solver.step(self.steps - 1)
        self.peer.synchronize()
        seconds = time.perf_counter() - started
        self.keeper.close()
        return seconds


def measure(workload: Workload, seconds: float) -> Row:
    """Return the row of a net, to which about so many seconds go."""
    with tempfile.TemporaryDirectory(prefix="fcnet-checkpoints-", dir=".") as folder:
        trial = Trial(workload, Path(folder))
        added, costs = [], []
        turns = int(np.clip(seconds / 2 / trial.turn(with_one=True), *TURNS))
        for number in range(turns):
            first = number % 2 == 0
            one, other = trial.turn(with_one=first), trial.turn(with_one=not first)
            added.append(one - other if first else other - one)
            costs.append(trial.keeper.cost)
        size = max(path.stat().st_size for path in Path(folder).iterdir())
    low, middle, high = np.percentile(added, [25, 50, 75])
    cost, more = median(costs), max(0.0, float(middle))
    return {
        "name": workload.name,
        "net": workload.describe(),
        "turns": turns,
        "mb": round(size / 1e6, 2),
        "alone_s": round(trial.seconds, 4),
        "beside_s": round(cost, 4),
        "first_s": round(trial.first_s, 4),
        "added_s": [round(float(value), 4) for value in (low, middle, high)],
        "share": round(more / max(DEFAULT_S, cost / SHARE), 6),
        "share_most_often": round(more / (cost / SHARE), 4),
    }


def record(workloads: Sequence[Workload], seconds: float, threads: int) -> Record:
    """Measure all of them."""
    found: dict[str, Any] = describe("cpu", threads) | {"rows": []}
    checkpointing.SHARE = math.inf  # in this process one is written whenever it is asked for
    for workload in workloads:
        say(f"{workload.name}: {workload.describe()}")
        found["rows"].append(measure(workload, seconds))
    return found


def markdown(found: Record) -> str:
    """Return the table."""
    cells = []
    for row in found["rows"]:
        low, middle, high = (f"{1e3 * value:.1f}" for value in row["added_s"])
        cells.append(
            [f"`{row['name']}`", str(row["turns"]), f"{row['mb']:.1f}", f"{1e3 * row['beside_s']:.0f}",
             f"{middle} ({low} to {high})",
             f"{row['share']:.3%}", f"{row['share_most_often']:.2%}",
             "reached" if max(row["share"], row["share_most_often"]) <= GOAL else "missed"]
        )  # fmt: skip
    lines = [
        *heading(f"What checkpoints cost, {found['date']}", found),
        "",
        f"Medians and quartiles of turns with a checkpoint and without. Goal: at most {GOAL:.0%} of the time, at the",
        "default of one in 60 s, and where they come as often as they may (`--checkpoint-every 1`).",
        "",
        *table(
            ["net", "turns", "MB", "written in, ms", "adds, ms", "of the time, each 60 s", "as often as they may", ""],
            cells,
            left=(0, 7),
        ),
    ]
    return "\n".join(lines) + "\n"


def _add(parser: argparse.ArgumentParser) -> None:
    names = ",".join(workloads_for("cpu"))
    parser.add_argument("--workloads", default=names, metavar="A,B", help="some of the nets; default: %(default)s")


def _plan(options: argparse.Namespace) -> Callable[[], Record]:
    known = workloads_for("cpu")
    names = options.workloads.split(",")
    if odd := [name for name in names if name not in known]:
        raise ValueError(f"--workloads: expected some of {', '.join(known)}; got {odd[0]}")
    return lambda: record([known[name] for name in names], 1.0 if options.quick else NET_S, options.threads)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code, as `command.run` says."""
    return command.run("checkpoints", __doc__, arguments, _plan, markdown, add=_add)


if __name__ == "__main__":
    sys.exit(main())
