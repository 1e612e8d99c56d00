"""Numbers about the smallest normal one, and what is denormal among an array's."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import sys
from collections.abc import Callable

import numpy as np
import pytest

from fcnet.backends.cupy_backend import CupyBackend

#: Processor -> where the register that may flush denormals lies in C's fenv_t, and its bits for operands and results.
FLUSHING = {"x86_64": (28, 0x8040), "aarch64": (0, 1 << 24)}


def flushes(backend, dtype: str) -> bool:
    """Return whether a denormal counts as 0 on this device, as operand and as result: on a GPU in float32, because CuPy
    compiles everything with -ftz=true.
    """
    return isinstance(backend, CupyBackend) and np.dtype(dtype) == np.float32


@contextlib.contextmanager
def flushed(flushes: bool = True):
    """Let NumPy count denormals as 0, too, if `flushes`: then its bits are those of a GPU."""
    if not flushes:
        yield
        return
    if sys.platform != "linux" or platform.machine() not in FLUSHING:
        pytest.skip(f"how {platform.machine()} flushes denormals is not known here")
    libm, before, changed = ctypes.CDLL("libm.so.6"), ctypes.create_string_buffer(64), ctypes.create_string_buffer(64)
    at, bits = FLUSHING[platform.machine()]
    libm.fegetenv(before)
    changed.raw = before.raw
    register = ctypes.c_uint32.from_buffer(changed, at)
    register.value |= bits
    libm.fesetenv(changed)
    try:
        yield
    finally:
        libm.fesetenv(before)


def count(array: np.ndarray) -> int:
    """How many elements are denormal."""
    size = np.abs(array)
    return int(((size > 0) & (size < np.finfo(array.dtype).smallest_normal)).sum())


def small(dtype: str) -> np.ndarray:
    """Return normal numbers of both signs up to four times the smallest, which soon decay to denormals, and zeros."""
    sizes = np.array([1, 1 + 2**-20, 1.25, 1.5, 2 - 2**-20, 2, 3, 4, 0]) * float(np.finfo(dtype).smallest_normal)
    return np.concatenate([sizes, -sizes]).astype(dtype)


#: Gradients with which moments that start so small stay small, from those moments.
GRADIENTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "zero": np.zeros_like,
    "denormal": lambda start: start / 7,
    "its square is denormal": lambda start: start / (5 * np.finfo(start.dtype).smallest_normal ** 0.5),
}
