"""The kernel benchmark within a time limit: op by op, in a process of its own; for `make gpu-check`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.clock import Clock
from benchmarks.grid import Grid
from benchmarks.peers.pool import Failure, Worker
from benchmarks.run import NEEDED, check_needed, record

JOB = "benchmarks.kernels:Kernels"
SHORTEST_S = 5.0  # in which no op is measured


class Kernels:
    """Measure kernels in a worker."""

    def measure(self, grid: str, op: str, device: str, commit: str | None) -> dict[str, Any]:
        """Measure one op on all sizes of a grid (see grids.toml), as `benchmarks.run.record` does."""
        check_needed(NEEDED[:-1])  # no picture is drawn
        return record(Grid.load(grid, ops=[op], devices=[device]), commit)


def record_within(
    clock: Clock,
    grid: str,
    device: str,
    *,
    threads: int,
    commit: str | None = None,
    keep: Callable[[dict[str, Any]], object] = lambda made: None,
) -> dict[str, Any]:
    """Measure all ops for which there is time; `left_out` names the others, `failures` says what went wrong.

    `keep` is given what there is after each op.
    """
    whole = Grid.load(grid, devices=[device])
    made: dict[str, Any] = {"rows": [], "left_out": list(whole.ops), "failures": {}}
    with Worker(JOB, threads) as worker:
        for op in whole.ops:
            if clock.left() < SHORTEST_S:
                break
            try:
                found = worker.ask("measure", limit_s=clock.left(), grid=grid, op=op, device=device, commit=commit)
            except Failure as failure:
                made["failures"][op] = str(failure)
                if failure.kind == "crashed":
                    break
                continue
            made |= found | {"rows": made["rows"] + found["rows"]}
            made["left_out"].remove(op)
            keep(made)
    return made
