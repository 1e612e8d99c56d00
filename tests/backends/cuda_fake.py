"""A stand-in for CuPy on NumPy memory, as small as `CupyBackend` and the probe allow.

What makes it worth having: copies from pinned memory are *late*. They happen when something waits for them,
as on a GPU that is busy, so a staging buffer that is filled again too early shows as wrong numbers. Kernels
are the real CUDA source, run on the CPU (see cuda_cpu).
"""

from __future__ import annotations

import ctypes
import types
from types import SimpleNamespace

import numpy as np

from tests.backends.cuda_cpu import CpuKernel


class OutOfMemoryError(MemoryError):
    """As CuPy's."""


def fake_cupy(count: int = 1, driver: int = 12090, runtime: int = 12090) -> types.ModuleType:
    """A module like cupy on a machine with `count` GPUs.

    Its `fake` holds what tests look at: `log` (waits, copies, launches), `pending` (copies not yet done),
    `current` (the device), `limit` (bytes of the largest array that fits).
    """
    cupy = types.ModuleType("cupy")
    fake = SimpleNamespace(log=[], pending=[], done=0, current=0, limit=1 << 30)

    class Device:
        def __init__(self, index):
            self.id = index
            self.outer = []

        def __enter__(self):
            self.outer.append(fake.current)
            fake.current = self.id

        def __exit__(self, *_):
            fake.current = self.outer.pop()

        def synchronize(self):
            fake.log.append(("synchronize", self.id))
            finish(fake.done + len(fake.pending))

    def finish(until):
        """Do the pending copies up to the `until`-th since the start; whether there were any."""
        waited = fake.done < until
        while fake.done < until:
            to, host, nbytes = fake.pending.pop(0)
            ctypes.memmove(to.address, host, nbytes)
            fake.done += 1
        return waited

    class Event:
        def __init__(self, disable_timing=False):
            self.until = 0

        def record(self):
            self.until = fake.done + len(fake.pending)

        def synchronize(self):
            if finish(self.until):
                fake.log.append(("wait",))

    class Pointer:
        def __init__(self, array, address):
            self.array, self.address = array, address  # the array lives as long as a copy to it is pending
            self.ptr = address

        def __add__(self, offset):
            return Pointer(self.array, self.address + offset)

        def copy_from_host_async(self, host, nbytes):
            fake.pending.append((self, host, nbytes))
            fake.log.append(("copy", nbytes))

    class Pinned(bytearray):
        @property
        def ptr(self):
            return ctypes.addressof((ctypes.c_char * len(self)).from_buffer(self))

    class ndarray(np.ndarray):
        def __array_finalize__(self, other):
            self._device = getattr(other, "_device", None) or Device(fake.current)

        @property
        def device(self):
            return self._device

        @property
        def data(self):
            return Pointer(self, self.ctypes.data)

        @property
        def flags(self):
            return SimpleNamespace(c_contiguous=np.asarray(self).flags.c_contiguous)

    def empty(shape, dtype=float):
        array = np.empty(shape, dtype)
        if array.nbytes > fake.limit:
            raise OutOfMemoryError(f"Out of memory allocating {array.nbytes:,} bytes")
        return array.view(ndarray)

    def asarray(array, dtype=None):
        if isinstance(array, ndarray) and array.device.id == fake.current:
            return array.astype(dtype or array.dtype, copy=False)
        host = np.asarray(array, dtype)
        out = empty(host.shape, host.dtype)
        out[...] = host
        return out

    def asnumpy(array):
        finish(fake.done + len(fake.pending))
        return np.array(array)

    class RawModule:
        def __init__(self, code):
            self.code = code

        def get_function(self, name):
            kernel = CpuKernel(self.code, name)

            def launch(grid, block, arguments):
                fake.log.append(("launch", name, fake.current, grid, block, arguments))
                kernel(grid, block, arguments)

            return launch

    cupy.fake = fake
    cupy.__version__ = "14.2.0"
    cupy.ndarray, cupy.empty, cupy.asarray, cupy.RawModule = ndarray, empty, asarray, RawModule
    cupy.asnumpy = asnumpy
    cupy.ascontiguousarray = lambda array: np.ascontiguousarray(array).view(ndarray)
    cupy.matmul = lambda a, b, out=None: np.matmul(a, b, out=out)
    cupy.ElementwiseKernel = lambda *_: lambda array: array
    cupy.get_default_memory_pool = lambda: SimpleNamespace(total_bytes=lambda: 3 << 20)
    cupy.cuda = SimpleNamespace(
        Device=Device,
        Event=Event,
        alloc_pinned_memory=Pinned,
        memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
        runtime=SimpleNamespace(
            driverGetVersion=lambda: driver,
            runtimeGetVersion=lambda: runtime,
            getDeviceCount=lambda: count,
            getDeviceProperties=lambda index: {"name": f"NVIDIA Fake {index}".encode()},
            memGetInfo=lambda: (5 << 30, 139 << 30),
            malloc=lambda _: 1,
            free=lambda _: None,
        ),
    )
    return cupy
