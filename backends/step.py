"""A training step as a program: calls recorded once, repeated on the same arrays.

The code of a step is written once, as ordinary calls `run(function, *arguments)`. With `direct` they are just made.
A `Program` makes them too, and keeps each with the kernel that was chosen and the arrays that came out; repeating the
program fills those arrays again and allocates nothing. What changes between steps (cursor, step count, learning rate)
lives in device arrays that the calls read, so a repeated program, like a captured CUDA graph, needs no arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from fcnet.backends.device import Array, Backend, Call
from fcnet.backends.ops import Op


class Run(Protocol):
    """How a step makes its calls: at once (`direct`) or recorded (`Program`)."""

    def __call__(self, function: Op | Callable, *args: Any, **kwargs: Any) -> Any: ...

    def scratch(self, slot: int, like: Array) -> Array | None: ...


class Direct:
    """Makes each call at once; functions allocate what they return."""

    def __call__(self, function: Op | Callable, *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    def scratch(self, slot: int, like: Array) -> None:
        """No common buffer: the function allocates."""


direct = Direct()


class Program:
    """Calls recorded while they are made for the first time; `repeat` makes them again.

    Every function called must return the same arrays each time when it is given them back as keyword outputs.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.calls: list[Callable[[], Any]] = []
        self._scratch: dict[tuple[int, Any], Array] = {}

    def __call__(self, function: Op | Callable, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(function, Op):
            self.calls.append(Call(function, *args, **kwargs))
            return function(*args, **kwargs)
        chosen = function.choose(*args, **kwargs)
        result = chosen(*args, **kwargs)
        results = result if len(function.results) > 1 else (result,)
        given_back = {
            name: value
            for name, value in zip(function.results, results, strict=True)
            if name in function.outputs and value is not None
        }
        call = Call(chosen, *args, **(kwargs | given_back))
        call.outputs = function.outputs & call.keywords.keys()
        self.calls.append(call)
        return result

    def scratch(self, slot: int, like: Array) -> Array:
        """A buffer of the shape and dtype of `like`, shared by all who ask for this slot."""
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
