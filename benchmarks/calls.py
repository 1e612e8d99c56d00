"""Where the time of a step goes: each of its recorded calls alone, on the arrays of the step.

On a GPU a call is captured several times in one CUDA graph, so that what is timed is the device and not Python.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks.report import digits, table
from fcnet.backends import Array, Backend

REPEATS = 20  # of a call in one graph
LAUNCHES = 5
FEW = 8  # elements of the arrays that count steps, which are put back

Calls = list[Callable[[], Any]]


@contextmanager
def recorded(backend: Backend) -> Iterator[Calls]:
    """Yield the list of the calls of each step compiled meanwhile: those that the device makes, if it keeps them."""
    found: Calls = []
    compile = backend.compile

    def note(calls: Sequence[Callable[[], Any]], *arguments: Any, **options: Any) -> Any:
        step = compile(calls, *arguments, **options)
        found.extend(getattr(step, "calls", calls))
        return step

    backend.compile = note  # type: ignore[method-assign]
    try:
        yield found
    finally:
        del backend.compile


def profile(backend: Backend, calls: Iterable[Callable[[], Any]]) -> list[dict[str, Any]]:
    """Return a row for each kind of call, in order: name, shapes, count, microseconds of each.

    A call that cannot be timed alone has `refused` in place of `us`.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for call in calls:
        name, shapes = _name(call), _shapes(call)
        row = rows.setdefault((name, shapes), {"call": name, "shapes": shapes, "times": 0, "each": []})
        row["times"] += 1
        try:
            row["each"].append(seconds_alone(backend, call))
        except Exception as error:  # whatever a library says to a capture: the other calls still count
            row["refused"] = f"{type(error).__name__}: {str(error)[:200]}"
    for row in rows.values():
        if each := row.pop("each"):
            row["us"] = round(float(np.mean(each)) * 1e6, 2)
    return list(rows.values())


def seconds_alone(backend: Backend, call: Callable[[], Any]) -> float:
    """Return the median time of the call; it is made many times, and then the step's counters are as they were."""
    counters = [(array, array.copy()) for array in _counters(call)]
    time_launch = _in_turn(call) if backend.name == "cpu" else _in_graph(backend, call)
    taken = []
    for _ in range(LAUNCHES + 1):  # the first warms up
        taken.append(time_launch())
        for array, before in counters:
            array[...] = before
    return float(np.median(taken[1:])) / REPEATS


def _in_turn(call: Callable[[], Any]) -> Callable[[], float]:
    def seconds() -> float:
        start = time.perf_counter()
        for _ in range(REPEATS):
            call()
        return time.perf_counter() - start

    return seconds


def _in_graph(backend: Backend, call: Callable[[], Any]) -> Callable[[], float]:
    """Return the seconds of a graph of the call, by the device's own clock."""
    cupy = backend.xp
    held = _captured(backend, call)  # the memory too, which the graph writes to

    def seconds() -> float:
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        held[0].launch()  # the device is busy while what is timed is asked for
        start.record()
        held[0].launch()
        end.record()
        end.synchronize()
        return cupy.cuda.get_elapsed_time(start, end) / 1e3

    return seconds


def _captured(backend: Backend, call: Callable[[], Any]) -> tuple[Any, Any]:
    """Return a graph of the call, `REPEATS` times, and the memory of what it allocates."""
    cupy = backend.xp
    call()  # nothing is left to be compiled in the capture
    backend.synchronize()
    gc.collect()  # nothing is to be freed in between
    pool, stream = cupy.cuda.MemoryPool(), cupy.cuda.Stream(non_blocking=True)
    with cupy.cuda.using_allocator(pool.malloc), stream:
        stream.begin_capture()
        try:
            for _ in range(REPEATS):
                call()
        except BaseException:
            _abandon(stream)
            raise
        return stream.end_capture(), pool


def _abandon(stream: Any) -> None:
    """End a capture that failed: until then the device takes no other work."""
    try:
        stream.end_capture()
    except Exception:  # it says again that the capture failed
        return


def _name(call: Any) -> str:
    return getattr(call, "name", None) or getattr(call, "__name__", type(call).__name__)


def _shapes(call: Any) -> str:
    """Return the shapes of the arrays among the first arguments: "100x784, 784x100"."""
    arrays = [a for a in getattr(call, "args", ()) if hasattr(a, "dtype") and a.ndim]
    return ", ".join("x".join(map(str, array.shape)) for array in arrays[:2])


def _counters(call: Any) -> list[Array]:
    """Return the call's arrays that hold a few whole numbers."""
    arguments = [*getattr(call, "args", ()), *getattr(call, "keywords", {}).values()]
    arrays = [a for a in arguments if hasattr(a, "dtype") and a.size <= FEW]
    return [a for a in arrays if np.issubdtype(a.dtype, np.integer)]


def markdown(rows: Sequence[Mapping[str, Any]], steps: Mapping[str, float]) -> str:
    """Return the calls of each workload, and their sum beside the step. `steps`: microseconds of a step by workload."""
    lines = ["## Call by call", "", f"Each recorded call alone, {REPEATS} times in a graph; microseconds a call.", ""]
    for workload in dict.fromkeys(row["workload"] for row in rows):
        own = [row for row in rows if row["workload"] == workload]
        cells = [
            [row["call"], row["shapes"], str(row["times"]), digits(row["us"]) if "us" in row else row["refused"]]
            for row in own
        ]
        total = sum(row["times"] * row.get("us", 0.0) for row in own)
        cells.append(["sum", "", str(sum(row["times"] for row in own)), digits(total)])
        if workload in steps:
            cells.append(["the step", "", "", digits(steps[workload])])
        lines += [*table([workload, "arrays", "calls", "each"], cells, left=(0, 1)), ""]
    return "\n".join(lines)
