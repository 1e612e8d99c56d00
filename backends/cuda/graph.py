"""A recorded step as one CUDA graph: captured once, compared with the calls that it replaces, then launched each time.

What a call allocates during the capture comes from a memory pool that belongs to the graph: CuPy would reuse the memory
of a temporary array although the graph keeps writing to it.
"""

from __future__ import annotations

import gc
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import Any

import numpy as np

from fcnet.backends.cuda.checksum import Checksums
from fcnet.backends.device import ALIGNMENT, Array, Call, CallSequence

LAUNCHES, SECONDS = 10, 0.05  # strategies are compared by at most so many launches, and so much time
_DATA_SETS = {"gather": "data", "next_batch": "X"}  # arguments that are only read and may be too large to copy


class Captured:
    """Launch a captured graph; it keeps alive all memory that the graph uses.

    Attributes:
        strategy: how it was captured. rejected: the strategies that failed -> why.
        why_not_one_kernel: why the persistent kernel does not make this step, if known.
        products: in words, what makes its products, if known.
        seconds: duration of a launch when the strategy was chosen.
    """

    def __init__(self, calls: Sequence[Call], graph: Any, pool: Any) -> None:
        self.calls, self._graph, self._pool = tuple(calls), graph, pool
        self._kept: tuple[Any, ...] = ()
        self.seconds = 0.0
        self.strategy = ""
        self.rejected: dict[str, str] = {}
        self.why_not_one_kernel: str | None = None
        self.products: str | None = None
        _alive.add(self)

    def keep(self, *others: Any) -> None:
        """Keep other objects alive as long as the graph, such as the workspace of its products."""
        self._kept = others

    @property
    def description(self) -> str:
        """Return how a step is made, as a line of text."""
        others = [f"not in {strategy}: {why}" for strategy, why in self.rejected.items()]
        one_kernel = [] if self.why_not_one_kernel is None else [f"not by one kernel: {self.why_not_one_kernel}"]
        products = [] if self.products is None else [self.products]
        return "; ".join([f"a CUDA graph captured in {self.strategy}", *products, *others, *one_kernel])

    @property
    def held(self) -> int:
        """Return the bytes of the graph's own memory."""
        return self._pool.total_bytes()

    def __call__(self) -> None:
        self._graph.launch()


_alive: weakref.WeakSet[Captured] = weakref.WeakSet()


def held() -> int:
    """Return the bytes of memory that belong to all graphs alive."""
    return sum(captured.held for captured in list(_alive))


def compile(
    cupy: Any,
    calls: Sequence[Call],
    strategies: Mapping[str, Callable[[], AbstractContextManager]] = MappingProxyType({"one stream": nullcontext}),
) -> Callable[[], Any]:
    """Return the calls as one graph, captured by the fastest strategy; the content of all arrays is restored.

    If no strategy succeeds, return the calls in turn and warn (RuntimeWarning).
    """
    eager = CallSequence(calls)
    rejected: dict[str, str] = {}
    try:
        best = _checked(cupy, calls, eager, strategies, rejected)
    except Exception as error:  # whatever a library raises: the calls themselves work
        best, rejected[""] = None, _words(error)
    if best is not None:
        best.rejected = rejected
        return best
    warnings.warn(
        f"this training step is not captured in a CUDA graph, and so is slower: {[*rejected.values()][-1]}",
        RuntimeWarning,
        stacklevel=3,
    )
    return eager


def _checked(
    cupy: Any,
    calls: Sequence[Call],
    eager: CallSequence,
    strategies: Mapping[str, Callable[[], AbstractContextManager]],
    rejected: dict[str, str],
) -> Captured | None:
    """Return the fastest graph that leaves the same bits as the calls, both run from the same state, or None.

    What is wrong with the other graphs is added to `rejected`.

    The calls run first, so that nothing remains to be compiled during the capture. Their outputs are filled with NaN
    beforehand: they still hold the values of the recording, so a graph that lacks a call would pass unnoticed. Bits are
    compared by checksums, so that no array has to be copied to the host.
    """
    arrays, outputs = _arrays(cupy, calls), _outputs(cupy, calls)
    checksums, snapshot = Checksums(cupy), Snapshot(cupy, arrays)
    try:
        _poison(cupy, outputs)
        eager()
        after = checksums(arrays)
        cupy.get_default_memory_pool().free_all_blocks()  # for the graphs' own pools
        made = _captured(cupy, calls, strategies, snapshot, rejected)
        for captured in sorted(made, key=lambda captured: captured.seconds):
            snapshot.put_back()
            _poison(cupy, outputs)
            captured()
            other = int((checksums(arrays) != after).any(axis=1).sum())
            if not other:
                return captured
            rejected[captured.strategy] = f"{other} of its {len(arrays)} arrays came out with other bits"
        return None
    finally:
        snapshot.put_back()


