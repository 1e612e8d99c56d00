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

from fcnet.backends.device import Array, InTurn

LAUNCHES = 10  # by which ways are compared
_DATA_SETS = ("gather", "next_batch")  # whose first argument is only read, and may be too large for a copy


class Captured:
    """A launch of the graph; holds all that the graph's addresses point to.

    Attributes:
        way: in which it was captured. objections: to the other ways, where there was one.
        seconds: of a launch, when it was chosen.
    """

    def __init__(self, calls: Sequence[Callable[[], Any]], graph: Any, pool: Any) -> None:
        self.calls, self._graph, self._pool = tuple(calls), graph, pool
        self._kept: tuple[Any, ...] = ()
        self.seconds = 0.0
        self.way = ""
        self.objections: dict[str, str] = {}
        _alive.add(self)

    def keep(self, *others: Any) -> None:
        """Let these live as long: whatever else the graph uses, such as the workspace of its products."""
        self._kept = others

    @property
    def held(self) -> int:
        """Bytes of the graph's own memory."""
        return self._pool.total_bytes()

    def __call__(self) -> None:
        self._graph.launch()


_alive: weakref.WeakSet[Captured] = weakref.WeakSet()


def told() -> list[str]:
    """How the graphs alive were captured, and what was wrong with other ways; each once."""
    lines = {
        "; ".join([captured.way, *(f"not in {way}: {why}" for way, why in captured.objections.items())])
        for captured in list(_alive)
    }
    return sorted(lines)


def held() -> int:
    """Bytes that all graphs alive hold for themselves."""
    return sum(captured.held for captured in list(_alive))


def compile(
    cupy: Any,
    calls: Sequence[Callable[[], Any]],
    ways: Mapping[str, Callable[[], AbstractContextManager]] = MappingProxyType({"one stream": nullcontext}),
) -> Callable[[], Any]:
    """One graph of these calls, captured in the way that makes the fastest, or the calls in turn, and a warning that
    says why; every array is as it was.
    """
    eager = InTurn(calls)
    best: Captured | None = None
    objections: dict[str, str] = {}
    for name, way in ways.items():
        try:
            captured, difference = _checked(cupy, eager, way)  # a graph that is not chosen gives its memory back
        except Exception as error:  # whatever a library refuses: the step itself is sound
            difference = f"{type(error).__name__}: {error}"
        if difference is not None:
            objections[name] = difference
        elif best is None or captured.seconds < best.seconds:
            captured.way, best = name, captured
    if best is not None:
        best.objections = objections
        return best
    warnings.warn(
        f"this training step is not captured in a CUDA graph, and so is slower: {difference}",
        RuntimeWarning,
        stacklevel=3,
    )
    return eager


def _checked(cupy: Any, eager: InTurn, way: Callable[[], AbstractContextManager]) -> tuple[Captured, str | None]:
    """The graph, and what differs when it and the calls run from the same state: None if every bit is equal.

    The calls run first, with their outputs given, so that nothing is left to be compiled in the capture. Outputs begin
    spoilt: they still hold what the calls wrote when they were recorded, which a graph that lacks one of them would
    leave there. The copies are on the host: on the device they would take as much room as the training.
    """
    arrays, outputs = _arrays(cupy, eager.calls), _outputs(cupy, eager.calls)
    before = [cupy.asnumpy(array) for array in arrays]
    try:
        _spoil(outputs)
        eager()
        after = [cupy.asnumpy(array) for array in arrays]
        cupy.get_default_memory_pool().free_all_blocks()  # which the graph's own pool could not take
        captured = _capture(cupy, eager.calls, way)
        _put_back(arrays, before)  # only now: what escaped the capture was done in it
        _spoil(outputs)
        captured()
        other = sum(cupy.asnumpy(a).tobytes() != b.tobytes() for a, b in zip(arrays, after, strict=True))
        captured.seconds = _seconds(cupy, captured)
    finally:
        _put_back(arrays, before)
    return captured, f"{other} of its {len(arrays)} arrays came out with other bits" if other else None


def _capture(cupy: Any, calls: Sequence[Callable[[], Any]], way: Callable[[], AbstractContextManager]) -> Captured:
    cupy.cuda.get_current_stream().synchronize()
    gc.collect()  # nothing is to be freed in between
    pool = cupy.cuda.MemoryPool()
    stream = cupy.cuda.Stream(non_blocking=True)
    with way(), cupy.cuda.using_allocator(pool.malloc), stream:
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
    """Of a launch; the arrays change."""
    stream = cupy.cuda.get_current_stream()
    captured()
    stream.synchronize()
    start = time.perf_counter()
    for _ in range(LAUNCHES):
        captured()
    stream.synchronize()
    return (time.perf_counter() - start) / LAUNCHES


def _abandon(stream: Any) -> None:
    """End a capture that failed: until then the device takes no other work."""
    try:
        stream.end_capture()
    except Exception:  # it says again that the capture failed
        return


def _outputs(cupy: Any, calls: Iterable[Any]) -> list[Array]:
    """The arrays that the calls fill without reading them."""
    found: list[Any] = []
    for call in calls:
        found += [call.keywords[name] for name in getattr(call, "outputs", ())]
    return [a for a in found if isinstance(a, cupy.ndarray) and a.nbytes and a.flags.c_contiguous]


def _spoil(arrays: Sequence[Array]) -> None:
    for array in arrays:
        array.reshape(-1).view("uint8")[...] = 255  # NaN, -1


def _put_back(arrays: Sequence[Array], before: Sequence[np.ndarray]) -> None:
    for array, old in zip(arrays, before, strict=True):
        array.set(old)


def _arrays(cupy: Any, calls: Iterable[Any]) -> list[Array]:
    """The arrays that the calls touch, without those whose memory is part of another's."""
    found: list[Array] = []
    for call in calls:
        arguments = [*getattr(call, "args", ()), *getattr(call, "keywords", {}).values()]
        if getattr(getattr(call, "func", None), "__name__", "") in _DATA_SETS:
            arguments = arguments[1:]
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
