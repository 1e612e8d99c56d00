"""A stand-in for CuPy on NumPy memory, as small as `CupyBackend` and the probe allow.

What makes it worth having: copies from pinned memory are *late*. They happen when something waits for them,
as on a GPU that is busy, so a staging buffer that is filled again too early shows as wrong numbers. Kernels
are the real CUDA source, run on the CPU (see cuda_cpu).
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import types
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from fcnet.backends import select
from fcnet.backends.cuda import cublaslt
from fcnet.backends.cupy_backend import CupyBackend
from tests.kernels.cuda_cpu import CpuKernel
from tests.kernels.cuda_grid import GridKernel

TRAIN_STEPS = "const Job* given, const double* rates, int rate_count, int steps"


class OutOfMemoryError(MemoryError):
    """As CuPy's."""


def fake_cupy(
    count: int = 1, driver: int = 12090, runtime: int = 12090, processors: int = 0, shared: int = 1 << 18
) -> types.ModuleType:
    """Return a module like cupy on a machine with `count` GPUs.

    With `processors` they have cooperative launches, a resident block for each, of up to `shared` bytes.

    Its `fake` holds what tests look at: `log` (waits, copies, launches), `pending` (copies not yet done),
    `current` (the device), `limit` (bytes of the largest array that fits), `free` (bytes that the device has free),
    `resident` (blocks of a persistent kernel that a processor keeps).
    """
    cupy = types.ModuleType("cupy")
    fake = SimpleNamespace(log=[], pending=[], done=0, current=0, limit=1 << 30, free=5 << 30, resident=1)

    class Device:
        def __init__(self, index=None):
            self.id = fake.current if index is None else index
            self.compute_capability = "90"
            self.outer = []

        def __enter__(self):
            self.outer.append(fake.current)
            fake.current = self.id

        def __exit__(self, *_):
            fake.current = self.outer.pop()

        def use(self):
            fake.current = self.id

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

    def arrive(event):
        """Do the copies that an event comes after; whether there were any."""
        late = [copy for copy in event.late if not copy.done]
        for copy in late:
            copy()
        return finish(event.until) or bool(late)

    class LateCopy:
        """A copy on a stream of its own: it happens when somebody waits for an event after it, and not before."""

        def __init__(self, to, host, nbytes):
            self.to, self.host, self.nbytes, self.done = to, host, nbytes, False

        def __call__(self):
            ctypes.memmove(self.to.address, self.host, self.nbytes)
            self.done = True

    class Event:
        def __init__(self, disable_timing=False):
            self.until, self.late, self.stream, self.taken = 0, (), None, None

        def record(self, stream=None):
            self.stream = stream or fake.streams[-1]
            self.taken = self.stream.taken
            self.late = () if stream is None else tuple(stream.late)
            self.until = fake.done + len(fake.pending)

        def synchronize(self):
            if arrive(self):
                fake.log.append(("wait",))

    class Pointer:
        def __init__(self, array, address):
            self.array, self.address = array, address  # the array lives as long as a copy to it is pending
            self.ptr = address

        def __add__(self, offset):
            return Pointer(self.array, self.address + offset)

        def copy_from_host_async(self, host, nbytes, stream=None):
            if stream is None:
                fake.pending.append((self, host, nbytes))
            else:
                stream.late.append(LateCopy(self, host, nbytes))
            fake.log.append(("copy", nbytes))

        def copy_from_device_async(self, other, nbytes, stream=None):
            fake.do(lambda: ctypes.memmove(self.address, other.address, nbytes))

        def memset_async(self, value, nbytes, stream=None):
            fake.do(lambda: ctypes.memset(self.address, value, nbytes))

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

        def set(self, host):
            finish(fake.done + len(fake.pending))
            self[...] = host

        @property
        def flags(self):
            flags = np.asarray(self).flags
            return SimpleNamespace(c_contiguous=flags.c_contiguous, f_contiguous=flags.f_contiguous)

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
        def __init__(self, code, enable_cooperative_groups=False, options=()):
            self.code, self.cooperative = code, enable_cooperative_groups

        def compile(self):
            """Do nothing: kernels are compiled when they are asked for."""

        def get_function(self, name):
            if self.cooperative:
                return Cooperative(self.code, name)
            kernel = CpuKernel(self.code, name)

            def launch(grid, block, arguments):
                fake.log.append(("launch", name, fake.current, grid, block, arguments))
                fake.do(lambda: kernel(grid, block, arguments))

            return launch

    class Cooperative:
        """A kernel whose blocks run at once."""

        max_dynamic_shared_size_bytes = 48 << 10
        ptr = 0

        @property
        def kernel(self):
            return self

        def __init__(self, code, name):
            self.run, self.name = GridKernel(code, name, TRAIN_STEPS), name

        def __call__(self, grid, block, arguments, shared_mem=0):
            assert grid[0] <= processors
            assert shared_mem <= self.max_dynamic_shared_size_bytes <= shared
            fake.log.append(("launch", self.name, fake.current, grid, block, arguments))
            fake.do(lambda: self.run(*grid, *block, shared_mem, arguments, len(fake.log)))

    class Stream:
        def __init__(self, non_blocking=False):
            self.ptr = next(numbers)
            self.taken = None
            self.late = []

        def wait_event(self, event):
            arrive(event)
            if event.taken is None:
                return
            if self.taken is None:  # this stream takes part in the capture from here on
                self.taken = event.taken
            event.taken.apart.discard(event.stream)  # its work is waited for here
            if self is not event.taken.origin:
                event.taken.apart.add(self)
                event.taken.guests.add(self)

        def __enter__(self):
            fake.streams.append(self)

        def __exit__(self, *_):
            fake.streams.pop()

        def synchronize(self):
            fake.log.append(("synchronize", self.ptr))
            for copy in self.late:
                copy()

        def begin_capture(self):
            self.taken = Taken(self)

        def end_capture(self):
            taken, self.taken = self.taken, None
            for guest in taken.guests:
                guest.taken = None
            if taken.apart:
                raise RuntimeError("cudaErrorStreamCaptureUnjoined")
            return Graph(taken)

    class Taken(list):
        """Work that is being captured; `apart` are the streams whose work the first one has not waited for."""

        def __init__(self, origin):
            super().__init__()
            self.origin, self.apart, self.guests = origin, set(), set()

    class Graph:
        def __init__(self, work):
            self.work = work

        def launch(self, stream=None):
            fake.log.append(("graph", len(self.work)))
            finish(fake.done + len(fake.pending))
            for one in self.work:
                one()

    numbers = itertools.count()
    fake.streams = [Stream()]

    def do(work):
        """Kernels and products go here: done at once, or taken into the graph that is being captured."""
        taken = fake.streams[-1].taken
        if taken is not None:
            taken.append(work)
            return
        finish(fake.done + len(fake.pending))  # what was sent before has arrived: the order of a stream
        work()

    fake.do = do

    def of_numpy(name):
        """NumPy's function, with results on the device. Such work is not captured, as if it had been forgotten."""
        if name.startswith("__"):
            raise AttributeError(name)
        function = getattr(np, name)

        def call(*args, **kwargs):
            result = function(*args, **kwargs)
            return np.asarray(result).view(ndarray) if isinstance(result, np.ndarray | np.generic) else result

        return call if callable(function) and not isinstance(function, type) else function

    cupy.fake = fake
    cupy.__getattr__ = of_numpy
    cupy.__version__ = "14.2.0"
    cupy.ndarray, cupy.empty, cupy.asarray, cupy.RawModule = ndarray, empty, asarray, RawModule
    cupy.asnumpy = asnumpy
    cupy.ascontiguousarray = lambda array: np.ascontiguousarray(array).view(ndarray)
    cupy.matmul = lambda a, b, out=None: np.matmul(a, b, out=out)
    cupy.get_default_memory_pool = lambda: SimpleNamespace(
        total_bytes=lambda: 3 << 20, free_bytes=lambda: 1 << 20, free_all_blocks=lambda: None
    )
    cupy.cuda = SimpleNamespace(
        Device=Device,
        Event=Event,
        Stream=Stream,
        MemoryPool=lambda: SimpleNamespace(malloc=None, total_bytes=lambda: 1 << 20),
        using_allocator=lambda _: contextlib.nullcontext(),
        get_current_stream=lambda: fake.streams[-1],
        alloc_pinned_memory=Pinned,
        memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
        driver=SimpleNamespace(occupancyMaxActiveBlocksPerMultiprocessor=lambda *_: fake.resident),
        runtime=SimpleNamespace(
            driverGetVersion=lambda: driver,
            runtimeGetVersion=lambda: runtime,
            getDeviceCount=lambda: count,
            getDeviceProperties=lambda index: {
                "name": f"NVIDIA Fake {index}".encode(),
                "cooperativeLaunch": int(processors > 0),
                "multiProcessorCount": processors,
                "sharedMemPerBlockOptin": shared,
            },
            memGetInfo=lambda: (fake.free, 139 << 30),
            malloc=lambda _: 1,
            free=lambda _: None,
        ),
    )
    return cupy


