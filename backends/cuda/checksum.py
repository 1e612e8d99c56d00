"""Whether arrays hold the same bits as before, without a copy of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fcnet.backends.cuda.launch import EACH, PARTS, THREADS, Launcher
from fcnet.backends.device import Array


class Checksums:
    """Checksums of contiguous arrays of one device: sums of 64 bits, one for each share of an array."""

    def __init__(self, cupy: Any) -> None:
        self._on = Launcher(cupy)

    def __call__(self, arrays: Sequence[Array]) -> np.ndarray:
        """(arrays, PARTS) uint64, on the host, zeros where an array has fewer shares; this waits for the device."""
        parts = self._on.cupy.zeros((len(arrays), PARTS), np.uint64)
        for row, array in zip(parts, arrays, strict=True):
            unit = 4 if array.data.ptr % 4 == 0 else 1
            blocks = min(PARTS, -(-array.nbytes // (THREADS * EACH * unit)))
            counts = np.int64(array.nbytes), np.int32(unit)
            self._on.launch("checksum", "f", (blocks,), (THREADS,), row, array, *counts)
        return self._on.cupy.asnumpy(parts)
