"""Checkpoints of a running training: written by a thread of their own, so seldom that they cost next to nothing."""

from __future__ import annotations

import re
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

from fcnet.errors import TrainingWarning, shown
from fcnet.runs.checkpoints import Checkpoints
from fcnet.training.state import State, capture, environment, fingerprint
from fcnet.validation import positive_int

Solver = Any  # fcnet.training.solver.Solver, which imports this

SHARE = 0.02  # of the time that may go into checkpoints
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


class Every(NamedTuple):
    """Describe an interval: a number of steps, or of seconds; the other is None."""

    steps: int | None
    seconds: float | None


def parse_every(value: Any) -> Every:
    """Return the interval that a value means: "500" and 500 are steps, "60s", "5m" and "1h" times.

    Raises:
        ValueError, TypeError: anything else.
    """
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", value.strip())):
        seconds = float(match[1]) * _UNITS[match[2]]
        if seconds > 0:
            return Every(None, seconds)
    elif not isinstance(value, str) or re.fullmatch(r"\d{1,18}", value.strip()):
        return Every(positive_int("checkpoint_every", int(value) if isinstance(value, str) else value), None)
    raise ValueError(
        f"checkpoint_every: expected steps such as 500, or a time such as '60s', '5m' or '1h', got {shown(value)}"
    )


class Checkpointing:
    """Write the checkpoints of one call of `train`.

    While one is still being written, no other is begun. If one cannot be written, as on a full disk, a warning says so
    once, the training continues, and the last good checkpoint stays.
    """

    def __init__(
        self, solver: Solver, checkpoints: Checkpoints | None, every: Every, keep: int, say: Callable[[str], None]
    ) -> None:
        """Begin the first interval now.

        Args:
            checkpoints: where they go; None: nowhere, the state is only captured.
            keep: how many stay.
            say: called with a line of text when the interval is lengthened.
        """
        self.solver, self.checkpoints, self.every, self.keep, self._say = solver, checkpoints, every, keep, say
        self._last_steps, self._last = solver.steps, time.monotonic()
        self.cost = 0.0
        self._thread: threading.Thread | None = None
        self._trouble: str | None = None  # why the thread failed; the training's thread warns of it
        self._reported: set[str] = set()
        self._fixed: dict[str, Any] | None = None  # the part of the description that all checkpoints share

    def look(self) -> State | None:
        """Write a checkpoint if one is due; return the state captured for it, else None. Called between steps."""
        if self.every.steps is not None:
            due = self.solver.steps - self._last_steps >= self.every.steps
        else:
            assert self.every.seconds is not None  # one of the two is
            due = time.monotonic() - self._last >= self.every.seconds
        if not due:
            return None
        self._say_trouble()
        since = time.monotonic() - self._last
        if since * SHARE < self.cost:
            self._say_interval()
            return None
        if self._thread is not None and self._thread.is_alive():
            return None
        return self._begin(in_background=True)

    def write(self) -> State | None:
        """Write a checkpoint now and wait until it is on the disk; return its state, None if that is not finite."""
        self._wait()
        state = None if self.checkpoints is None else self._begin(in_background=False)
        self._say_trouble()
        return state

    def close(self) -> None:
        """Wait for the checkpoint that is being written."""
        self._wait()
        self._say_trouble()

    def _begin(self, *, in_background: bool) -> State | None:
        started = time.monotonic()
        self._last_steps, self._last = self.solver.steps, started
        state = capture(self.solver)
        if state is None or self.checkpoints is None:
            return state
        work = self._write, (state, self.solver.steps, started)
        if in_background:
            self._thread = threading.Thread(target=work[0], args=work[1], name="fcnet checkpoint")
            try:
                self._thread.start()
                return state
            except RuntimeError:  # no thread to be had: then this one does it
                self._thread = None
        self._write(*work[1])
        return state

    def _write(self, state: State, step: int, started: float) -> None:
        assert self.checkpoints is not None  # else nothing is written
        try:
            if self._fixed is None:
                self._fixed = {"data": fingerprint(self.solver.data), "environment": environment(self.solver)}
                started = time.monotonic()  # what is done once does not make the interval grow
            self.checkpoints.write(step, state.description | self._fixed, state.tensors, self.keep)
        except Exception as error:  # whatever it is, the training goes on; a warning says so
            self._trouble = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}".rstrip(": ")
        self.cost = time.monotonic() - started

    def _wait(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _say_trouble(self) -> None:
        trouble, self._trouble = self._trouble, None
        if trouble is None or self.checkpoints is None or trouble in self._reported:
            return
        self._reported.add(trouble)
        steps = self.checkpoints.steps()
        kept = f"that of step {steps[-1]} stays" if steps else "there is none yet"
        warnings.warn(
            f"{self.checkpoints.folder}: a checkpoint could not be written ({trouble}); {kept}, and the training goes "
            "on; make room, or stop it",
            TrainingWarning,
            stacklevel=2,
        )

    def _say_interval(self) -> None:
        if "interval" not in self._reported:
            self._reported.add("interval")
            self._say(
                f"a checkpoint takes {self.cost:.2g} s, so one comes every {self.cost / SHARE:.3g} s, which "
                f"is {SHARE:.0%} of the time"
            )
