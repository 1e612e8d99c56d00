"""The losses of a training's steps: written on the device, read in bulk."""

from __future__ import annotations

import math
from typing import Any

from fcnet.backends import Array, Backend
from fcnet.nn.model import FullyConnectedNet


class LossLog:
    """Keep the buffer on the device that `record_step` writes to, and the losses that were read from it.

    Attributes:
        buffer: (L,), losses on the device.
        counters: (2,) int64 on the device: rows of this epoch used, and losses in `buffer`.
    """

    def __init__(self, backend: Backend, dtype: Any, length: int) -> None:
        """Make an empty log whose buffer holds `length` losses; a full buffer is copied, and filled anew."""
        self.backend = backend
        self.buffer = backend.xp.zeros((length,), dtype=dtype)
        self.counters = backend.xp.zeros((2,), dtype="int64")
        self._slot = 0  # the host's copy of counters[1], known without asking the device
        self._chunks: list[Array] = []
        self._read: list[float] = []

    @property
    def room(self) -> int:
        """Return how many more steps may write their losses before `stepped` must be called."""
        return self.buffer.size - self._slot

    def stepped(self, count: int = 1) -> None:
        """Count steps that have written their losses. Never waits: a full buffer is copied on the device."""
        self._slot += count
        if self._slot == self.buffer.size:
            self._set_aside()

    def append(self, loss: float) -> None:
        """Append a loss that is already on the host."""
        self.fetched().append(loss)

    def restart(self, losses: list[float]) -> None:
        """Start over with these losses as those of the steps made so far."""
        self._chunks.clear()
        self.counters[1:] = 0
        self._slot, self._read = 0, losses

    def fetched(self) -> list[float]:
        """Return the loss of each step so far: the log's own list. Waits for the device if some are not read yet."""
        self._set_aside()
        for chunk in self._chunks:
            self._read.extend(self.backend.to_numpy(chunk).tolist())
        self._chunks.clear()
        return self._read

    def first_not_finite(self, since: int) -> tuple[int, float] | None:
        """Return number and loss of the first step after step `since` whose loss is NaN or infinite, or None.

        Steps are numbered from 1. Waits for the device if some losses are not read yet.
        """
        losses = enumerate(self.fetched()[since:], since + 1)
        return next(((number, loss) for number, loss in losses if not math.isfinite(loss)), None)

    @property
    def known(self) -> int:
        """Return how many losses have been read from the device."""
        return len(self._read)

    def _set_aside(self) -> None:
        if self._slot:
            self._chunks.append(self.buffer[: self._slot].copy())
            self.counters[1:] = 0
            self._slot = 0


def to_scale(model: FullyConnectedNet) -> str:
    """Return what may be too large when a loss is not finite, for messages: "the inputs", or "... and targets"."""
    scaled = not model.objective.of_values or model.objective.scales
    return "the inputs" if scaled else "the inputs and targets"
