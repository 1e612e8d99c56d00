"""CUDA kernels for both ends of a training step (batch.cu), with the formulas of `fcnet.functional.batch`.

At its start: gather and preprocess a mini-batch. At its end: record the loss and advance the counters.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from fcnet.backends import fits
from fcnet.backends.cuda.bf16 import BITS
from fcnet.backends.cuda.launch import SIDE, THREADS, Launcher
from fcnet.backends.device import Array, Kernel

MOST_ROWS = 65535  # of a batch that is gathered: a grid has no more rows


class BatchKernels:
    """Launch the kernels of batch.cu."""

    def __init__(self, launcher: Launcher) -> None:
        self._on = launcher

    def table(self) -> dict[str, Kernel]:
        """Name of a reference function -> its kernel."""
        return {
            "next_batch": Kernel(self.next_batch, self._fits_next_batch),
            "gather": Kernel(self.gather, self._fits_gather),
            "preprocess": Kernel(self.preprocess, self._fits_preprocess),
            "advance": Kernel(self.advance, self._fits_advance),
            "record_step": Kernel(self.record_step, partial(fits.record_step, self._on)),
        }

    def next_batch(
        self, X, y, order, cursor, offsets, positions, shift=None, scale=None, *, batch=None, targets=None, rows=None,
        raw=None,
    ):  # fmt: skip
        rows = self._on.like(rows, offsets)
        targets = self._on.like(targets, y, (rows.size, *y.shape[1:]))
        batch = self._on.like(batch, X if shift is None else shift, (rows.size, *X.shape[1:]))
        words = np.int32(targets.nbytes // rows.size // 4)
        wanted = targets, rows, y, np.int64(len(X)), words, order, cursor
        low = batch.dtype == BITS  # and X float32, or bytes
        if shift is not None:
            items = X.shape[1]
            start, name = (
                (batch, X, np.int32(items), shift, scale),
                "next_batch_bytes_bf16" if low else "next_batch_bytes",
            )
            self._rows(name, shift.dtype.char, items, rows.size, *start, *wanted)
        elif low:
            items = batch.size // len(batch)
            self._rows("next_batch_bf16", "f", items, rows.size, batch, X, np.int32(items), *wanted)
        else:
            size, items = _items(X, batch)
            self._rows(f"next_batch_{size}", "f", items, rows.size, batch, X, np.int32(items), *wanted)
        return batch, targets, rows, None

    def gather(self, data, rows, *, batch=None):
        batch = self._on.like(batch, data, (rows.size, *data.shape[1:]))
        size, items = _items(data, batch)
        counts = np.int64(len(data)), np.int32(items)
        self._rows(f"gather_{size}", "f", items, rows.size, batch, data, rows, *counts)
        return batch

    def _rows(self, name: str, real: str, items: int, rows: int, *arguments: Any) -> None:
        """Launch a thread for each of the `items` of each row."""
        self._on.launch(name, real, (-(-items // THREADS), rows), (THREADS,), *arguments)

    def preprocess(self, x, shift, scale, *, out=None):
        out = self._on.like(out, shift, x.shape)
        name = "preprocess_bytes" if x.dtype == np.uint8 else "preprocess_reals"
        self._on.each(name, shift, x.size, out, x, shift, scale, np.int64(x.size), np.int32(x.shape[1]))
        return out

    def advance(self, counters, increments):
        self._on.launch("advance", "f", (1,), (SIDE,), counters, increments, np.int32(counters.size))
        return counters

    def record_step(self, losses, counters, increments, loss):
        slots = np.int64(losses.size)
        self._on.launch("record_step", losses.dtype.char, (1,), (1,), losses, slots, counters, increments, loss)
        return losses

    def _fits_next_batch(
        self, X, y, order, cursor, offsets, positions, shift=None, scale=None, *, batch=None, targets=None, rows=None,
        raw=None,
    ):  # fmt: skip
        counted = self._on.integers(order, cursor, offsets, *([] if rows is None else [rows])) and order.size == len(X)
        if not (counted and y.dtype.itemsize % 4 == 0 and self._fits_gather(y, offsets, batch=targets)):
            return False
        if shift is None:
            return self._fits_gather(X, offsets, batch=batch)
        return (
            X.dtype == np.uint8 and self._fits_gather(X, offsets) and self._fits_preprocess(X, shift, scale, out=batch)
        )

    def _fits_gather(self, data, rows, *, batch=None):
        given = [data] if batch is None else [data, batch]
        return (
            all(isinstance(a, self._on.cupy.ndarray) and a.flags.c_contiguous and a.size for a in given)
            and all(a.dtype == data.dtype for a in given)
            and self._on.integers(rows)
            and rows.size <= MOST_ROWS
        )

    def _fits_preprocess(self, x, shift, scale, *, out=None):
        return (
            isinstance(x, self._on.cupy.ndarray)
            and x.flags.c_contiguous
            and x.dtype in (np.uint8, shift.dtype)
            and x.size > 0
            and fits.preprocess(self._on, x, shift, scale, out=out)
        )

    def _fits_advance(self, counters, increments):
        return fits.advance(self._on, counters, increments) and counters.size <= SIDE


def _items(data: Array, batch: Array) -> tuple[int, int]:
    """Return the size in bytes of the largest items by which rows can be copied, and how many a row has."""
    row = batch.nbytes // len(batch)
    size = next(s for s in (16, 4, 1) if row % s == 0 and data.data.ptr % s == 0 and batch.data.ptr % s == 0)
    return size, row // size
