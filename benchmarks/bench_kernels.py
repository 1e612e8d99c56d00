"""The kernels under pytest-benchmark: `python -m benchmarks.run`, or `pytest benchmarks/bench_kernels.py` as it is.

One test is one pass over one device and variant at one size. The passes over a size follow each other, and within
a pass the devices and variants take turns.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from benchmarks.grid import Grid
from benchmarks.proof import Contender, prepare
from benchmarks.timing import Plan, clock, plan
from benchmarks.variants import Step


def _grid(config: pytest.Config) -> Grid:
    """Return what `benchmarks.run` left with the configuration, else the quick grid."""
    return getattr(config, "fcnet_grid", None) or Grid.load("quick")


class Size:
    """Measure one (op, width, batch): its proved contenders, and how often each is to be called."""

    def __init__(self, op: str, width: int, batch: int, grid: Grid) -> None:
        self.key = {"op": op, "width": width, "batch": batch}
        self.grid = grid
        self.contenders: dict[tuple[str, str], Contender] = prepare(op, width, batch, grid.contenders())
        self._plans: dict[tuple[str, str], Plan] = {}

    def plan(self, who: tuple[str, str], step: Step) -> Plan:
        """Plan the measurement: measured in the first pass and kept for the others."""
        if who not in self._plans:
            grid = self.grid
            self._plans[who] = plan(step.run, grid.round_ms, grid.rounds, grid.passes, grid.budget_s)
        return self._plans[who]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    grid = _grid(metafunc.config)
    metafunc.parametrize(
        "size", grid.sizes(), ids=lambda s: f"{s[0]}-width{s[1]}-batch{s[2]}", indirect=True, scope="module"
    )
    turns = [(number, who) for number in range(grid.passes) for who in grid.contenders()]
    metafunc.parametrize("turn", turns, ids=lambda t: f"pass{t[0]}-{t[1][0]}-{t[1][1]}")


@pytest.fixture(scope="module")
def size(request: pytest.FixtureRequest) -> Iterator[Size]:
    """Yield the arrays of one size and free them before those of the next are made."""
    clock.backend = None
    op, width, batch = request.param
    yield Size(op, width, batch, _grid(request.config))
    clock.backend = None


def switched_off() -> str:
    """Return why pytest-benchmark would time nothing, and what to do."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is not None:
        return (
            f"pytest-benchmark has switched itself off, and times nothing: PYTEST_XDIST_WORKER={worker} is in the "
            "environment, as within a worker of pytest-xdist; run it with env -u PYTEST_XDIST_WORKER, without -n"
        )
    return "pytest-benchmark is switched off, and times nothing; leave --benchmark-disable out (see PYTEST_ADDOPTS)"


@pytest.mark.benchmark(timer=clock.now, disable_gc=True)
def test_kernel(size: Size, turn: tuple[int, tuple[str, str]], request: pytest.FixtureRequest) -> None:
    """Time one contender, unless it was refused."""
    who = turn[1]
    contender = size.contenders.get(who)
    if contender is None:
        pytest.skip(f"{who[0]} has no variant {who[1]!r} of {size.key['op']}")
    key = size.key | {"device": who[0], "variant": who[1]}
    if contender.step is None:
        request.node.user_properties.append(("refused", key | {"refused": contender.refusal}))
        pytest.fail(contender.refusal, pytrace=False)
    clock.backend = contender.backend
    time.sleep(size.grid.pause_ms / 1e3)
    calls, rounds = size.plan(who, contender.step)
    benchmark = request.getfixturevalue("benchmark")
    benchmark.extra_info.update(key)
    benchmark.pedantic(contender.step.run, rounds=rounds, iterations=calls, warmup_rounds=1)
    if benchmark.disabled:
        pytest.fail(switched_off(), pytrace=False)
