"""The speed of a training: samples per second, without compilation."""

from __future__ import annotations

import time


class Speed:
    """Time the steps of each epoch, without evaluation.

    The first step of each batch size is recorded and, the first time on a machine, compiles kernels. Its time says
    nothing about later steps, so neither its time nor its samples count in the rates.

    Attributes:
        first_seconds: time of the first steps.
        latest: samples per second in the epoch that ended last, or None if all its steps were first ones.
    """

    def __init__(self) -> None:
        self.first_seconds = 0.0
        self.latest: float | None = None
        self._samples, self._seconds = 0, 0.0  # of the epochs that ended, without first steps
        self._started, self._apart_samples, self._apart_seconds = 0.0, 0, 0.0  # of this epoch

    @property
    def overall(self) -> float | None:
        """Return samples per second in all epochs that ended, or None if all steps were first ones."""
        return self._samples / self._seconds if self._samples and self._seconds > 0 else None

    @property
    def elapsed(self) -> float:
        """Return the seconds since `begin`."""
        return time.perf_counter() - self._started

    def begin(self) -> None:
        """Begin an epoch."""
        self._started, self._apart_samples, self._apart_seconds = time.perf_counter(), 0, 0.0

    def first(self, samples: int, seconds: float) -> None:
        """Count the first step of a batch size: its samples and its time."""
        self.first_seconds += seconds
        self._apart_samples += samples
        self._apart_seconds += seconds

    def end(self, samples: int) -> float:
        """End an epoch of `samples` samples; return its seconds. Both include first steps."""
        elapsed = self.elapsed
        repeated, seconds = samples - self._apart_samples, elapsed - self._apart_seconds
        self.latest = repeated / seconds if repeated and seconds > 0 else None
        self._samples += repeated
        self._seconds += seconds if repeated else 0.0
        return elapsed