def _captured(
    cupy: Any,
    calls: Sequence[Call],
    strategies: Mapping[str, Callable[[], AbstractContextManager]],
    snapshot: Snapshot,
    rejected: dict[str, str],
) -> list[Captured]:
    """Return a timed graph for each strategy by which one can be captured and launched; the arrays change."""
    made = []
    for name, strategy in strategies.items():
        try:
            captured = _capture(cupy, calls, strategy)
            snapshot.put_back()  # a call that cannot be captured may have run during the capture
            captured.strategy, captured.seconds = name, _seconds(cupy, captured)
        except Exception as error:
            rejected[name] = _words(error)
        else:
            made.append(captured)
    return made


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


class Snapshot:
    """Copy the content of arrays, to restore it later.

    The copies lie on the device within a quarter of its free memory, the rest on the host, which is many times slower.
    """

    def __init__(self, cupy: Any, arrays: Sequence[Array]) -> None:
        self._cupy = cupy
        self._here: list[tuple[Array, int]] = []  # an array, and where its copy begins
        self._there: list[tuple[Array, np.ndarray]] = []
        room, taken = cupy.cuda.runtime.memGetInfo()[0] // 4, 0
        for array in arrays:
            if taken + array.nbytes <= room:
                self._here.append((array, taken))
                taken += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
            else:
                self._there.append((array, cupy.asnumpy(array)))
        pool = cupy.cuda.MemoryPool()  # a pool of its own, so that its memory is freed at the end
        with cupy.cuda.using_allocator(pool.malloc):
            self._buffer = cupy.empty(taken, np.uint8)
        for array, copy in self._pairs():
            self._move(array, copy)

    def _pairs(self) -> Iterable[tuple[Array, Array]]:
        return ((array, self._buffer[begin : begin + array.nbytes]) for array, begin in self._here)

    def _move(self, source: Array, to: Array) -> None:
        to.data.copy_from_device_async(source.data, source.nbytes, self._cupy.cuda.get_current_stream())

    def put_back(self) -> None:
        """Restore the content of all arrays."""
        for array, copy in self._pairs():
            self._move(copy, array)
        for array, there in self._there:
            array.set(there)


def _capture(cupy: Any, calls: Sequence[Call], strategy: Callable[[], AbstractContextManager]) -> Captured:
    cupy.cuda.get_current_stream().synchronize()
    gc.collect()  # nothing must be freed during the capture
    pool = cupy.cuda.MemoryPool()
    stream = cupy.cuda.Stream(non_blocking=True)
    with strategy(), cupy.cuda.using_allocator(pool.malloc), stream:
        stream.begin_capture()
        try:
            for call in calls:
                call()
        except BaseException:
            _abandon(stream)
            raise
        graph = stream.end_capture()
    return Captured(calls, graph, pool)


def _seconds(cupy: Any, captured: Captured) -> float:
    """Return the duration of a launch in seconds; the arrays change."""
    stream = cupy.cuda.get_current_stream()

    def launched(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            captured()
        stream.synchronize()
        return (time.perf_counter() - start) / count

    launched(1)  # the first launch also copies the graph to the device
    return launched(max(1, min(LAUNCHES, int(SECONDS / launched(1)))))


def _abandon(stream: Any) -> None:
    """End a failed capture; until then the device accepts no other work."""
    try:
        stream.end_capture()
    except Exception:  # the same failure again
        return


def _outputs(cupy: Any, calls: Iterable[Call]) -> list[Array]:
    """Return the arrays that the calls fill without reading them."""
    found: list[Any] = []
    for call in calls:
        found += [call.arguments[name] for name in call.outputs]
    return [a for a in found if isinstance(a, cupy.ndarray) and a.nbytes and a.flags.c_contiguous]


def _poison(cupy: Any, arrays: Sequence[Array]) -> None:
    for array in arrays:
        array.data.memset_async(255, array.nbytes, cupy.cuda.get_current_stream())  # NaN, -1


def _arrays(cupy: Any, calls: Iterable[Call]) -> list[Array]:
    """Return the arrays that the calls read or write, without those that are part of another one."""
    found: list[Array] = []
    for call in calls:
        arguments = [value for name, value in call.arguments.items() if name != _DATA_SETS.get(call.name)]
        found += [a for a in _found(cupy, arguments) if a.nbytes and a.flags.c_contiguous]
    found.sort(key=lambda array: (array.data.ptr, -array.nbytes))
    outermost: list[Array] = []
    end = 0
    for array in found:
        if array.data.ptr + array.nbytes > end:
            outermost.append(array)
            end = array.data.ptr + array.nbytes
    return outermost


def _found(cupy: Any, values: Iterable[Any]) -> Iterable[Array]:
    for value in values:
        if isinstance(value, cupy.ndarray):
            yield value
        elif isinstance(value, tuple | list):
            yield from _found(cupy, value)
