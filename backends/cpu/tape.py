"""A recorded step's small kernels, made by one call into compiled code.

From Python a kernel costs a microsecond before it begins, which is most of a small network's step. So while a step is
recorded, the loops that a kernel's call runs over small arrays are written down (`first_call`): of each, the address
of its thunk, compiled code without arguments of its own, and the record that the thunk reads them from, addresses and
numbers. `compile` joins the thunks of neighbouring calls. Calls without thunks (large arrays, where the microsecond is
nothing and a sleeping helper should be woken first; random bits; references) stay calls, in turn.
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
from fcnet.backends.device import Call, InTurn

LARGE = 100_000  # elements of a float array: from here on a call is not worth playing


class NotRecordable(Exception):
    """There is no thunk for a loop with these arguments."""


class Player(pool.Task):
    """Compiled code that makes a recorded call: `void player(record, board, scratch, hands)`, all of them integers."""

    signature = "void(int64, int64, int64, int64)"


class Form(NamedTuple):
    """How a kernel's calls are played.

    Attributes:
        kinds: of each argument: a number of axes for a float32 array, "i" for an int64 vector, "*" for an array of any
            dtype and shape (its player is told the address only), "n" for an integer, "r" for a float.
    """

    player: Player
    kinds: str


def played(kernel: Jit, kinds: str) -> Callable[[Callable[..., None]], Player]:
    """Decorate the player of a kernel: how to make its call from a record."""

    def decorate(function: Callable[..., None]) -> Player:
        player = Player(function)
        kernel.form = Form(player, kinds)
        return player

    return decorate


# What a player reads of its record; each argument begins where the one before it ends.


@numba.njit
def matrix(record, word):
    """A float32 matrix, three words: address, rows, columns."""
    shape = pool.load(record + 8 * (word + 1)), pool.load(record + 8 * (word + 2))
    return numba.carray(pool.to_floats(pool.load(record + 8 * word)), shape)


@numba.njit
def vector(record, word):
    """A float32 vector, two words: address, size."""
    return pool.floats(pool.load(record + 8 * word), pool.load(record + 8 * (word + 1)))


@numba.njit
def integers(record, word):
    """An int64 vector, two words: address, size."""
    return pool.words(pool.load(record + 8 * word), pool.load(record + 8 * (word + 1)))


@numba.njit
def integer(record, word):
    """An integer, or the address of an array of any kind: one word."""
    return pool.load(record + 8 * word)


@numba.njit
def real(record, word):
    """A float, one word."""
    return pool.doubles(record + 8 * word, 1)[0]


def _record(kinds: str, arguments: Sequence[Any]) -> list[int]:
    record: list[int] = []
    for kind, argument in zip(kinds, arguments, strict=True):
        if kind == "n":
            record.append(int(argument))
        elif kind == "r":
            record.append(int(np.float64(argument).view(np.int64)))
        elif not isinstance(argument, np.ndarray):
            raise NotRecordable
        else:
            record.append(argument.ctypes.data)
            if kind == "*":
                continue
            axes, dtype = (1, np.int64) if kind == "i" else (int(kind), np.float32)
            if argument.dtype != dtype or argument.ndim != axes or (kind != "i" and argument.size > LARGE):
                raise NotRecordable
            record.extend(argument.shape)
    return record


class Entry(NamedTuple):
    """One call on the tape; the arguments are kept so that their memory is."""

    player: Player
    record: np.ndarray
    arguments: tuple[Any, ...]
    work: int


def first_call(kernel: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, list[Entry] | None]:
    """Make a kernel's call; return its result, and the entries that do the same, or None."""
    with tracing() as trace:
        result = kernel(*args, **kwargs)
    if not trace.whole:
        return result, None
    try:
        return result, [_entry(loop, arguments, work) for loop, arguments, work in trace.loops]
    except NotRecordable:
        return result, None


def _entry(loop: Jit, arguments: tuple[Any, ...], work: int) -> Entry:
    if loop.form is None:
        raise NotRecordable
    return Entry(loop.form.player, np.array(_record(loop.form.kinds, arguments), np.int64), arguments, work)


@intrinsic
def _conduct(typing, player, record, board, scratch, hands):
    def generate(context, builder, signature, arguments):
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [word] * 4)
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), generate


@Jit
def _play(tape, board, scratch, hands):
    for i in range(tape.shape[0]):
        _conduct(tape[i, 0], tape[i, 1], board.ctypes.data, scratch.ctypes.data, hands)


class Tape:
    """Entries to be played in turn."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = tuple(entries)
        self._work = max(entry.work for entry in entries)
        self._addresses = np.array([(e.player.address, e.record.ctypes.data) for e in entries], np.int64)

    def __call__(self) -> None:
        pool.run(_play, self._addresses, work=self._work)


def compile(calls: Sequence[Call]) -> InTurn:
    """Return what makes these calls in turn: from tapes those that have entries, the others as they are."""
    parts: list[Callable[[], Any]] = []
    for in_compiled_code, neighbours in groupby(calls, key=lambda call: call.notes is not None):
        group = list(neighbours)
        parts += [Tape([entry for call in group for entry in call.notes])] if in_compiled_code else group
    return InTurn(parts)
