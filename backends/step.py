"""A training step, recorded: its calls are kept and repeated on the same arrays.

The code of a step consists of calls `run(function, *arguments)`. As `run`, `direct` simply makes them. A `StepRecorder`
makes them, too, and keeps each with the kernel that was chosen and the arrays that it returned; repeating the calls
fills the same arrays and allocates nothing. What changes between steps (cursor, step count, learning rate) lies in
device arrays that the calls read, so a recorded step, like a captured CUDA graph, needs no arguments.

`Backend.compile` turns the list of calls into what a device runs fastest.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, Protocol

from fcnet.backends.device import Array, Backend, Call
from fcnet.backends.ops import Function
from fcnet.backends.select import CPU, backend_of

MOST_REMEMBERED = 64  # layouts of arguments
ON_HOST = {CPU.xp.ndarray}


class Run(Protocol):
    """Make the calls of a step: `direct`, or a `StepRecorder`, which records them."""

    def __call__(self, function: Function | Callable, *args: Any, **kwargs: Any) -> Any: ...

    def scratch(self, slot: int, like: Array) -> Array | None: ...


class Direct:
    """Make each call at once; functions allocate what they return."""

    def __call__(self, function: Function | Callable, *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    def scratch(self, slot: int, like: Array) -> None:
        """Return None, no shared buffer: the function allocates."""


direct = Direct()


class Remembered:
    """Make the calls of a function like `direct`, but choose what serves each of them once per layout of arguments.

    Later calls on arguments of the same layout are neither checked nor asked for their device, which is most of the
    cost of calls on a few numbers. Results are new arrays, as from `direct`.
    """

    def __init__(self) -> None:
        self._served: dict[Hashable, tuple[Callable[..., Any], ...]] = {}

    def __contains__(self, key: Hashable | None) -> bool:
        """Return whether a call of the function with this key has been completed."""
        return key in self._served

    def run(self, key: Hashable | None) -> Run:
        """Return the `Run` that makes the calls of one call of the function, in order.

        Args:
            key: all that decides which calls it makes, and the `layout` of their arrays; None: unknown.
        """
        if key is None:
            return direct
        served = self._served.get(key)
        return _Choosing() if served is None else _Recalled(served)

    def keep(self, key: Hashable | None, run: Run) -> None:
        """Remember what served the calls of a function call that is complete."""
        if isinstance(run, _Choosing):
            if len(self._served) >= MOST_REMEMBERED:
                self._served.clear()
            self._served[key] = tuple(run.served)

    def __reduce__(self) -> tuple[Any, ...]:
        return Remembered, ()  # a copy starts empty


class _Choosing(Direct):
    def __init__(self) -> None:
        self.served: list[Callable[..., Any]] = []

    def __call__(self, function: Function | Callable, *args: Any, **kwargs: Any) -> Any:
        serve = function.served(*args, **kwargs) if isinstance(function, Function) else function
        self.served.append(serve)
        return serve(*args, **kwargs)


class _Recalled(Direct):
    def __init__(self, served: tuple[Callable[..., Any], ...]) -> None:
        self._next = iter(served).__next__

    def __call__(self, function: Function | Callable, *args: Any, **kwargs: Any) -> Any:
        return self._next()(*args, **kwargs)


def layout(*arrays: Array) -> Hashable | None:
    """Return what checks and kernels depend on, dtype, shape and strides; None unless all are arrays of NumPy."""
    if set(map(type, arrays)) != ON_HOST:
        return None
    return tuple([(a.dtype, a.shape, a.strides) for a in arrays])


def refilling(function: Function, serve: Callable[..., Any], result: Any, *args: Any, **kwargs: Any) -> Call:
    """Return the call of a function, made by `serve`, that fills the arrays of its `result` again."""
    results = result if len(function.results) > 1 else (result,)
    given_back = {
        name: value
        for name, value in zip(function.results, results, strict=True)
        if name in function.outputs and value is not None
    }
    keywords = kwargs | given_back
    call = Call(serve, *args, **keywords)
    call.name = function.formula.__name__
    bound = function.signature.bind(*args, **keywords)
    bound.apply_defaults()
    call.arguments = bound.arguments
    call.outputs = function.outputs & keywords.keys()
    call.known = True
    return call


class StepRecorder:
    """Make calls and record them; `repeat` makes them again.

    A function that gets the arrays it returned back as keyword outputs must return the same arrays again.

    Attributes:
        calls: recorded so far, in order.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.calls: list[Call] = []
        self._scratch: dict[tuple[int, Any], Array] = {}

    def __call__(self, function: Function | Callable, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(function, Function):
            self.calls.append(Call(function, *args, **kwargs))
            return function(*args, **kwargs)
        if function.check is not None:
            function.check(*args, **kwargs)
        backend = backend_of(*args)
        kernel = function.kernel(backend, *args, **kwargs)
        if kernel is None:
            result, notes = function.formula(backend, *args, **kwargs), None
        else:
            result, notes = backend.first_call(kernel, *args, **kwargs)
        call = refilling(function, kernel or partial(function.formula, backend), result, *args, **kwargs)
        call.notes = notes
        self.calls.append(call)
        return result

    def scratch(self, slot: int, like: Array) -> Array:
        """Return a buffer of the shape and dtype of `like`, shared by all calls that ask for this slot."""
        size, key = like.size, (slot, like.dtype)
        buffer = self._scratch.get(key)
        if buffer is None or buffer.size < size:
            buffer = self.backend.xp.empty(size, dtype=like.dtype)
            self._scratch[key] = buffer
        return buffer[:size].reshape(like.shape)

    def repeat(self) -> None:
        """Make all the recorded calls again, in order."""
        for call in self.calls:
            call()
