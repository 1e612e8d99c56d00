"""`fcnet.backends.flush` for CPU kernels, one number at a time."""

from __future__ import annotations

import numpy as np

from fcnet.backends.cpu.jit import compiled

SINGLE, DOUBLE = float(np.finfo(np.float32).smallest_normal), float(np.finfo(np.float64).smallest_normal)


@compiled
def smallest_normal(array):
    """Return the smallest normal number of the array's dtype, in that dtype."""
    return array.dtype.type(SINGLE if array.itemsize == 4 else DOUBLE)


@compiled
def flushed(value, normal):
    """Return the value, or 0 of its sign below `normal`, the smallest normal number of its dtype; NaN stays NaN."""
    return value if abs(value) >= normal else value * (normal - normal)  # normal - normal: a zero of this dtype
