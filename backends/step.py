"""A training step, recorded: calls written down once, repeated on the same arrays.

The code of a step is written once, as ordinary calls `run(function, *arguments)`. With `direct` they are just made.
A `StepRecorder` makes them too, and keeps each with the kernel that was chosen and the arrays that came out: to repeat
the calls fills those arrays again and allocates nothing. What changes between steps (cursor, step count, learning rate)
lives in device arrays that the calls read, so a recorded step, like a captured CUDA graph, needs no arguments.

What a device makes of the list of calls is its own affair (`Backend.compile`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, Protocol

from fcnet.backends.device import Array, Backend, Call
from fcnet.backends.ops import Function
from fcnet.backends.select import backend_of

MOST_REMEMBERED = 64  # layouts of arguments


class Run(Protocol):
    """How a step makes its calls: at once (`direct`) or recorded (`StepRecorder`)."""

    def __call__(self, function: Function | Callable, *args: Any, **kwargs: Any) -> Any: ...

    def scratch(self, slot: int, like: Array) -> Array | None: ...


class Direct:
    """Makes each call at once; functions allocate what they return."""

    def __call__(self, function: Function | Callable, *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    def scratch(self, slot: int, like: Array) -> None:
        """No common buffer: the function allocates."""


direct = Direct()


class Remembered:
    """How a function makes its calls at once, on arguments alike: what serves each is chosen the first time.

    Nothing is checked again, nor asked for its device, which is most of what calls on a few numbers cost. Results are
    new arrays, as of `direct`.
    """

    def __init__(self) -> None:
        self._served: dict[Hashable, dict[int, Callable[..., Any]]] = {}

    def run(self, key: Hashable) -> Run:
        """Return what makes the calls, in order, of one call of the function.

        key: all that decides which calls it makes, and the `layout` of the arrays that go into them.
        """
        served = self._served.get(key)
        if served is None:
            if len(self._served) >= MOST_REMEMBERED:
                self._served.clear()
            served = self._served[key] = {}
        return _Recalled(served)

    def __reduce__(self) -> tuple[Any, ...]:
        return Remembered, ()  # a copy begins anew


class _Recalled(Direct):
    def __init__(self, served: dict[int, Callable[..., Any]]) -> None:
        self._served, self._at = served, 0

    def __call__(self, function: Function | Callable, *args: Any, **kwargs: Any) -> Any:
        at = self._at
        self._at = at + 1
        serve = self._served.get(at)  # by number: two threads that are the first at once write the same
        if serve is None:
            serve = function.served(*args, **kwargs) if isinstance(function, Function) else function
            self._served[at] = serve
        return serve(*args, **kwargs)


def layout(*arrays: Array) -> Hashable:
    """Return what checks and kernels look at in arrays, whatever numbers they hold."""
    return tuple([(type(a), a.dtype, a.shape, a.strides) for a in arrays])


class StepRecorder:
    """Makes calls for the first time and records them; `repeat` makes them again.

    Every function called must return the same arrays each time when it is given them back as keyword outputs.

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
        results = result if len(function.results) > 1 else (result,)
        given_back = {
            name: value
            for name, value in zip(function.results, results, strict=True)
            if name in function.outputs and value is not None
        }
        keywords = kwargs | given_back
        call = Call(kernel or partial(function.formula, backend), *args, **keywords)
        call.name = function.formula.__name__
        bound = function.signature.bind(*args, **keywords)
        bound.apply_defaults()
        call.arguments = bound.arguments
        call.outputs = function.outputs & keywords.keys()
        call.notes = notes
        self.calls.append(call)
        return result

    def scratch(self, slot: int, like: Array) -> Array:
        """Return a buffer of the shape and dtype of `like`, shared by all who ask for this slot."""
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
