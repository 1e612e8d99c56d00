"""Peers at their best: where a framework offers several ways to write the same step, the fastest is taken."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

TURNS = 3


class Stepper(Protocol):
    """One way to write the step."""

    def __call__(self) -> Any: ...
    def reset(self) -> None: ...
    def synchronize(self) -> None: ...

    def many(self, count: int) -> None:
        """So many steps."""
        for _ in range(count):
            self()


def fastest(
    candidates: Mapping[str, Callable[[], Stepper]], steps: int, choice: str | None
) -> tuple[str, Stepper, dict[str, Any]]:
    """The name and the stepper that took least in short turns of `steps`, and what was measured.

    Args:
        choice: take this one without a try; "" the first. None: try all. One that cannot be built is passed over,
            unless none can.
    """
    if choice is not None:
        name = choice or next(iter(candidates))
        return name, candidates[name](), {}
    built: dict[str, Stepper] = {}
    first: dict[str, float] = {}
    failures: dict[str, Exception] = {}
    for name, build in candidates.items():
        try:
            stepper = build()
            first[name] = seconds(stepper, 1)
            seconds(stepper, 2)
        except Exception as error:  # an option that this version or this machine does not have
            failures[name] = error
            continue
        built[name] = stepper
    if not built:
        raise next(iter(failures.values()))
    turns: dict[str, list[float]] = {name: [] for name in built}
    for _ in range(TURNS if len(built) > 1 else 0):
        for name, stepper in built.items():
            time.sleep(0.05)
            turns[name].append(seconds(stepper, steps))
    best = min(built, key=lambda name: min(turns[name], default=0))
    built[best].reset()
    about: dict[str, Any] = {"variant": best, "first_step_s": round(first[best], 3)}
    if len(candidates) > 1:
        about["tried"] = {name: round(min(taken) / steps * 1e6, 1) if taken else None for name, taken in turns.items()}
    if failures:
        about["failed"] = {name: f"{type(e).__name__}: {str(e).splitlines()[:1]}"[:200] for name, e in failures.items()}
    return best, built[best], about


def seconds(stepper: Stepper, steps: int) -> float:
    """How long that many steps take, to their end on the device."""
    stepper.synchronize()
    start = time.perf_counter()
    stepper.many(steps)
    stepper.synchronize()
    return time.perf_counter() - start
