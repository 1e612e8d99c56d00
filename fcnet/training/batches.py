"""The mini-batches of a training, epoch after epoch: which rows, and how they come to where the step is made."""

from __future__ import annotations

from typing import Any

import numpy as np

import fcnet.functional as F
from fcnet.backends import Array, Prefetcher
from fcnet.backends.step import Run
from fcnet.errors import counted
from fcnet.nn.model import FullyConnectedNet
from fcnet.training.device_data import DeviceSplit


def joined(model: FullyConnectedNet) -> bool:
    """Return whether a lone last sample joins the batch before it: batch norm would divide by its deviation, 0."""
    return model.normalization == "batchnorm"


def per_epoch(model: FullyConnectedNet, count: int, batch_size: int) -> int:
    """Return how many batches `count` samples make.

    Raises:
        ValueError: a batch of one, with batch norm.
    """
    alone = min(count, batch_size) == 1 and joined(model)
    if alone:
        raise ValueError(
            f"batch_size and normalization: expected 2 or more samples in a batch with 'batchnorm', got "
            f"batch_size={batch_size} for {counted(count, 'sample')}; take more, or 'layernorm'"
        )
    whole, left = divmod(count, batch_size)
    return whole + (left > int(joined(model)))


class Batches:
    """Gather mini-batches of data that lie on the device; the cursor is read there, too.

    Attributes:
        order: (n,) int64 on the device, this epoch's permutation of the rows.
        position: rows of it already used; the host's copy of the cursor, known without asking the device.
        size: rows of the next batch.
    """

    def __init__(
        self,
        model: FullyConnectedNet,
        part: DeviceSplit,
        batch_size: int,
        seed: int,
        counters: Array,
        *,
        epoch: int = 0,
        shuffled: bool = True,
    ) -> None:
        """Begin `epoch`; without `shuffled` the rows come as they are in the part, in every epoch.

        `counters` (2,) int64 on the device: the first is the cursor, moved on by the step, set to 0 by `shuffle`.
        """
        self.model, self.part, self.batch_size, self.seed = model, part, batch_size, seed
        self.counters, self.shuffled = counters, shuffled
        self.position = 0
        self._prepare(epoch)

    def _prepare(self, epoch: int) -> None:
        """Allocate what holds the order of the rows, and fill it for this epoch."""
        self.order = self.model.backend.asarray(self._in_order())
        if self.shuffled:
            F.shuffle(self.order, self.seed, epoch)

    def _in_order(self) -> np.ndarray:
        return np.arange(len(self), dtype="int64")

    def __len__(self) -> int:
        return len(self.part)

    @property
    def sizes(self) -> list[int]:
        """Return the rows of each batch of an epoch, in order."""
        count = per_epoch(self.model, len(self), self.batch_size)
        return [self.batch_size] * (count - 1) + [len(self) - self.batch_size * (count - 1)]

    @property
    def size(self) -> int:
        """Return the rows of the next batch."""
        left = len(self) - self.position
        return left if left == self.batch_size + 1 and joined(self.model) else min(self.batch_size, left)

    def shuffle(self, epoch: int) -> None:
        """Begin an epoch, with the rows in a new order."""
        if self.shuffled:
            F.shuffle(self.order, self.seed, epoch)
        self.counters[:1] = 0
        self.position = 0

    def go_to(self, epoch: int, position: int) -> None:
        """Continue in an epoch of which `position` rows have been used."""
        self.shuffle(epoch)
        self.counters[:1] = position
        self.position = position

    def record(self, run: Run, size: int) -> tuple[Array, Array, Array | None]:
        """Record the calls that gather a batch of `size` rows; return its arrays.

        Returns:
            Inputs (N, D) as the layers take them, targets (N,) or (N, C), weights (N,) or None.
        """
        xp, part = self.model.backend.xp, self.part
        scaling = () if part.prepared else self.model.byte_scaling
        offsets = self.model.backend.asarray(np.arange(size, dtype="int64"))
        positions = xp.empty((size,), dtype="int64")
        where = self.order, self.counters[:1], offsets, positions
        x, targets, rows, _ = run(F.next_batch, part.X, part.y, *where, *scaling)
        if not (part.prepared or scaling):
            x = self.model.prepare(run, x)
        return x, targets, None if part.weights is None else run(F.gather, part.weights, rows)

    def ready(self) -> None:
        """Make the next batch available; `Steps` calls it before each step. Data on the device always are."""

    @property
    def alike(self) -> int:
        """Return how many batches of the next one's size follow each other in this epoch."""
        count, left = divmod(len(self) - self.position, self.size)
        return count - 1 if left == 1 and joined(self.model) else count

    def advance(self, count: int = 1) -> bool:
        """Count `count` batches of one size as used; return whether the epoch is over. `Steps` calls it after steps."""
        self.position += count * self.size
        return self.position == len(self)


class StreamedBatches(Batches):
    """Gather mini-batches of data too large for the device on the host; the next is copied during a step."""

    def _prepare(self, epoch: int) -> None:
        self._prefetchers: dict[int, Prefetcher] = {}  # by batch size
        self._sent = False  # whether the next batch is being copied
        self._host_order = self._in_order()
        if self.shuffled:
            F.shuffle(self._host_order, self.seed, epoch)

    def shuffle(self, epoch: int) -> None:
        if self.shuffled:  # the earlier order may still be read
            self._host_order = F.shuffle(self._in_order(), self.seed, epoch)
        self.counters[:1] = 0
        self.position = 0
        if self._prefetchers:  # training has begun
            self._send()

    def record(self, run: Run, size: int) -> tuple[Array, Array, Array | None]:
        batch, targets, *weights = self._prefetcher(size).arrays
        return self.model.prepare(run, batch), targets, weights[0] if weights else None

    def ready(self) -> None:
        self._send()
        self._prefetcher(self.size).receive()
        self._sent = False

    def advance(self, count: int = 1) -> bool:
        over = super().advance(count)
        if not over:
            self._send()
        return over

    def _send(self) -> None:
        if not self._sent:
            self._prefetcher(self.size).send(self._host_order[self.position : self.position + self.size])
            self._sent = True

    def _prefetcher(self, size: int) -> Prefetcher:
        if size not in self._prefetchers:
            weights = [] if self.part.weights is None else [self.part.weights]
            self._prefetchers[size] = self.model.backend.prefetcher([self.part.X, self.part.y, *weights], size)
        return self._prefetchers[size]

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied and pickled: all but the prefetchers and the batch in transit."""
        return self.__dict__ | {"_prefetchers": {}, "_sent": False}
