"""The start of a training step: which rows, gathered into fixed buffers, preprocessed on the way; its bookkeeping.

Shapes: n samples in the data set, N batch, D features.
"""

from __future__ import annotations

from typing import Any

from fcnet.backends import Backend, Purpose, accelerated, checked, host_generator
from fcnet.functional import checks

Array = Any


def _check_shuffle(order: Array, seed: int, epoch: int) -> None:
    if order.ndim != 1 or order.dtype != "int64":
        raise ValueError(f"shuffle: order: expected (n,) int64, got {order.shape} {order.dtype}")


@accelerated("order", check=_check_shuffle)
def shuffle(backend: Backend, order: Array, seed: int, epoch: int) -> Array:
    """Set order (n,) int64 to this seed's and epoch's permutation of 0..n-1, in place.

    For i = n-1, ..., 1: swap order[i] and order[j], j uniform on 0..i. Drawn on the host, alike for all devices.

    Source: Fisher and Yates, as Durstenfeld, "Algorithm 235: Random permutation", 1964.
    """
    drawn = host_generator(seed, Purpose.SHUFFLE, step=epoch).permutation(order.size)
    backend.upload(drawn, order)
    return order


@accelerated(
    "batch",
    check=lambda data, rows, *, batch=None: checks.outputs("gather", (*rows.shape, *data.shape[1:]), batch=batch),
)
def gather(backend: Backend, data: Array, rows: Array, *, batch: Array | None = None) -> Array:
    """Return batch = data[rows]: (N, ...) out of (n, ...), any dtype, into `batch` if given."""
    return backend.take_rows(data, rows, out=batch)


def _check_preprocess(x: Array, shift: Array, scale: Array, *, out: Array | None = None) -> None:
    checks.features("preprocess", "shift", shift, x.shape[-1], "x")
    checks.same_shape("preprocess", "scale", scale, shift.shape, "shift")
    checks.outputs("preprocess", x.shape, out=out)


@accelerated("out", check=_check_preprocess)
def preprocess(backend: Backend, x: Array, shift: Array, scale: Array, *, out: Array | None = None) -> Array:
    """Return out = (x - shift) * scale in the dtype of shift: (N, D) of any real dtype; shift and scale (D,)."""
    out = difference.formula(backend, x, shift, out=out)
    return backend.xp.multiply(out, scale, out=out)


@checked("out")
def difference(backend: Backend, x: Array, shift: Array, *, out: Array | None = None) -> Array:
    """Return out = x - shift in the dtype of shift, floats: (N, D) of any real dtype; shift (D,).

    Of 64-bit integers, which the floats round beyond 2**53, what the rounding takes away is added afterwards.
    """
    xp = backend.xp
    if x.dtype not in ("int64", "uint64"):
        return xp.subtract(x, shift, out=out, dtype=shift.dtype)
    most = 2.0**63 - 2.0**39 if x.dtype == "int64" else 2.0**64 - 2.0**40  # floats that x.dtype holds
    rounded = xp.minimum(x.astype(shift.dtype), most)
    lost = (x - rounded.astype(x.dtype)).astype("int64")  # unsigned ones wrap round, and here back
    out = xp.subtract(rounded, shift, out=out)
    return xp.add(out, lost, out=out)


@checked("out")
def smooth_clip(backend: Backend, x: Array, limit: float, *, out: Array | None = None) -> Array:
    """Return out = x / sqrt(1 + (x / limit)²): nearly x near 0, never beyond ±limit; any shape, may be x itself.

    Source: Holzmüller, Grinsztajn and Steinwart, "Better by Default" (RealMLP), 2024.
    """
    xp = backend.xp
    root = xp.hypot(xp.divide(x, limit), 1.0)  # the square of a large x would overflow
    return xp.divide(x, root, out=out)


