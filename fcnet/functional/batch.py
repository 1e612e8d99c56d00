"""The start of a training step: which rows, gathered into a fixed buffer, preprocessed on the way.

Shapes: n samples in the data set, N batch, D features.
"""

from __future__ import annotations

from typing import Any

from backends import accelerated, array_module, backend_of
from fcnet.functional import checks

Array = Any


@accelerated(
    "rows",
    check=lambda order, cursor, offsets, positions, *, rows=None: checks.outputs(
        "batch_rows", offsets.shape, positions=positions, rows=rows
    ),
)
def batch_rows(order: Array, cursor: Array, offsets: Array, positions: Array, *, rows: Array | None = None) -> Array:
    """The row numbers of the next batch, rows = order[cursor : cursor + N], with the cursor read on the device.

    Args:
        order: (n,) int64, this epoch's permutation.
        cursor: (1,) int64, rows of it already used.
        offsets: (N,) int64, 0..N-1.
        positions: (N,) int64, scratch.
        rows: (N,) int64, filled if given.
    """
    backend = backend_of(order, cursor, offsets)
    backend.xp.add(offsets, cursor, out=positions)
    return backend.take_rows(order, positions, out=rows)  # the cursor never runs past the end


@accelerated(
    "batch",
    check=lambda data, rows, *, batch=None: checks.outputs("gather", (*rows.shape, *data.shape[1:]), batch=batch),
)
def gather(data: Array, rows: Array, *, batch: Array | None = None) -> Array:
    """batch = data[rows]: (N, ...) out of (n, ...), any dtype, into `batch` if given."""
    return backend_of(data, rows).take_rows(data, rows, out=batch)


def _check_preprocess(x: Array, shift: Array, scale: Array, *, out: Array | None = None) -> None:
    checks.features("preprocess", "shift", shift, x.shape[-1], "x")
    checks.same_shape("preprocess", "scale", scale, shift.shape, "shift")
    checks.outputs("preprocess", x.shape, out=out)


@accelerated("out", check=_check_preprocess)
def preprocess(x: Array, shift: Array, scale: Array, *, out: Array | None = None) -> Array:
    """out = (x - shift) * scale in the dtype of shift: (N, D) of any real dtype; shift and scale (D,)."""
    xp = array_module(x, shift, scale)
    out = xp.subtract(x, shift, out=out, dtype=shift.dtype)
    return xp.multiply(out, scale, out=out)


@accelerated("out")
def cast(x: Array, dtype: Any, *, out: Array | None = None) -> Array:
    """x in a floating dtype, such as a batch of uint8 pixels that nothing else preprocesses."""
    if out is None:
        return x.astype(dtype)
    out[...] = x
    return out


@accelerated("counters")
def advance(counters: Array, increments: Array) -> Array:
    """counters += increments, in place: the step's own bookkeeping, done where the step runs."""
    return array_module(counters, increments).add(counters, increments, out=counters)


@accelerated("losses")
def record_step(losses: Array, counters: Array, increments: Array, loss: Array) -> Array:
    """losses[counters[1]] = loss, then counters += increments, in place: the slot is read on the device, no wait.

    Args:
        losses: (L,). counters, increments: (2,) int64, the cursor and the slot. loss: without axes.
    """
    losses[counters[1:]] = loss
    advance.reference(counters, increments)
    return losses
