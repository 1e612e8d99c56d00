"""A recorded step as one CUDA graph: captured once, checked against the calls it stands for, launched ever after.

What a call allocates while it is captured comes from a memory pool that belongs to the graph: CuPy would give the
memory of a temporary to somebody else although the graph goes on writing there.
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

LAUNCHES, SECONDS = 10, 0.05  # to compare strategies by: so many launches, if they take no longer
_DATA_SETS = {"gather": "data", "next_batch": "X"}  # arguments that are only read, and may be too large for a copy


class Captured:
    """A launch of the graph; holds all that the graph's addresses point to.

    Attributes:
        strategy: by which it was captured. rejected: the other strategies, and why.
        why_not_one_kernel: why no kernel makes the whole step, if that is known.
        seconds: of a launch, when it was chosen.
    """

    def __init__(self, calls: Sequence[Call], graph: Any, pool: Any) -> None:
        self.calls, self._graph, self._pool = tuple(calls), graph, pool
        self._kept: tuple[Any, ...] = ()
        self.seconds = 0.0
        self.strategy = ""
        self.rejected: dict[str, str] = {}
        self.why_not_one_kernel: str | None = None
        _alive.add(self)

    def keep(self, *others: Any) -> None:
        """Keep these alive as long as the graph: whatever else it uses, such as the workspace of its products."""
        self._kept = others

    @property
    def description(self) -> str:
        """How a step is made, for people."""
        others = [f"not in {strategy}: {why}" for strategy, why in self.rejected.items()]
        whole = [] if self.why_not_one_kernel is None else [f"not by one kernel: {self.why_not_one_kernel}"]
        return "; ".join([f"a CUDA graph captured in {self.strategy}", *others, *whole])

    @property
    def held(self) -> int:
        """Bytes of the graph's own memory."""
        return self._pool.total_bytes()

    def __call__(self) -> None:
        self._graph.launch()


_alive: weakref.WeakSet[Captured] = weakref.WeakSet()


def held() -> int:
    """Return the bytes that all graphs alive hold for themselves."""
    return sum(captured.held for captured in list(_alive))


def compile(
    cupy: Any,
    calls: Sequence[Call],
    strategies: Mapping[str, Callable[[], AbstractContextManager]] = MappingProxyType({"one stream": nullcontext}),
) -> Callable[[], Any]:
    """Return one graph of these calls, captured by the strategy that makes the fastest; every array is as it was.

    Where none can be had, the calls in turn, and a RuntimeWarning that says why.
    """
    eager = CallSequence(calls)
    rejected: dict[str, str] = {}
    try:
        best = _checked(cupy, calls, eager, strategies, rejected)
    except Exception as error:  # whatever a library refuses: the step itself is sound
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

    `rejected` gets what is wrong with the others.

    The calls run first, with their outputs given, so that nothing is left to be compiled in the capture. Outputs begin
    poisoned: they still hold what the calls wrote when they were recorded, which a graph that lacks one of them would
    leave there. Bits are compared by checksums, and only of what is to be taken: arrays stay on the device.
    """
    arrays, outputs = _arrays(cupy, calls), _outputs(cupy, calls)
    checksums, snapshot = Checksums(cupy), Snapshot(cupy, arrays)
    try:
        _poison(cupy, outputs)
        eager()
        after = checksums(arrays)
        cupy.get_default_memory_pool().free_all_blocks()  # which the graphs' own pools could not take
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
    """Return a graph, timed, by each strategy that captures one that can be launched; the arrays change."""
    made = []
    for name, strategy in strategies.items():
        try:
            captured = _capture(cupy, calls, strategy)
            snapshot.put_back()  # what escaped the capture was done in it
            captured.strategy, captured.seconds = name, _seconds(cupy, captured)
        except Exception as error:
            rejected[name] = _words(error)
        else:
            made.append(captured)
    return made


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


class Snapshot:
    """What arrays hold, to be put back: copied on the device as far as a quarter of its free memory goes, else to the
    host, many times slower.
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
        pool = cupy.cuda.MemoryPool()  # of its own, so that the memory is given back in the end
        with cupy.cuda.using_allocator(pool.malloc):
            self._buffer = cupy.empty(taken, np.uint8)
        for array, copy in self._pairs():
            self._move(array, copy)

    def _pairs(self) -> Iterable[tuple[Array, Array]]:
        return ((array, self._buffer[begin : begin + array.nbytes]) for array, begin in self._here)

    def _move(self, source: Array, to: Array) -> None:
        to.data.copy_from_device_async(source.data, source.nbytes, self._cupy.cuda.get_current_stream())

    def put_back(self) -> None:
        """Give all arrays back what they held."""
        for array, copy in self._pairs():
            self._move(copy, array)
        for array, there in self._there:
            array.set(there)


def _capture(cupy: Any, calls: Sequence[Call], strategy: Callable[[], AbstractContextManager]) -> Captured:
    cupy.cuda.get_current_stream().synchronize()
    gc.collect()  # nothing is to be freed in between
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
    """Return the seconds of a launch; the arrays change."""
    stream = cupy.cuda.get_current_stream()

    def launched(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            captured()
        stream.synchronize()
        return (time.perf_counter() - start) / count

    launched(1)  # the first brings the graph to the device
    return launched(max(1, min(LAUNCHES, int(SECONDS / launched(1)))))


def _abandon(stream: Any) -> None:
    """End a capture that failed: until then the device takes no other work."""
    try:
        stream.end_capture()
    except Exception:  # it says again that the capture failed
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
    """Return the arrays that the calls touch, without those whose memory is part of another's."""
    found: list[Array] = []
    for call in calls:
        arguments = [value for name, value in call.arguments.items() if name != _DATA_SETS.get(call.name)]
        found += [a for a in _found(cupy, arguments) if a.nbytes and a.flags.c_contiguous]
    found.sort(key=lambda array: (array.data.ptr, -array.nbytes))
    whole: list[Array] = []
    end = 0
    for array in found:
        if array.data.ptr + array.nbytes > end:
            whole.append(array)
            end = array.data.ptr + array.nbytes
    return whole


def _found(cupy: Any, values: Iterable[Any]) -> Iterable[Array]:
    for value in values:
        if isinstance(value, cupy.ndarray):
            yield value
        elif isinstance(value, tuple | list):
            yield from _found(cupy, value)
