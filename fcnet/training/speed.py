"""How fast a training is: samples a second, compilation apart."""

from __future__ import annotations

import time


class Speed:
    """A clock for the steps of each epoch, evaluation left out.

    The first step of a batch size records it and, once on a machine, compiles kernels. Its time says nothing of the
    steps to come, so neither it nor its samples are in the rates.

    Attributes:
        first_seconds: what such first steps took.
        latest: samples a second in the epoch that ended last, or None if all its steps were first ones.
    """

    def __init__(self) -> None:
        self.first_seconds = 0.0
        self.latest: float | None = None
        self._samples, self._seconds = 0, 0.0  # of the epochs that ended, without first steps
        self._started, self._apart_samples, self._apart_seconds = 0.0, 0, 0.0  # of this epoch

    @property
    def overall(self) -> float | None:
        """Samples a second in all epochs that ended, or None if all steps were first ones."""
        return self._samples / self._seconds if self._samples and self._seconds > 0 else None

    @property
    def elapsed(self) -> float:
        """Seconds since `begin`."""
        return time.perf_counter() - self._started

    def begin(self) -> None:
        """Begin an epoch."""
        self._started, self._apart_samples, self._apart_seconds = time.perf_counter(), 0, 0.0

    def first(self, samples: int, seconds: float) -> None:
        """A first step took so long."""
        self.first_seconds += seconds
        self._apart_samples += samples
        self._apart_seconds += seconds

    def end(self, samples: int) -> float:
        """End an epoch whose steps, first ones included, had so many samples; its seconds, first steps included."""
        elapsed = self.elapsed
        repeated, seconds = samples - self._apart_samples, elapsed - self._apart_seconds
        self.latest = repeated / seconds if repeated and seconds > 0 else None
        self._samples += repeated
        self._seconds += seconds if repeated else 0.0
        return elapsed