def _check_next_batch(
    X: Array, y: Array, order: Array, cursor: Array, offsets: Array, positions: Array, shift: Array | None = None,
    scale: Array | None = None, *, batch: Any = None, targets: Any = None, rows: Any = None, raw: Any = None,
) -> None:  # fmt: skip
    if X.shape[0] != y.shape[0]:
        raise ValueError(f"next_batch: y: expected {X.shape[0]} rows like X, got {y.shape[0]}")
    if (shift is None) != (scale is None):
        raise ValueError("next_batch: expected shift and scale, or neither; got one of them")
    if cursor.size != 1:
        raise ValueError(f"next_batch: cursor: expected one number, got {cursor.size}")
    if shift is not None and scale is not None:
        checks.features("next_batch", "shift", shift, X.shape[-1], "X")
        checks.same_shape("next_batch", "scale", scale, shift.shape, "shift")
    checks.outputs("next_batch", offsets.shape, positions=positions, rows=rows)
    checks.outputs("next_batch", (*offsets.shape, *X.shape[1:]), batch=batch, raw=raw)
    checks.outputs("next_batch", (*offsets.shape, *y.shape[1:]), targets=targets)


@accelerated("batch", "targets", "rows", "raw", check=_check_next_batch)
def next_batch(
    backend: Backend, X: Array, y: Array, order: Array, cursor: Array, offsets: Array, positions: Array,
    shift: Array | None = None, scale: Array | None = None, *, batch: Array | None = None,
    targets: Array | None = None, rows: Array | None = None, raw: Array | None = None,
) -> tuple[Array, Array, Array, Array | None]:  # fmt: skip
    """Return the next mini-batch, with the cursor read on the device.

    rows = order[cursor : cursor + N], targets = y[rows] and batch = X[rows], or (X[rows] - shift) * scale.

    Args:
        X: (n, D), any dtype. y: (n,) or (n, C).
        order: (n,) int64, this epoch's permutation. cursor: (1,) int64, rows of it already used.
        offsets: (N,) int64, 0..N-1. positions: (N,) int64, scratch.
        shift, scale: (D,), as in `preprocess`, or neither.
        batch: (N, D), targets: (N,) or (N, C), rows: (N,) int64, raw: like X[rows], filled if given.

    Returns:
        batch, targets, rows, and raw: scratch, or None.
    """
    backend.xp.add(offsets, cursor, out=positions)
    rows = backend.take_rows(order, positions, out=rows)  # the cursor never runs past the end
    targets = backend.take_rows(y, rows, out=targets)
    if shift is None:
        return backend.take_rows(X, rows, out=batch), targets, rows, None
    raw = backend.take_rows(X, rows, out=raw)
    return preprocess.formula(backend, raw, shift, scale, out=batch), targets, rows, raw


@checked("out")
def cast(backend: Backend, x: Array, dtype: Any, *, out: Array | None = None) -> Array:
    """Return x in a floating dtype, such as a batch of uint8 pixels that nothing else preprocesses."""
    if out is None:
        return x.astype(dtype)
    out[...] = x
    return out


def _check_advance(counters: Array, increments: Array) -> None:
    checks.same_shape("advance", "increments", increments, counters.shape, "counters")


@accelerated("counters", check=_check_advance)
def advance(backend: Backend, counters: Array, increments: Array) -> Array:
    """Compute counters += increments, in place: the step's own bookkeeping, done where the step runs."""
    return backend.xp.add(counters, increments, out=counters)


def _check_record_step(losses: Array, counters: Array, increments: Array, loss: Array) -> None:
    checks.same_shape("record_step", "increments", increments, counters.shape, "counters")
    if loss.size != 1:
        raise ValueError(f"record_step: loss: expected one number, got shape {loss.shape}")


@accelerated("losses", check=_check_record_step)
def record_step(backend: Backend, losses: Array, counters: Array, increments: Array, loss: Array) -> Array:
    """Set losses[counters[1]] = loss, then counters += increments, in place; the slot is read on the device.

    Args:
        losses: (L,). counters, increments: (2,) int64, the cursor and the slot. loss: without axes.
    """
    losses[counters[1:]] = loss
    backend.xp.add(counters, increments, out=counters)
    return losses
