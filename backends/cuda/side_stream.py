"""Run two matrix products concurrently: independent branches of a CUDA graph may run at the same time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fcnet.backends.cuda.gemm import Gemm

STREAMS = 2  # of a graph, each with a workspace


class SideStream:
    """Own a second stream with its own cuBLAS handle: concurrent products must not share a workspace."""

    def __init__(self, cupy: Any, gemm: Gemm) -> None:
        self.gemm = gemm
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._begin, self._end = (cupy.cuda.Event(disable_timing=True) for _ in range(2))
        one = cupy.zeros((1, 1), np.float32)
        with self._stream:
            gemm(one, one)  # a handle's first product initialises it, which must not happen during a capture
        self._stream.synchronize()

    def __call__(self, main: Any, first: Callable[[], object], second: Callable[[], object]) -> None:
        """Call `first` on the second stream and `second` on `main`, between earlier and later work of `main`."""
        self._begin.record(main)
        self._stream.wait_event(self._begin)
        with self._stream:
            first()
        second()
        self._end.record(self._stream)
        main.wait_event(self._end)
