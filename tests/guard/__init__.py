"""The guard device: NumPy arrays that behave as CuPy's do, and object to what is slow, wrong or hidden on a GPU.

Four things that go unnoticed on a CPU are errors or are counted here:

- mixing with host arrays, and implicit conversion to them (`np.sum(x)`, `np.asarray(x)`, iteration);
- waits: `float(x)`, `if x:`, `x.item()`, boolean masks, `backend.to_numpy`; refused inside `guard.no_waits()`;
- uploads: `asarray` of anything from the host, `upload`;
- allocations: what comes without `out=`, and the hidden copy CuPy makes when `out` overlaps an input that is
  not the very same object.

`xp` has the functions that fcnet uses and no others, with the keywords that CuPy's have. Memory from `empty` is
filled with NaN (or the largest integer), so that reading it shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from fcnet.backends import Backend, Memory, get_backend
from fcnet.backends.device import CallSequence, recorded
from tests.guard.array import LOG, NAME, Event, GuardArray, HiddenWait, Log, device_array, inside, new
from tests.guard.xp import GUARDED, UFUNCS, Namespace

__all__ = ["GUARDED", "UFUNCS", "Event", "GuardArray", "GuardBackend", "HiddenWait", "shares_memory"]


class GuardBackend(Backend):
    """The guard device; `log` tells what has happened on it."""

    name = NAME
    xp = Namespace()
    log = LOG

    def owns(self, array: object) -> bool:
        return isinstance(array, GuardArray)

    def asarray(self, array: object, dtype: Any = None) -> GuardArray:
        return self.xp.asarray(array, dtype)

    def to_numpy(self, array: GuardArray) -> np.ndarray:
        data = device_array("to_numpy", "array", array)
        LOG.wait("to_numpy", array)
        return data.copy()

    def upload(self, host: np.ndarray, out: GuardArray) -> None:
        if not isinstance(host, np.ndarray):
            raise TypeError(f"upload: host: expected a host array, got {type(host).__name__}")
        LOG.uploads.append(Event("upload", host.nbytes))
        np.copyto(device_array("upload", "out", out), host)

    def use(self):
        pass

    def synchronize(self) -> None:
        LOG.wait("synchronize")

    def gemm(
        self,
        a: GuardArray,
        b: GuardArray,
        out: GuardArray | None = None,
        precision: str | None = None,
        stored: str | None = None,
    ) -> GuardArray:
        first, second = device_array("gemm", "a", a), device_array("gemm", "b", b)
        if first.dtype != second.dtype or first.dtype.kind != "f":
            raise TypeError(f"gemm: expected two float arrays of one dtype, got {a.dtype} and {b.dtype}")
        if out is None:
            return new("gemm", np.matmul(first, second))
        target = device_array("gemm", "out", out)
        shape = (*np.broadcast_shapes(first.shape[:-2], second.shape[:-2]), first.shape[-2], second.shape[-1])
        if target.dtype != first.dtype:
            raise TypeError(f"gemm: out: expected {first.dtype}, got {target.dtype}")
        if target.shape != shape:
            raise ValueError(f"gemm: out: expected shape {shape}, got {target.shape}")
        if not target.flags.c_contiguous:
            raise ValueError("gemm: out: expected a C-contiguous array")
        if np.may_share_memory(target, first) or np.may_share_memory(target, second):
            raise ValueError("gemm: out overlaps an operand")
        np.matmul(first, second, out=target)
        return out

    def random_bits(self, key: tuple[int, int], layer: int, step: Any, net: int, shape: tuple) -> GuardArray:
        if isinstance(step, GuardArray):
            if step.size != 1 or step.dtype != np.int64:
                raise ValueError(f"step: expected one int64 on {NAME}, got {step.size} of {step.dtype}")
            step = inside(step)
        elif isinstance(step, np.ndarray):
            raise TypeError("random_bits: step: a host array meets the device; upload it first")
        return new("random_bits", get_backend("cpu").random_bits(key, layer, step, net, shape))

    def compile(
        self,
        calls: Sequence[Callable[[], Any]],
        put_back: Callable[[], None] | None = None,
        most_rows: int | None = None,
    ) -> Callable[[], Any]:
        return CallSequence(recorded(calls))

    def memory(self) -> Memory:
        return get_backend("cpu").memory()

    def describe(self) -> str:
        return "the guard device of the tests"

    # For tests

    @contextmanager
    def no_waits(self) -> Iterator[None]:
        """Inside, any wait for the device raises HiddenWait, explicit ones too."""
        LOG.waits_forbidden += 1
        try:
            yield
        finally:
            LOG.waits_forbidden -= 1

    @contextmanager
    def recording(self) -> Iterator[Log]:
        """Inside, the log starts empty."""
        LOG.clear()
        yield LOG


def shares_memory(a: Any, b: Any) -> bool:
    """Whether two arrays of one device overlap; for CuPy by their addresses."""
    if isinstance(a, GuardArray) and isinstance(b, GuardArray):
        return np.shares_memory(inside(a), inside(b))
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return np.shares_memory(a, b)
    import cupy

    return bool(cupy.may_share_memory(a, b))
