"""One CUDA GPU: CuPy arrays, cuBLAS, fcnet's own kernels, and steps as CUDA graphs or one persistent kernel.

CuPy is imported when a `CupyBackend` is made, never before.
"""

from __future__ import annotations

import re
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np

from fcnet.backends.cuda import graph
from fcnet.backends.cuda.affine import run_in_turn
from fcnet.backends.cuda.gemm import CublasError, Gemm, library
from fcnet.backends.cuda.kernels import cuda_kernels
from fcnet.backends.cuda.launch import Launcher
from fcnet.backends.cuda.persistent_step import PersistentStep, plan_for
from fcnet.backends.cuda.prefetch import CudaPrefetcher
from fcnet.backends.cuda.recognize import Unfit
from fcnet.backends.cuda.rounded_once import Refreshed, RoundedOnce
from fcnet.backends.cuda.side_stream import SideStream
from fcnet.backends.cuda.sources import source
from fcnet.backends.device import Array, Backend, Call, Kernel, Memory, recorded

THREADS = 256  # per block of the Philox kernel; a thread makes 16 numbers
PIECE = 16 << 20  # bytes: `upload` sends larger arrays in pieces of this size, so pinned memory stays bounded
FILLED = 0.8  # share of the free memory that `has_room` allows to fill: a step's own arrays need some, too
SNAPSHOT = 64 << 20  # bytes that a step changes, up to which a net may fit the persistent kernel
PAIRS = 8  # sizes of uploads whose staging buffers are kept; with PIECE, at most 256 MiB are pinned


