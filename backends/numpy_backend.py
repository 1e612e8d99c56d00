"""The CPU: NumPy arrays, NumPy's BLAS, NumPy's own Philox."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from fcnet.backends.cpu import loader
from fcnet.backends.device import ALIGNMENT, Array, Backend, CallSequence, Kernel, Memory, recorded

SNAPSHOT = 1 << 20  # bytes of what a step changes; in a larger net rows do not go through all layers at once


@cache
def _below_one(dtype: np.dtype) -> np.floating:
    """Return the largest number below 1."""
    return np.nextafter(dtype.type(1), dtype.type(0))


class NumpyBackend(Backend):
    """Serve the CPU, with NumPy arrays."""

    name = "cpu"
    xp = np
    # 24576 float32 are 96 KiB: the five arrays of an Adam update then stay in a core's second-level cache (half a
    # megabyte or more) from one pass to the next. Blocks of 16384 take 15 % longer, in calls; larger ones gain little.
    block_size = 24576

    def __init__(self) -> None:
        self._local = threading.local()  # a bit generator is not safe to share between threads

    @property
    def kernels(self) -> Mapping[str, Kernel]:  # type: ignore[override]
        """Return the Numba kernels if Numba is installed, loaded when the first accelerated function is called."""
        return loader.load().kernels

    def owns(self, array: object) -> bool:
        return isinstance(array, np.ndarray)

    def asarray(self, array: Any, dtype: Any = None) -> Array:
        if hasattr(array, "__cuda_array_interface__"):  # CuPy refuses implicit copies to the host
            array = array.get()
        return np.asarray(array, dtype=dtype)

    def to_numpy(self, array: Array) -> np.ndarray:
        return np.asarray(array)

    def may_be_denormal(self, x: Array, work: Array) -> bool:
        # One pass, where flushing makes three: the product of a denormal and this number is rounded, which NumPy can
        # report as an underflow; all other products are exact or normal.
        try:
            with np.errstate(under="raise"):
                np.multiply(x, _below_one(x.dtype), out=work)
        except FloatingPointError:
            return True
        return False

    def may_exceed(self, x: Array, limit: float, *, work: Array) -> bool:
        # One pass, where limiting makes three: NumPy can report that a product overflows.
        try:
            with np.errstate(over="raise"):
                np.multiply(x, np.finfo(x.dtype).max / x.dtype.type(limit), out=work)
        except FloatingPointError:
            return True
        return False

    def zeros(self, size: int, dtype: Any) -> Array:
        item = np.dtype(dtype).itemsize
        raw = np.zeros(size + ALIGNMENT // item, dtype)  # longer, so that the front may be cut off
        front = -raw.ctypes.data % ALIGNMENT // item
        return raw[front : front + size]

    def upload(self, host: np.ndarray, out: Array) -> None:
        np.copyto(out, host)

    def use(self) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def gemm(
        self, a: Array, b: Array, out: Array | None = None, precision: str | None = None, stored: str | None = None
    ) -> Array:
        if a.ndim == b.ndim == 2:
            return np.dot(a, b, out=out)  # the same product as matmul, half a microsecond faster
        return np.matmul(a, b, out=out)

    def take_rows(self, array: Array, rows: Array, out: Array | None = None) -> Array:
        # mode="clip" avoids a buffered copy (five times faster); CuPy's take has no such keyword.
        return np.take(array, rows, axis=0, out=out, mode="clip")

    def random_bits(self, key: tuple[int, int], layer: int, step: int | Array, net: int, shape: tuple) -> Array:
        try:
            philox, state = self._local.philox
        except AttributeError:
            philox = np.random.Philox(0)
            state = philox.state
            self._local.philox = philox, state
        # Writing the state costs a sixth of making a bit generator; buffer_pos=4 means "no words left over".
        state["state"]["key"][:] = key
        number = step.item() if isinstance(step, np.ndarray) else step  # int() refuses an array of shape (1,)
        state["state"]["counter"][:] = (0, layer, number, net)
        state["buffer_pos"] = 4
        state["has_uint32"] = 0
        philox.state = state
        size = int(np.prod(shape, dtype=np.int64))
        words = philox.random_raw(-(-size // 4)).astype("<u8", copy=False)
        return words.view(np.uint16)[:size].reshape(shape)

    def snapshot(self, arrays: Sequence[Array]) -> Callable[[], None] | None:
        """See `Backend`: of nets that are small enough to be taken through a step some rows at a time."""
        if not self.kernels or sum(array.nbytes for array in arrays) > SNAPSHOT:
            return None
        copies = [array.copy() for array in arrays]

        def put_back() -> None:
            for array, copy in zip(arrays, copies, strict=True):
                array[...] = copy

        return put_back

    def first_call(self, kernel: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        return loader.first_call(kernel, *args, **kwargs)

    def compile(
        self,
        calls: Sequence[Callable[[], Any]],
        put_back: Callable[[], None] | None = None,
        most_rows: int | None = None,
    ) -> Callable[[], Any]:
        calls = recorded(calls)
        if not self.kernels:
            return CallSequence(calls)
        shorter = None if put_back is None else loader.shortened(calls)
        if put_back is None or shorter is None:
            return loader.compile(calls)
        step = loader.compile(shorter)
        put_back()
        step()
        return step

    def memory(self) -> Memory:
        page = _sysconf("SC_PAGE_SIZE")
        total = _sysconf("SC_PHYS_PAGES") * page
        free = _sysconf("SC_AVPHYS_PAGES") * page
        try:
            with open("/proc/self/statm") as statm:
                used = int(statm.read().split()[1]) * page
        except OSError:  # no /proc: not Linux
            used = 0
        return Memory(used, free, total)

    def describe(self) -> str:
        config: Any = np.show_config(mode="dicts")
        blas = config.get("Build Dependencies", {}).get("blas", {})
        numpy = f"NumPy {np.__version__}, {blas.get('name', 'unknown BLAS')} {blas.get('version', '')}".rstrip()
        return f"{numpy}, {loader.load().status}" if self.kernels else numpy


def _sysconf(name: str) -> int:
    """Return a number that the system reports, or 0: macOS lacks some, Windows all."""
    try:
        return os.sysconf(name)
    except (AttributeError, ValueError):
        return 0