def fake_cublas(cupy: types.ModuleType) -> SimpleNamespace:
    """Return what `Gemm` calls of cuBLAS, column-major as the real one, on NumPy memory; `log` has the calls."""
    log = []

    def called(name, work=lambda *_: None):
        def function(*arguments):
            log.append((name, *arguments))
            return work(*arguments) or 0

        return function

    def matrix(address, kind, stride, rows, columns):
        """(rows, columns), each column `stride` numbers after the one before."""
        number = {0: ctypes.c_float, 1: ctypes.c_double, 14: ctypes.c_uint16}[kind]
        memory = np.ctypeslib.as_array((number * (stride * (columns - 1) + rows)).from_address(address))
        return np.lib.stride_tricks.as_strided(memory, (rows, columns), (memory.itemsize, stride * memory.itemsize))

    def operand(address, kind, *layout):
        bits = matrix(address, kind, *layout)
        return (bits.astype(np.uint32) << 16).view(np.float32) if kind == 14 else bits  # bfloat16: a float's upper half

    def bf16(x):
        """Return the bits of x, without NaN, rounded to the nearest bfloat16, ties to even."""
        bits = x.astype(np.float32).view(np.uint32)
        return (bits + 0x7FFF + (bits >> 16 & 1) >> 16).astype(np.uint16)

    def tf32(x):
        """Return x rounded to 11 significant bits, as the tensor cores take float32."""
        mantissa, exponent = np.frexp(x)
        return np.ldexp(np.round(mantissa * 2048) / 2048, exponent).astype(np.float32)

    def gemm_ex(_, ta, tb, m, n, k, one, a, a_kind, lda, b, b_kind, ldb, zero, c, c_kind, ldc, compute, algorithm):
        kinds = (0, 0, 0, 68), (1, 1, 1, 70), (0, 0, 0, 77), (14, 14, 0, 68), (14, 14, 14, 68)
        assert (a_kind, b_kind, c_kind, compute) in kinds
        assert algorithm == -1

        def work():
            left = operand(a, a_kind, lda, *((k, m) if ta else (m, k)))
            right = operand(b, b_kind, ldb, *((n, k) if tb else (k, n)))
            if compute == 77:
                left, right = tf32(left), tf32(right)
            product = (left.T if ta else left) @ (right.T if tb else right)
            matrix(c, c_kind, ldc, m, n)[...] = bf16(product) if c_kind == 14 else product

        cupy.fake.do(work)

    return SimpleNamespace(
        log=log,
        cublasCreate_v2=called("create"),
        cublasSetStream_v2=called("stream"),
        cublasSetWorkspace_v2=called("workspace"),
        cublasGemmEx=called("gemm", gemm_ex),
    )