class CupyBackend(Backend):
    """Serve a CUDA GPU; `index` counts the visible ones from 0."""

    def __init__(self, index: int) -> None:
        import cupy

        self.xp = cupy
        self.index = index
        self.name = f"cuda:{index}"
        self._device = cupy.cuda.Device(index)  # `with` makes it the current one of this thread
        self._pairs: OrderedDict[int, _Pair] = OrderedDict()
        self._upload_lock = threading.Lock()
        self._philox: Any = None
        self._local = threading.local()  # a cuBLAS handle belongs to one thread
        self._no_gemm: str | None = None
        self._launcher = Launcher(cupy)
        self._kernels: Mapping[str, Kernel] | None = None
        self.not_persistent: str | None = None  # why the step compiled last does not use the persistent kernel

    @property
    def kernels(self) -> Mapping[str, Kernel]:  # type: ignore[override]
        """Return the CUDA kernels of this device, compiled when the first is called."""
        if self._kernels is None:
            self._kernels = cuda_kernels(self._launcher, self.gemm, self.run_concurrently)
        return self._kernels

    def owns(self, array: object) -> bool:
        return isinstance(array, self.xp.ndarray) and array.device.id == self.index

    def asarray(self, array: Any, dtype: Any = None) -> Array:
        """See `Backend`. From another GPU this copies, and waits for both devices.

        Raises:
            MemoryError: the device has no room: how much was needed and how much is free.
        """
        cupy = self.xp
        try:
            if isinstance(array, cupy.ndarray) and array.device.id != self.index:
                return self._from_other_device(array, dtype)
            with self._device:
                return cupy.asarray(array, dtype=dtype)
        except cupy.cuda.memory.OutOfMemoryError as error:
            raise MemoryError(self._no_room_for(array, dtype)) from error

    def to_numpy(self, array: Array) -> np.ndarray:
        with self._device:
            return self.xp.asnumpy(array)

    def upload(self, host: np.ndarray, out: Array) -> None:
        """See `Backend`. Broadcasts and casts as `numpy.copyto(out, host)`; `host` may be changed on return.

        The copy goes through pinned memory, in the order of the current stream. Each size of `out` has two buffers, so
        the third upload waits until the first one has been copied, and for nothing else.
        """
        if out.nbytes == 0:
            return
        cupy = self.xp
        with self._device:
            if not out.flags.c_contiguous:
                contiguous = cupy.empty(out.shape, out.dtype)
                self.upload(host, contiguous)
                out[...] = contiguous
                return
            flat = np.broadcast_to(host, out.shape).reshape(-1)
            count = min(flat.size, PIECE // out.itemsize)
            with self._upload_lock:
                pair = self._pair(count * out.itemsize)
                for start in range(0, flat.size, count):
                    pair.send(flat[start : start + count], out.data + start * out.itemsize, out.dtype)

    def has_room(self, nbytes: int) -> bool:
        with self._device:
            free, _ = self.xp.cuda.runtime.memGetInfo()
            return nbytes <= FILLED * (free + self.xp.get_default_memory_pool().free_bytes())

    def prefetcher(self, sources: Sequence[np.ndarray], rows: int) -> CudaPrefetcher:
        with self._device:
            return CudaPrefetcher(self, sources, rows)

    def use(self) -> None:
        self._device.use()

    def synchronize(self) -> None:
        self._device.synchronize()

    @property
    def precisions(self) -> tuple[str, ...]:  # type: ignore[override]
        """Return the reduced precisions of tensor cores, since Ampere."""
        return ("tf32", "bf16") if int(self._device.compute_capability) >= 80 else ()

    def gemm(
        self, a: Array, b: Array, out: Array | None = None, precision: str | None = None, stored: str | None = None
    ) -> Array:
        """See `Backend`. If cuBLAS could not be loaded directly, CuPy makes the products, in full precision.

        Nothing is copied if the operands are matrices, contiguous up to transposition, and `out` is C-contiguous, of
        their dtype and without overlap. CuPy copies transposed stacks.

        Raises:
            ValueError: the shapes do not fit.
        """
        if out is not None and a.ndim == b.ndim == 2 and out.shape != (a.shape[0], b.shape[1]):
            # CuPy compares only sizes, and would fill an array of another shape.
            raise ValueError(f"gemm: out of shape {out.shape} for operands of shapes {a.shape} and {b.shape}")
        with self._device:
            gemm = self._own_gemm()
            if gemm is not None and gemm.serves(a, b, out):
                return gemm(a, b, out, precision, stored)
            return self.xp.matmul(a, b, out=out)

    def run_concurrently(self, first: Callable[[], object], second: Callable[[], object]) -> None:
        """Make two independent calls: concurrently within a graph, otherwise in turn."""
        side_stream = getattr(self._local, "side_stream", None)
        if side_stream is None:
            run_in_turn(first, second)
            return

        def apart() -> None:
            gemm, self._local.gemm = self._local.gemm, side_stream.gemm
            try:
                first()
            finally:
                self._local.gemm = gemm

        side_stream(self.xp.cuda.get_current_stream(), apart, second)

    @contextmanager
    def _forking(self) -> Iterator[None]:
        """Return a context within which `run_concurrently` uses two streams."""
        if getattr(self._local, "side_stream_made", None) is None:
            self._local.side_stream_made = SideStream(self.xp, Gemm(self._launcher, library()))
        self._local.side_stream_made.gemm.ready(self._own_gemm())
        self._local.side_stream = self._local.side_stream_made
        try:
            yield
        finally:
            self._local.side_stream = None

    def _own_gemm(self) -> Gemm | None:
        """Return this thread's `Gemm`, or None if cuBLAS could not be loaded directly (`describe` says why)."""
        try:
            return self._local.gemm
        except AttributeError:
            pass
        try:
            self._local.gemm = Gemm(self._launcher, library())
        except (OSError, AttributeError, CublasError) as error:
            self._local.gemm = None
            self._no_gemm = str(error)
        return self._local.gemm

    def random_bits(self, key: tuple[int, int], layer: int, step: int | Array, net: int, shape: tuple) -> Array:
        cupy = self.xp
        value, pointer = 0, None
        if isinstance(step, cupy.ndarray):
            if step.size != 1 or step.dtype != np.int64 or step.device.id != self.index:
                found = f"{step.size} of {step.dtype} on cuda:{step.device.id}"
                raise ValueError(f"step: expected one int64 on {self.name}, got {found}")
            pointer = step
        else:
            value = step.item() if isinstance(step, np.ndarray) else step
        with self._device:
            out = cupy.empty(shape, np.uint16)
            if out.size == 0:
                return out
            if self._philox is None:
                self._philox = cupy.RawModule(code=source("philox")).get_function("philox_bits")
            blocks = -(-out.size // 16)
            u64 = np.uint64
            arguments = (
                *(out, np.int64(out.size), u64(key[0]), u64(key[1])),
                *(u64(layer), u64(value), pointer, u64(net)),
            )
            self._philox((-(-blocks // THREADS),), (THREADS,), arguments)
        return out

    def snapshot(self, arrays: Sequence[Array]) -> Callable[[], None] | None:
        """See `Backend`; None for nets that are too large for the persistent kernel."""
        if sum(array.nbytes for array in arrays) > SNAPSHOT:
            return None
        with self._device:
            copies = [array.copy() for array in arrays]

        def put_back() -> None:
            for array, copy in zip(arrays, copies, strict=True):
                array[...] = copy

        return put_back

    def compile(
        self,
        calls: Sequence[Callable[[], Any]],
        put_back: Callable[[], None] | None = None,
        most_rows: int | None = None,
    ) -> Callable[[], Any]:
        """See `Backend`: launches of the persistent kernel for a small net, otherwise one CUDA graph.

        If neither is possible, the calls themselves are returned, with a RuntimeWarning.
        """
        calls = recorded(calls)
        persistent = self._persistent(calls, put_back, most_rows or 0)
        if persistent is not None:
            return persistent
        with self._device:
            strategies: dict[str, Callable[[], AbstractContextManager]] = {
                "two streams": self._forking,
                "one stream": nullcontext,
            }
            before: Sequence[Call] = ()
            if self._own_gemm() is not None:
                before, calls = RoundedOnce(self._launcher, self._own_gemm, self.run_concurrently)(calls)
            for call in before:
                call()
            step = graph.compile(self.xp, calls, strategies)
        if isinstance(step, graph.Captured):
            step.why_not_one_kernel = self.not_persistent
            step.products = self._products()
            step.keep(self._own_gemm(), getattr(self._local, "side_stream_made", None))
        return Refreshed(step, before, calls) if before else step

    def _persistent(
        self, calls: Sequence[Call], put_back: Callable[[], None] | None, most_rows: int
    ) -> PersistentStep | None:
        """Return the step as launches of the persistent kernel, after the first launch.

        If net or device do not fit, return None; `not_persistent` then says why.
        """
        self.not_persistent = None
        with self._device:
            try:
                if put_back is None:
                    raise Unfit("what a step changes is too large to be put back")
                net, plan = plan_for(self.xp, calls, self.index, most_rows)
                step = PersistentStep(self.xp, net, plan, self.index, self.upload)
            except Unfit as why:
                self.not_persistent = str(why)
                return None
            except Exception as error:  # whatever a library raises: the step can be made in another way
                self.not_persistent = f"{type(error).__name__}: {error}"
                warnings.warn(
                    f"this training step is not made by one kernel, and so is slower: {self.not_persistent}",
                    RuntimeWarning,
                    stacklevel=4,
                )
                return None
            put_back()
            step()
        return step

    def memory(self) -> Memory:
        """Return the device's memory; `used` is what CuPy's pool and captured steps hold for this process."""
        with self._device:
            free, total = self.xp.cuda.runtime.memGetInfo()
            return Memory(self.xp.get_default_memory_pool().total_bytes() + graph.held(), free, total)

    @contextmanager
    def allocating(self) -> Iterator[None]:
        """See `Backend`.

        Raises:
            MemoryError: how much was asked for, how much is free and what to do, in place of CuPy's own error.
        """
        try:
            yield
        except self.xp.cuda.memory.OutOfMemoryError as error:
            asked = re.search(r"allocating ([\d,]+) bytes", str(error))
            need = f"{_size(int(asked[1].replace(',', '')))} were asked for" if asked else "an array has no room"
            raise MemoryError(f"{self._full(need)}; take a smaller batch size or narrower layers") from error

    def describe(self) -> str:
        runtime = self.xp.cuda.runtime
        name = runtime.getDeviceProperties(self.index)["name"].decode()
        version = runtime.runtimeGetVersion()
        cuda = f"CUDA {version // 1000}.{version % 1000 // 10}"
        about = f"CuPy {self.xp.__version__} on {name}, {cuda}, {self.memory().total / 2**30:.0f} GiB"
        products = self._products()
        return f"{about}; {products}" if self._no_gemm is None else f"{about}; steps are not captured: {self._no_gemm}"

    def _products(self) -> str | None:
        """Return in words what makes matrix products; None if that is CuPy."""
        with self._device:
            gemm = self._own_gemm()
            return None if gemm is None else gemm.way

    def _from_other_device(self, array: Array, dtype: Any) -> Array:
        # The streams of two devices are not ordered, and CuPy reuses memory as soon as Python drops an array. This copy
        # is rare and explicit, so it simply waits for both devices.
        with array.device:
            array = self.xp.ascontiguousarray(array)  # CuPy copies only contiguous arrays between devices
            array.device.synchronize()
        with self._device:
            copy = self.xp.asarray(array, dtype=dtype)
            self._device.synchronize()
        return copy

    def _pair(self, nbytes: int) -> _Pair:
        if nbytes not in self._pairs:
            while len(self._pairs) >= PAIRS:
                self._pairs.popitem(last=False)[1].wait()  # before its memory is reused
            self._pairs[nbytes] = _Pair(self.xp, nbytes)
        self._pairs.move_to_end(nbytes)
        return self._pairs[nbytes]

    def _no_room_for(self, array: Any, dtype: Any) -> str:
        shape = np.shape(array)
        kind = np.dtype(dtype or getattr(array, "dtype", None) or np.asarray(array).dtype)
        need = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        return self._full(f"a {kind} array of shape {shape} needs {_size(need)}")

    def _full(self, need: str) -> str:
        memory = self.memory()
        return (
            f"{self.name} is out of memory: {need}, {_size(memory.free)} of {_size(memory.total)} are free, "
            f"this process holds {_size(memory.used)}"
        )


class _Pair:
    """Alternate between two pinned buffers of `nbytes`, each filled once its last copy is done."""

    def __init__(self, cupy: Any, nbytes: int) -> None:
        self.cupy, self.nbytes = cupy, nbytes
        self.slots: list[tuple[Any, np.ndarray, Any]] = []  # pinned memory, the same as bytes, event
        self.turn = 0

    def send(self, host: np.ndarray, to: Any, dtype: np.dtype) -> None:
        """Copy a one-dimensional host array, as `dtype`, to the device address `to`."""
        if self.turn == len(self.slots):  # the second buffer is allocated for the second copy
            pinned = self.cupy.cuda.alloc_pinned_memory(self.nbytes)
            buffer = np.frombuffer(pinned, np.uint8, self.nbytes)
            self.slots.append((pinned, buffer, self.cupy.cuda.Event(disable_timing=True)))
        pinned, buffer, event = self.slots[self.turn]
        event.synchronize()  # returns at once for an event that was never recorded
        nbytes = host.size * dtype.itemsize
        np.copyto(buffer[:nbytes].view(dtype), host)
        to.copy_from_host_async(pinned.ptr, nbytes)
        event.record()
        self.turn = 1 - self.turn

    def wait(self) -> None:
        """Wait until both buffers are free."""
        for _, _, event in self.slots:
            event.synchronize()


def _size(nbytes: int) -> str:
    """Return a number of bytes as text: "512 bytes", "1.5 GiB"."""
    if nbytes < 1024:
        return f"{nbytes} bytes"
    power = min((nbytes.bit_length() - 1) // 10, 4)
    return f"{nbytes / 1024**power:.1f} {('KiB', 'MiB', 'GiB', 'TiB')[power - 1]}"
