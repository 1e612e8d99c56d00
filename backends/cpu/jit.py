"""How kernels are compiled: strict arithmetic, cached on disk, and not without a word if it takes long."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np

PATIENCE = 1.0  # seconds of compiling after which somebody watching wants to know

_announced = threading.Event()


class Jit:
    """A compiled loop over arrays: no reordering of float sums, no Python lock while it runs.

    Decorating raises RuntimeError if Numba finds no place for its cache: compiling anew in each process would cost
    more than the kernels gain, so the caller lets NumPy serve.
    """

    def __init__(self, function: Callable) -> None:
        self.compiled = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
        self._ready: set[str] = set()  # dtypes (of the first argument) that it has been compiled for

    def __call__(self, *args: Any) -> None:
        code = args[0].dtype.char
        if code in self._ready:
            self.compiled(*args)
            return
        with announced():
            self.compiled(*args)
        self._ready.add(code)


@contextmanager
def announced() -> Iterator[None]:
    """Compile within this: if it takes long, whoever watches is told."""
    timer = threading.Timer(PATIENCE, _announce)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _announce() -> None:
    if not _announced.is_set():
        _announced.set()
        sys.stderr.write("fcnet: compiling CPU kernels, once for this machine ...\n")
        sys.stderr.flush()


def plain(*arrays: Any) -> bool:
    """Whether these are C-contiguous, writable float32 or float64 arrays of one dtype."""
    dtype = arrays[0].dtype
    if dtype.char not in "fd" or not dtype.isnative:
        return False
    for array in arrays:
        if type(array) is not np.ndarray or array.dtype != dtype:
            return False
        flags = array.flags
        if not (flags.c_contiguous and flags.aligned and flags.writeable):
            return False
    return True
