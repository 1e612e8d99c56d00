"""What a contender has to offer, and what all of them share."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from benchmarks.workloads import Data, Workload, batches


class NotSupported(Exception):
    """Signal that this contender has no such net; the message says what it lacks."""


class Peer(ABC):
    """Train one workload with one framework (or plain NumPy).

    Attributes:
        raw_epsilon: its Adam adds epsilon to the uncorrected root, a rule as dear as the paper's: it is proved against
            that rule.
        prepares: it preprocesses the data itself where a workload asks for fcnet's defaults.
    """

    raw_epsilon = False
    prepares = False

    def __init__(self) -> None:
        self.about: dict[str, Any] = {}  # choices that a reader of the table should know
        self.limit_s = math.inf  # no further way is built after so many seconds
        self.choice: str | None = None  # which way to write the step; None: the fastest, "": the first

    @abstractmethod
    def make(self, workload: Workload, data: Data, weights: Mapping[str, np.ndarray], device: str) -> None:
        """Build the net with these weights, in every way that may be the fastest; put the data where it trains. The
        first step's batch is the first.

        Raises:
            NotSupported: there is no such layer.
        """

    def settle(self) -> None:  # noqa: B027 - most have one way
        """Take the way to write the step that is the fastest; called after `make`, when nothing else computes."""

    @abstractmethod
    def step(self) -> None:
        """Gather the next batch, forward, loss, backward, Adam; need not wait for the device."""

    def many(self, count: int) -> None:
        """Make so many steps; for a framework whose own loop over batches is cheaper than a call for each."""
        step = self.step
        for _ in range(count):
            step()

    def synchronize(self) -> None:  # noqa: B027 - nothing to wait for on a CPU
        """Wait until the device has done every step."""

    @abstractmethod
    def losses(self, count: int) -> list[float]:
        """Make `count` steps, the very ones that are timed, and read the loss of each."""


def threads() -> int:
    """Return how many threads a contender may use; the parent process sets it."""
    return int(os.environ["FCNET_BENCH_THREADS"])


def each_batch(workload: Workload) -> Iterator[np.ndarray]:
    """Yield the row numbers of each batch in fcnet's order, contiguous."""
    for rows in batches(workload):
        yield np.ascontiguousarray(rows)
