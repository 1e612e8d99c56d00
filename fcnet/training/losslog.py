"""The losses of a training's steps: written on the device, read in bulk."""

from __future__ import annotations

import math
from typing import Any

from fcnet.backends import Array, Backend
from fcnet.nn.model import FullyConnectedNet


class LossLog:
    """What `record_step` writes to, and the losses read from it.

    Attributes:
        buffer: (L,), losses on the device. counters: (2,) int64 there, rows of this epoch used and losses in `buffer`.
    """

    def __init__(self, backend: Backend, dtype: Any, length: int) -> None:
        """An empty log; `length` losses are kept before they are set aside in one copy."""
        self.backend = backend
        self.buffer = backend.xp.zeros((length,), dtype=dtype)
        self.counters = backend.xp.zeros((2,), dtype="int64")
        self._slot = 0  # the host's copy of counters[1], known without asking the device
        self._chunks: list[Array] = []
        self._read: list[float] = []

    @property
    def room(self) -> int:
        """Steps that may write their losses before `stepped` is called."""
        return self.buffer.size - self._slot

    def stepped(self, count: int = 1) -> None:
        """So many steps have written their losses. Nothing waits, also when the buffer is emptied into a copy."""
        self._slot += count
        if self._slot == self.buffer.size:
            self._set_aside()

    def append(self, loss: float) -> None:
        """A loss that the host knows."""
        self.fetched().append(loss)

    def restart(self, losses: list[float]) -> None:
        """Go on after these losses."""
        self._chunks.clear()
        self.counters[1:] = 0
        self._slot, self._read = 0, losses

    def fetched(self) -> list[float]:
        """The loss of each step so far, the log's own list. Waits for the device if there are losses not yet read."""
        self._set_aside()
        for chunk in self._chunks:
            self._read.extend(self.backend.to_numpy(chunk).tolist())
        self._chunks.clear()
        return self._read

    def first_not_finite(self, since: int) -> tuple[int, float] | None:
        """Read the losses; number, 1 for the first of all, and loss of the first step after `since` steps whose loss is
        NaN or infinite.
        """
        losses = enumerate(self.fetched()[since:], since + 1)
        return next(((number, loss) for number, loss in losses if not math.isfinite(loss)), None)

    @property
    def known(self) -> int:
        """How many losses have been read."""
        return len(self._read)

    def _set_aside(self) -> None:
        if self._slot:
            self._chunks.append(self.buffer[: self._slot].copy())
            self.counters[1:] = 0
            self._slot = 0


def to_scale(model: FullyConnectedNet) -> str:
    """What may be too large for the loss, for people."""
    scaled = model.loss_name != "mse" or model.objective.scales
    return "the inputs" if scaled else "the inputs and targets"
