"""A training step, recorded: its calls are kept and repeated on the same arrays.

The code of a step consists of calls `run(function, *arguments)`. As `run`, `direct` simply makes them. A `StepRecorder`
makes them, too, and keeps each with the kernel that was chosen and the arrays that it returned; repeating the calls
fills the same arrays and allocates nothing. What changes between steps (cursor, step count, learning rate) lies in
device arrays that the calls read, so a recorded step, like a captured CUDA graph, needs no arguments.

`Backend.compile` turns the list of calls into what a device runs fastest.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from fcnet.backends.device import Array, Backend, Call
from fcnet.backends.ops import Function
from fcnet.backends.select import backend_of


class Run(Protocol):
    """What makes the calls of a step: `direct`, or a `StepRecorder`, which records them."""

    def __call__(self, function: Function | Callable, *args: Any, **kwargs: Any) -> Any: ...

    def scratch(self, slot: int, like: Array) -> Array | None: ...


class Direct:
    """Makes each call at once; functions allocate what they return."""

    def __call__(self, function: Function | Callable, *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    def scratch(self, slot: int, like: Array) -> None:
        """Return None, no shared buffer: the function allocates."""


direct = Direct()


class StepRecorder:
    """Makes calls and records them; `repeat` makes them again.

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
