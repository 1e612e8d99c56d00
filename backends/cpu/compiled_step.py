"""Run the small kernels of a recorded step by one call into compiled code.

A kernel call from Python costs a microsecond before it does anything, which is most of the time of a small network's
step. So while a step is recorded, `first_call` notes the loops that each kernel call runs over small arrays. For every
loop it keeps the address of a thunk, which is compiled code that runs the loop, and a record: the loop's arguments,
addresses and numbers, which the thunk reads. `compile` joins the thunks of neighbouring calls. Calls without thunks
stay Python calls: those over large arrays, where a microsecond does not matter and idle workers should be
started first, those that draw random bits, and those of references.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fcnet.backends.cpu import pool
from fcnet.backends.cpu.jit import Jit, tracing
from fcnet.backends.device import Call, CallSequence

LARGE = 100_000  # elements of a float array from which on a microsecond does not matter


class NoThunk(Exception):
    """Signal that a loop with these arguments has no thunk."""


class Thunk(pool.Task):
    """Compile code that runs a loop with a record's arguments: `void thunk(record, shared, scratch, num_threads)`.

    All four are integers: addresses, and a number.
    """

    signature = "void(int64, int64, int64, int64)"


class ThunkForm(NamedTuple):
    """Describe the thunk of a loop, and how its record is laid out.

    Attributes:
        kinds: of each argument: a number of axes for a float32 array, "i" for an int64 vector, "*" for an array of any
            dtype and shape (the record has its address only), "n" for an integer, "r" for a float.
    """

    thunk: Thunk
    kinds: str


def thunk_of(loop: Jit, kinds: str) -> Callable[[Callable[..., None]], Thunk]:
    """Return a decorator for the thunk of a loop; `kinds` as in `ThunkForm`."""

    def decorate(function: Callable[..., None]) -> Thunk:
        thunk = Thunk(function)
        loop.thunk_form = ThunkForm(thunk, kinds)
        return thunk

    return decorate


# Functions by which a thunk reads its record; each argument begins where the one before it ends.


@numba.njit(inline="always")
def matrix(record, word):
    """Return a float32 matrix, three words: address, rows, columns."""
    shape = pool.load(record + 8 * (word + 1)), pool.load(record + 8 * (word + 2))
    return numba.carray(pool.to_floats(pool.load(record + 8 * word)), shape)


@numba.njit(inline="always")
def vector(record, word):
    """Return a float32 vector, two words: address, size."""
    return pool.floats(pool.load(record + 8 * word), pool.load(record + 8 * (word + 1)))


@numba.njit(inline="always")
def integers(record, word):
    """Return an int64 vector, two words: address, size."""
    return pool.words(pool.load(record + 8 * word), pool.load(record + 8 * (word + 1)))


@numba.njit(inline="always")
def integer(record, word):
    """Return an integer, or the address of an array of any kind: one word."""
    return pool.load(record + 8 * word)


@numba.njit(inline="always")
def real(record, word):
    """Return a float, one word."""
    return pool.doubles(record + 8 * word, 1)[0]


def _record(kinds: str, arguments: Sequence[Any]) -> list[int]:
    record: list[int] = []
    for kind, argument in zip(kinds, arguments, strict=True):
        if kind == "n":
            record.append(int(argument))
        elif kind == "r":
            record.append(int(np.float64(argument).view(np.int64)))
        elif not isinstance(argument, np.ndarray):
            raise NoThunk
        else:
            record.append(argument.ctypes.data)
            if kind == "*":
                continue
            axes, dtype = (1, np.int64) if kind == "i" else (int(kind), np.float32)
            if argument.dtype != dtype or argument.ndim != axes or (kind != "i" and argument.size > LARGE):
                raise NoThunk
            record.extend(argument.shape)
    return record


class BoundThunk(NamedTuple):
    """Bind a thunk to its record; the arguments are kept, so that their memory is not freed."""

    thunk: Thunk
    record: np.ndarray
    arguments: tuple[Any, ...]
    work: int


def first_call(kernel: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, list[BoundThunk] | None]:
    """Make a kernel's call; return its result and the thunks that repeat it, or None if only Python can."""
    with tracing() as trace:
        result = kernel(*args, **kwargs)
    if not trace.complete:
        return result, None
    try:
        return result, [_bind(loop, arguments, work) for loop, arguments, work in trace.loops]
    except NoThunk:
        return result, None


def _bind(loop: Jit, arguments: tuple[Any, ...], work: int) -> BoundThunk:
    form = loop.thunk_form
    if form is None:
        raise NoThunk
    return BoundThunk(form.thunk, np.array(_record(form.kinds, arguments), np.int64), arguments, work)


@intrinsic
def _call_thunk(typing, thunk, record, shared, scratch, num_threads):
    def generate(context, builder, signature, arguments):
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [word] * 4)
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), generate


@Jit
def _run_thunks(addresses, shared, scratch, num_threads):
    for i in range(addresses.shape[0]):
        _call_thunk(addresses[i, 0], addresses[i, 1], shared.ctypes.data, scratch.ctypes.data, num_threads)


class CompiledStep:
    """Run thunks one after the other, by one call."""

    def __init__(self, thunks: Sequence[BoundThunk]) -> None:
        self.thunks = tuple(thunks)
        self._work = max(bound.work for bound in thunks)
        self._addresses = np.array([(b.thunk.address, b.record.ctypes.data) for b in thunks], np.int64)

    def __call__(self) -> None:
        pool.run(_run_thunks, self._addresses, work=self._work)


def compile(calls: Sequence[Call]) -> CallSequence:
    """Return a function that makes these calls in turn: by thunks where there are some, else from Python."""
    parts: list[Callable[[], Any]] = []
    for in_compiled_code, neighbours in groupby(calls, key=lambda call: call.notes is not None):
        group = list(neighbours)
        parts += [CompiledStep([bound for call in group for bound in call.notes])] if in_compiled_code else group
    return CallSequence(parts)
