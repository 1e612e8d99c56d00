"""A recorded step's small kernels, played by one call into compiled code.

From Python a kernel costs a microsecond before it begins, which is most of a small network's step. So when a step has
been recorded (`Backend.compile`), each call of a kernel over small arrays becomes an entry of a tape: the address of
its player and a record, the addresses and numbers that the call had. Calls that cannot be played (large arrays, where
the microsecond is nothing and a sleeping helper should be woken first; random bits; references) stay calls, in turn.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fcnet.backends.cpu import pool
from fcnet.backends.cpu.jit import Jit, NotRecordable, takers
from fcnet.backends.device import InTurn

LARGE = 100_000  # elements of a float array: from here on a call is not worth playing


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


def recorded(call: Callable[[], Any]) -> list[Entry] | None:
    """The entries that do what this call of a kernel does, or None; the call is not made."""
    entries: list[Entry] = []

    def take(kernel: Jit, arguments: tuple[Any, ...], work: int) -> None:
        if kernel.form is None:
            raise NotRecordable
        record = np.array(_record(kernel.form.kinds, arguments), np.int64)
        entries.append(Entry(kernel.form.player, record, arguments, work))

    thread = threading.get_ident()
    takers[thread] = take
    try:
        call()
    except NotRecordable:
        return None
    finally:
        takers.pop(thread, None)  # gone already in a child that was forked meanwhile
    return entries


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


def compile(calls: Sequence[Callable[[], Any]], kernels: frozenset[Any]) -> InTurn:
    """What makes these calls in turn: those of `kernels` from tapes where they can be, the others as they are."""
    parts: list[Callable[[], Any]] = []
    waiting: list[Entry] = []
    for call in calls:
        entries = recorded(call) if getattr(call, "func", None) in kernels else None
        if entries is not None:
            waiting += entries
            continue
        if waiting:
            parts.append(Tape(waiting))
            waiting = []
        parts.append(call)
    if waiting:
        parts.append(Tape(waiting))
    return InTurn(parts)
