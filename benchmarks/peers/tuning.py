"""Peers at their best: where a framework offers several ways to write the same step, the fastest is taken."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from benchmarks.peers.base import Peer
from benchmarks.workloads import Workload

TURNS = 3


class Stepper(Protocol):
    """Make a step in one way."""

    def __call__(self) -> Any: ...
    def reset(self) -> None: ...
    def synchronize(self) -> None: ...

    def many(self, count: int) -> None:
        """Make so many steps."""
        for _ in range(count):
            self()

    def losses(self, count: int) -> list[float]:
        """Return the losses of the next `count` steps."""


class Strategies:
    """Hold the ways to write the step that could be built. They may be built beside other work, but not compared."""

    def __init__(
        self, candidates: Mapping[str, Callable[[], Stepper]], choice: str | None = None, limit_s: float = math.inf
    ) -> None:
        """Build them and make three steps in each, in which they compile.

        Args:
            choice: build this one alone; "" the first. None: all. One that cannot be built is passed over, unless none
                can.
            limit_s: none but the first is begun after so many seconds.
        """
        self._chosen = choice is not None
        self._names = list(candidates) if choice is None else [choice or next(iter(candidates))]
        self._built: dict[str, Stepper] = {}
        self._first: dict[str, float] = {}
        self._failures: dict[str, Exception] = {}
        start = time.perf_counter()
        for name in self._names:
            if self._built and time.perf_counter() - start > limit_s:
                continue
            try:
                self._built[name] = self._begun(name, candidates[name])
            except Exception as error:  # an option that this version or this machine does not have
                self._failures[name] = error
        if not self._built:
            raise next(iter(self._failures.values()))

    def _begun(self, name: str, build: Callable[[], Stepper]) -> Stepper:
        stepper = build()
        if not self._chosen:
            self._first[name] = seconds(stepper, 1)
            seconds(stepper, 2)
        return stepper

    def fastest(self, steps: int, choice: str | None = None) -> tuple[str, Stepper, dict[str, Any]]:
        """Return the name and the stepper that took least in short turns of `steps`, and what was measured.

        `choice`: that one, whatever it takes.

        Raises:
            KeyError: it was not built.
        """
        if self._chosen:
            name, stepper = next(iter(self._built.items()))
            return name, stepper, {}
        if choice is not None:
            stepper = self._built[choice]
            stepper.reset()
            return choice, stepper, {}
        turns: dict[str, list[float]] = {name: [] for name in self._built}
        for _ in range(TURNS if len(self._built) > 1 else 0):
            for name, stepper in self._built.items():
                time.sleep(0.05)
                turns[name].append(seconds(stepper, steps))
        best = min(self._built, key=lambda name: min(turns[name], default=0))
        self._built[best].reset()
        return best, self._built[best], self._about(best, steps, turns)

    def _about(self, best: str, steps: int, turns: Mapping[str, list[float]]) -> dict[str, Any]:
        about: dict[str, Any] = {"variant": best, "first_step_s": round(self._first[best], 3)}
        if len(self._names) > 1:
            about["tried"] = {
                name: round(min(taken) / steps * 1e6, 1) if taken else None for name, taken in turns.items()
            }
        if self._failures:
            failed = self._failures.items()
            about["failed"] = {name: f"{type(e).__name__}: {str(e).splitlines()[:1]}"[:200] for name, e in failed}
        late = [name for name in self._names if name not in self._built and name not in self._failures]
        if late:
            about["no_time_for"] = late
        return about


class TunedPeer(Peer):
    """Make the steps of a peer in the fastest of several ways."""

    def build(self, workload: Workload, candidates: Mapping[str, Callable[[], Stepper]]) -> None:
        """Build the ways to write the step, by name; `settle` chooses among them."""
        self.workload, self._built = workload, Strategies(candidates, self.choice, self.limit_s)

    def settle(self) -> None:
        steps = max(2, self.workload.steps // 10)
        self.choice, self.stepper, about = self._built.fastest(steps, self.choice)
        del self._built
        self.about |= about

    def step(self) -> None:
        self.stepper()

    def many(self, count: int) -> None:
        self.stepper.many(count)

    def synchronize(self) -> None:
        self.stepper.synchronize()

    def losses(self, count: int) -> list[float]:
        return self.stepper.losses(count)


def seconds(stepper: Stepper, steps: int) -> float:
    """Return how long so many steps take, to their end on the device."""
    stepper.synchronize()
    start = time.perf_counter()
    stepper.many(steps)
    stepper.synchronize()
    return time.perf_counter() - start