def fake_cublas_lt(
    cupy: types.ModuleType, tiles: Sequence[tuple[int, int]], in_place: Sequence[int] = ()
) -> SimpleNamespace:
    """Return what `Lt` and `Product` call of cuBLASLt for float32, with an algorithm for each (tile, cluster).

    in_place: the numbers of those that add parts of sums in place. `log` has the numbers of those that multiplied.
    """
    made: list[Any] = [None]  # descriptions and layouts, by handle
    log: list[int] = []

    def new(to, what):
        ctypes.cast(to, ctypes.POINTER(ctypes.c_void_p))[0] = len(made)
        made.append(what)
        return 0

    def set_attribute(handle, attribute, value, size):
        made[handle.value][attribute] = ctypes.cast(value, ctypes.POINTER(ctypes.c_int32))[0]
        return 0

    def heuristic(_, description, a, b, c, d, preference, count, found, number):
        results = ctypes.cast(found, ctypes.POINTER(cublaslt._Found))
        for i in range(min(count, len(tiles))):
            results[i].algorithm[0] = i
        ctypes.cast(number, ctypes.POINTER(ctypes.c_int))[0] = min(count, len(tiles))
        return 0

    def attribute(raw, number, value, size, written):
        which = ctypes.cast(raw, ctypes.POINTER(ctypes.c_uint64))[0]
        tile, cluster = tiles[which]
        if number == 3:
            ctypes.cast(value, ctypes.POINTER(ctypes.c_uint32))[0] = int(which in in_place)
        if number in (1, 8):
            ctypes.cast(value, ctypes.POINTER(ctypes.c_uint16))[0] = tile if number == 1 else cluster
        return 0

    def matmul(_, description, one, a, a_layout, b, b_layout, zero, c, c_layout, d, d_layout, algorithm, *rest):
        log.append(ctypes.cast(algorithm, ctypes.POINTER(ctypes.c_uint64))[0])
        turned = made[description.value].get(3), made[description.value].get(4)

        def matrix(address, layout):
            rows, columns, stride = made[layout.value]
            assert stride == rows
            return (
                np.ctypeslib.as_array((ctypes.c_float * (rows * columns)).from_address(address))
                .reshape(columns, rows)
                .T
            )

        def work():
            operands = matrix(a, a_layout), matrix(b, b_layout)
            left, right = (m.T if t else m for m, t in zip(operands, turned, strict=True))
            matrix(d, d_layout)[...] = left @ right

        cupy.fake.do(work)
        return 0

    def function(work):
        return lambda *arguments: work(*arguments)

    functions = {
        "GetVersion": lambda: 130200,
        "Create": lambda to: new(to, None),
        "MatmulDescCreate": lambda to, compute, scale: new(to, {}),
        "MatmulDescSetAttribute": set_attribute,
        "MatmulDescDestroy": lambda handle: 0,
        "MatrixLayoutCreate": lambda to, kind, rows, columns, stride: new(to, (rows, columns, stride)),
        "MatrixLayoutDestroy": lambda handle: 0,
        "MatmulPreferenceCreate": lambda to: new(to, {}),
        "MatmulPreferenceSetAttribute": lambda *_: 0,
        "MatmulPreferenceDestroy": lambda handle: 0,
        "MatmulAlgoGetHeuristic": heuristic,
        "MatmulAlgoConfigGetAttribute": attribute,
        "Matmul": matmul,
    }
    return SimpleNamespace(log=log, **{f"cublasLt{name}": function(work) for name, work in functions.items()})


def fake_backend(cupy: types.ModuleType, library: SimpleNamespace, monkeypatch) -> CupyBackend:
    """Return the backend of the first GPU of `cupy`, which must be in sys.modules, with its products by `library`."""
    monkeypatch.setattr("fcnet.backends.cupy_backend.library", lambda: library)
    backend = CupyBackend(0)
    # The stand-in's arrays are NumPy's too, which no GPU's are: they would be taken for the CPU's.
    owner = select.array_owner
    monkeypatch.setattr(select, "array_owner", lambda a: backend if isinstance(a, cupy.ndarray) else owner(a))
    return backend
