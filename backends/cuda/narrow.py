"""The CUDA kernels of affine layers with few outputs (narrow.cu): which layers, and how they are cut into blocks.

All of this depends on the shapes alone, so the same shapes give the same bits.
"""

from __future__ import annotations

import numpy as np

from fcnet.backends.cuda.launch import Launcher
from fcnet.backends.device import Array

# The fewest rows -> the most inputs and outputs for which these kernels are used; cuBLAS does the rest. To be measured:
# with few rows latency decides, which grows with the inputs, since one block adds up a whole row; with many rows it is
# the reading of x, until from some number of outputs on it is the arithmetic.
TAKEN = {1: (4096, 32), 513: (1 << 30, 12)}

FORWARD = 12  # the most outputs of a block of the forward kernel; with fewer, little is wasted, as x is read anyway
BACKWARD = (12, 32)  # the same for each of the backward kernels
WARPS, FORWARD_ROWS, LANE_INPUTS = 8, 4, 4  # as in narrow.cu
BLOCKS = 128  # enough to occupy a GPU; with fewer, the warps of a block share the sums of a row
FEW = 512  # rows up to which the gradients need no second launch
PART = 256  # the fewest rows of a part of the weights' gradient
STEP = 64  # rows that a block of the backward kernels reads at once


def taken(x: Array, w: Array) -> bool:
    """Return whether these kernels serve a layer of these shapes."""
    (rows, inner), width = x.shape, w.shape[1]
    inputs, outputs = TAKEN[max(least for least in TAKEN if least <= rows)]
    return inner <= inputs and width <= outputs


def apart(outputs: list[Array], inputs: list[Array]) -> bool:
    """Return whether no output overlaps an input in memory: blocks write while others still read."""
    ends = [(a.data.ptr, a.data.ptr + a.nbytes) for a in inputs]
    return not any(a.data.ptr < end and begin < a.data.ptr + a.nbytes for a in outputs for begin, end in ends)


def forward(on: Launcher, out: Array, x: Array, w: Array, b: Array) -> None:
    """Write x w + b to out; x may be in bfloat16."""
    (rows, inner), width = x.shape, w.shape[1]
    groups = _ceil(width, FORWARD)
    splits = 1
    while splits < WARPS and splits * 32 * LANE_INPUTS < inner and _forward_blocks(rows, splits) < BLOCKS:
        splits *= 2
    grid = (_forward_blocks(rows, splits) * groups,)
    numbers = rows, inner, width, groups, splits, on.aligned(inner, x, w)
    on.launch(f"narrow_forward_{FORWARD}", x.dtype.char, grid, (32 * WARPS,), out, x, w, b, *map(np.int32, numbers))


def backward(on: Launcher, dx: Array | None, dw: Array, db: Array, dout: Array, x: Array, w: Array) -> None:
    """Write dx = dout wᵀ (unless dx is None), dw = xᵀ dout and db = Σ_n dout; x and dx may be in bfloat16, both."""
    (rows, inner), width = x.shape, w.shape[1]
    columns = next(most for most in BACKWARD if most >= width)
    few = rows <= FEW or columns != BACKWARD[0]
    across = 32 * (4 if columns == BACKWARD[0] else 2)  # inputs to a tile of 32 threads in a row
    tiles, dw_tiles = _ceil(inner, across), _ceil(inner, 32 if few else across)
    parts = 1 if few else min(_ceil(rows, PART), max(4, min(64, 512 // dw_tiles)))
    share = STEP * _ceil(_ceil(rows, parts), STEP)
    parts, dx_share = _ceil(rows, share), STEP if rows <= 4 * FEW else 4 * STEP
    blocks = dw_tiles * parts + (0 if dx is None else tiles * _ceil(rows, dx_share))
    sums = (dw, db) if parts == 1 else (on.cupy.empty((parts, inner + 1, width), w.dtype), None)
    aligned = on.aligned(inner, x, *([] if dx is None else [dx]))
    numbers = rows, inner, width, share, parts, dx_share, few, aligned
    arrays = dx, *sums, dout, x, w
    on.launch(f"narrow_backward_{columns}", x.dtype.char, (blocks,), (32 * WARPS,), *arrays, *map(np.int32, numbers))
    if parts > 1:
        count, size = np.int32(parts), np.int64(dw.size)
        on.each("narrow_sums", dw, dw.size + width, dw, db, sums[0], count, size, np.int32(width))


def _forward_blocks(rows: int, splits: int) -> int:
    return _ceil(rows, WARPS // splits * FORWARD_ROWS)


def _ceil(whole: int, part: int) -> int:
    return -(-whole // part)
