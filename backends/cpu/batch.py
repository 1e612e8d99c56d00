"""Numba kernels for both ends of a training step, with the formulas of `fcnet.functional.batch`.

At its start: gather and preprocess a mini-batch. At its end: record the loss and advance the counters.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from fcnet.backends import fits
from fcnet.backends.cpu import pool
from fcnet.backends.cpu.compiled_step import integer, integers, matrix, thunk_of, vector
from fcnet.backends.cpu.jit import Jit, Layout, compiled, is_contiguous_integer
from fcnet.backends.device import Kernel

_run_pieces = pool.run_pieces.compiled

NARROW = 64  # bytes of a row up to which copying word by word is faster than to call the C library
WORTH = 100_000  # bytes of a batch from which on several threads gather it

# The job in the shared words, as offsets from pool.JOB: the addresses of data, row numbers and batch; bytes of a row;
# rows of the data, of the batch and of a piece; where bytes become numbers, the addresses of shift and scale, too.
DATA, ROWS, BATCH, BYTES, COUNT, WANTED, LENGTH, SHIFT, SCALE = range(9)


@compiled
def _copy_row(source, target, size):
    if size <= NARROW and size % 8 == 0:
        for at in range(0, size, 8):
            pool.words(target + at, 1)[0] = pool.words(source + at, 1)[0]
    else:
        pool.copy(source, target, size)


@pool.Task
def _rows(shared, piece, scratch):
    # batch[i] = data[rows[i]], for the i of this piece
    job = shared + 8 * pool.JOB
    data, rows, batch = pool.load(job + 8 * DATA), pool.load(job + 8 * ROWS), pool.load(job + 8 * BATCH)
    size, last = pool.load(job + 8 * BYTES), pool.load(job + 8 * COUNT) - 1
    length = pool.load(job + 8 * LENGTH)
    begin = piece * length
    for i in range(begin, min(begin + length, pool.load(job + 8 * WANTED))):
        row = min(max(pool.load(rows + 8 * i), 0), last)  # clipped as in the reference: never outside the data
        _copy_row(data + row * size, batch + i * size, size)


@Jit
def _gather(data, rows, batch, task, shared, scratch, num_threads):
    job = pool.JOB
    size = batch.nbytes // rows.size  # not the stride, which is arbitrary for a single row
    share = -(-rows.size // num_threads)
    shared[pool.TASK] = task
    shared[job + DATA], shared[job + ROWS], shared[job + BATCH] = data.ctypes.data, rows.ctypes.data, batch.ctypes.data
    shared[job + BYTES], shared[job + COUNT], shared[job + WANTED] = size, data.shape[0], rows.size
    shared[job + LENGTH] = share
    _run_pieces(shared, scratch, -(-rows.size // share))


@Jit
def _gather_alone(data, rows, batch, count, size):
    take(data.ctypes.data, rows, batch.ctypes.data, count, size)


@compiled
def take(data, rows, batch, count, size):
    # batch[i] = data[rows[i]]; `count` rows of `size` bytes
    for i in range(rows.size):
        _copy_row(data + min(max(rows[i], 0), count - 1) * size, batch + i * size, size)


@thunk_of(_gather_alone, "*i*nn")
def _thunk_gather(record, shared, scratch, num_threads):
    take(integer(record, 0), integers(record, 1), integer(record, 3), integer(record, 4), integer(record, 5))


@compiled
def _scale_row(x, shift, scale, out):
    # out = (x - shift) scale
    for d in range(x.size):
        out[d] = (shift.dtype.type(x[d]) - shift[d]) * scale[d]


@compiled
def _take_scaled(data, rows, shift, scale, batch, count):
    # batch[i] = (data[rows[i]] - shift) scale; data: bytes
    width = shift.size
    for i in range(rows.size):
        row = min(max(rows[i], 0), count - 1)
        x = numba.carray(pool.to_bytes(data + row * width), (width,))
        _scale_row(x, shift, scale, batch[i])


@Jit
def _scaled_alone(data, rows, shift, scale, batch, count):
    _take_scaled(data.ctypes.data, rows, shift, scale, batch, count)


@thunk_of(_scaled_alone, "*i112n")
def _thunk_scaled(record, shared, scratch, num_threads):
    rows, shift, scale, batch = integers(record, 1), vector(record, 3), vector(record, 5), matrix(record, 7)
    _take_scaled(integer(record, 0), rows, shift, scale, batch, integer(record, 10))


@pool.Task
def _scaled_rows(shared, piece, scratch):
    job = shared + 8 * pool.JOB
    width, length = pool.load(job + 8 * BYTES), pool.load(job + 8 * LENGTH)
    begin = piece * length
    wanted = min(length, pool.load(job + 8 * WANTED) - begin)
    rows = pool.words(pool.load(job + 8 * ROWS) + 8 * begin, wanted)
    shift = pool.floats(pool.load(job + 8 * SHIFT), width)
    scale = pool.floats(pool.load(job + 8 * SCALE), width)
    batch = numba.carray(pool.to_floats(pool.load(job + 8 * BATCH) + 4 * begin * width), (wanted, width))
    _take_scaled(pool.load(job + 8 * DATA), rows, shift, scale, batch, pool.load(job + 8 * COUNT))


@Jit
def _scaled(data, rows, shift, scale, batch, task, shared, scratch, num_threads):
    job = pool.JOB
    share = -(-rows.size // num_threads)
    shared[pool.TASK] = task
    shared[job + DATA], shared[job + ROWS], shared[job + BATCH] = data.ctypes.data, rows.ctypes.data, batch.ctypes.data
    shared[job + SHIFT], shared[job + SCALE] = shift.ctypes.data, scale.ctypes.data
    shared[job + BYTES], shared[job + COUNT], shared[job + WANTED] = shift.size, data.shape[0], rows.size
    shared[job + LENGTH] = share
    _run_pieces(shared, scratch, -(-rows.size // share))


@Jit
def _batch_rows(order, cursor, rows):
    # rows = order[cursor : cursor + N]
    start, last = cursor[0], order.size - 1
    for i in range(rows.size):
        rows[i] = order[min(max(start + i, 0), last)]


_batch_rows_inner = _batch_rows.compiled


@thunk_of(_batch_rows, "iii")
def _thunk_batch_rows(record, shared, scratch, num_threads):
    _batch_rows_inner(integers(record, 0), integers(record, 2), integers(record, 4))


@Jit
def _preprocess(x, shift, scale, out):
    # out = (x - shift) scale
    for n in range(x.shape[0]):
        for d in range(x.shape[1]):
            out[n, d] = (shift.dtype.type(x[n, d]) - shift[d]) * scale[d]


@Jit
def _advance(counters, increments):
    # counters += increments
    for i in range(counters.size):
        counters[i] += increments[i]


_advance_inner = _advance.compiled


@thunk_of(_advance, "ii")
def _thunk_advance(record, shared, scratch, num_threads):
    _advance_inner(integers(record, 0), integers(record, 2))


@Jit
def _record_step(losses, counters, increments, loss):
    # losses[counters[1]] = loss; counters += increments
    slot = counters[1]
    if 0 <= slot < losses.size:
        losses[slot] = loss[()]
    _advance_inner(counters, increments)


@thunk_of(_record_step, "1ii*")
def _thunk_record_step(record, shared, scratch, num_threads):
    losses, counters, increments = vector(record, 0), integers(record, 2), integers(record, 4)
    slot = counters[1]
    if 0 <= slot < losses.size:
        losses[slot] = pool.floats(integer(record, 6), 1)[0]
    _advance_inner(counters, increments)


def gather(data, rows, *, batch=None):
    batch = np.empty((len(rows), *data.shape[1:]), data.dtype) if batch is None else batch
    if batch.nbytes > WORTH:
        pool.run(_gather, data, rows, batch, _rows.address, work=batch.nbytes)
    else:
        _gather_alone(data, rows, batch, len(data), batch.nbytes // len(rows))
    return batch


def next_batch(
    X, y, order, cursor, offsets, positions, shift=None, scale=None, *, batch=None, targets=None, rows=None, raw=None
):
    rows = np.empty_like(offsets) if rows is None else rows
    _batch_rows(order, cursor, rows)
    targets = gather(y, rows, batch=targets)
    if shift is None:
        return gather(X, rows, batch=batch), targets, rows, None
    batch = np.empty((len(rows), X.shape[1]), shift.dtype) if batch is None else batch
    if batch.nbytes > WORTH and batch.dtype == np.float32:
        pool.run(_scaled, X, rows, shift, scale, batch, _scaled_rows.address, work=batch.nbytes)
    else:
        _scaled_alone(X, rows, shift, scale, batch, len(X))
    return batch, targets, rows, None


def preprocess(x, shift, scale, *, out=None):
    out = np.empty(x.shape, shift.dtype) if out is None else out
    _preprocess(x, shift, scale, out)
    return out


def advance(counters, increments):
    _advance(counters, increments)
    return counters


def record_step(losses, counters, increments, loss):
    _record_step(losses, counters, increments, loss)
    return losses


def _writeable(*arrays: Any) -> bool:
    """Return whether all arrays that are not None may be written to."""
    return all(array is None or array.flags.writeable for array in arrays)


_COMPILED = "fd" + np.typecodes["AllInteger"]  # the dtypes that Numba compiles for


def _fits_gather(data: Any, rows: Any, *, batch: Any = None) -> bool:
    blocks = [data] if batch is None else [data, batch]
    return (
        all(type(a) is np.ndarray and a.flags.c_contiguous and a.flags.aligned and a.size for a in blocks)
        and _writeable(batch)
        and data.dtype.char in _COMPILED
        and all(a.dtype == data.dtype and a.dtype.isnative and a.ndim <= 2 for a in blocks)
        and is_contiguous_integer(rows)
        and rows.size > 0
    )


def _fits_next_batch(
    X: Any, y: Any, order: Any, cursor: Any, offsets: Any, positions: Any, shift: Any = None, scale: Any = None,
    *, batch: Any = None, targets: Any = None, rows: Any = None, raw: Any = None,
) -> bool:  # fmt: skip
    given = [] if rows is None else [rows]
    taken = (
        is_contiguous_integer(order, cursor, offsets, *given)
        and _writeable(rows)
        and _fits_gather(y, offsets, batch=targets)
    )
    if shift is None:
        return order.size > 0 and taken and _fits_gather(X, offsets, batch=batch)
    return (
        order.size > 0 and taken and X.dtype == np.uint8 and _fits_preprocess(X, shift, scale, out=batch) and X.size > 0
    )


def _fits_preprocess(x: Any, shift: Any, scale: Any, *, out: Any = None) -> bool:
    return (
        type(x) is np.ndarray
        and x.dtype.char in "Bfd"
        and x.dtype.isnative
        and x.flags.c_contiguous
        and fits.preprocess(_ON, x, shift, scale, out=out)
    )


def _fits_advance(counters: Any, increments: Any) -> bool:
    return fits.advance(_ON, counters, increments) and _writeable(counters)


def _fits_record_step(losses: Any, counters: Any, increments: Any, loss: Any) -> bool:
    return fits.record_step(_ON, losses, counters, increments, loss) and _writeable(counters)


_ON = Layout()
KERNELS = {
    "advance": Kernel(advance, _fits_advance),
    "gather": Kernel(gather, _fits_gather),
    "next_batch": Kernel(next_batch, _fits_next_batch),
    "preprocess": Kernel(preprocess, _fits_preprocess),
    "record_step": Kernel(record_step, _fits_record_step),
}
