"""Matrices in bfloat16, as uint16 arrays of its bits, since NumPy has no such dtype."""

from __future__ import annotations

import numpy as np

from fcnet.backends.cuda.launch import EACH, Launcher
from fcnet.backends.device import Array

BITS = np.dtype(np.uint16)


def rounded(on: Launcher, x: Array, out: Array | None = None) -> Array:
    """Return x, float32, rounded to bfloat16, in the same order in memory; `out` is contiguous, as x."""
    if x.dtype == BITS:
        return x
    if not x.flags.c_contiguous:
        return rounded(on, x.T).T
    if out is None:
        out = on.cupy.empty(x.shape, BITS)
    on.each("to_bf16", x, x.size, out, x, np.int64(x.size), each=EACH)
    return out


def widened(on: Launcher, x: Array, out: Array) -> Array:
    """Fill `out`, float32, with the values of x in bfloat16."""
    on.each("from_bf16", out, x.size, out, x, np.int64(x.size), each=EACH)
    return out
