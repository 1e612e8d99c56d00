"""Checksums of arrays, to compare bits without a copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fcnet.backends.cuda.launch import EACH, PARTS, THREADS, Launcher
from fcnet.backends.device import Array


class Checksums:
    """Compute checksums of contiguous arrays of one device: a 64-bit sum for each part of an array."""

    def __init__(self, cupy: Any) -> None:
        self._on = Launcher(cupy)

    def __call__(self, arrays: Sequence[Array]) -> np.ndarray:
        """Return the sums, (arrays, PARTS) uint64 on the host; 0 where an array has fewer. Waits for the device."""
        parts = self._on.cupy.zeros((len(arrays), PARTS), np.uint64)
        for row, array in zip(parts, arrays, strict=True):
            size = 4 if array.data.ptr % 4 == 0 else 1  # bytes read at once
            blocks = min(PARTS, -(-array.nbytes // (THREADS * EACH * size)))
            counts = np.int64(array.nbytes), np.int32(size)
            self._on.launch("checksum", "f", (blocks,), (THREADS,), row, array, *counts)
        return self._on.cupy.asnumpy(parts)
