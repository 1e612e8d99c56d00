"""How a call is timed: warm-up apart, waiting for the device, in rounds that take turns; median and spread.

A round is a number of calls in a row between two readings of a clock that waits for the device first. The device is
thus waited for once per round and not once per call, as in a training step; the number of calls makes that wait, and
the clock's own resolution, small beside the round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from fcnet.backends import Backend


class Clock:
    """Read seconds once the device that is being timed has finished."""

    backend: Backend | None = None  # the device; None waits for nothing

    def now(self) -> float:
        """Wait for the device, then read the time."""
        if self.backend is not None:
            self.backend.synchronize()
        return time.perf_counter()


clock = Clock()  # pytest-benchmark is given `clock.now`; the test says which device it times


class Plan(NamedTuple):
    """Say how often: calls in a round, rounds in a pass."""

    calls: int
    rounds: int


def plan(run: Callable[[], object], round_ms: float, rounds: int, passes: int, budget_s: float) -> Plan:
    """Warm up, then choose calls so that a round takes `round_ms`, and rounds so that all passes fit the budget."""
    run()
    calls, target = 1, round_ms / 1e3
    while True:
        start = clock.now()
        for _ in range(calls):
            run()
        seconds = clock.now() - start
        if seconds >= target / 4:
            break
        calls *= 2 if seconds > target / 16 else 4
    calls = max(1, round(calls * target / seconds))
    seconds = max(target, seconds) if calls > 1 else seconds
    return Plan(calls, max(1, min(rounds, int(budget_s / passes / seconds))))


class Summary(NamedTuple):
    """Summarise microseconds per call: median over the rounds, and the distance between its quartiles."""

    median_us: float
    iqr_us: float
    rounds: int


def summarize(seconds: Sequence[float]) -> Summary:
    """Return median and interquartile range of the rounds of all passes, given as seconds per call.

    >>> summarize([1e-6, 2e-6, 3e-6, 4e-6, 5e-6])
    Summary(median_us=3.0, iqr_us=2.0, rounds=5)
    """
    low, median, high = np.percentile(np.asarray(seconds) * 1e6, [25, 50, 75])
    return Summary(round(float(median), 3), round(float(high - low), 3), len(seconds))
