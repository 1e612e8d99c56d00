"""Signals that arrive in the middle of what must not be cut in two are answered afterwards.

A step that is cut in two leaves the host and the device counting differently; a module half imported, a compiler half
set up or a run half written cannot be mended by trying again.
"""

from __future__ import annotations

import signal
from _signal import getsignal  # type: ignore[import-not-found]  # half a microsecond; those of `signal` take six
from _signal import signal as set_handler
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any]

_SIGINT = int(signal.SIGINT)


class Deferred:
    """A block that no signal handler written in Python enters: each that was called runs once, at the end.

    Ctrl-C's, which raises, comes last. Only the main thread runs handlers, so in others this does nothing.
    """

    __slots__ = ("_arrived", "_before", "_numbers")

    def __init__(self) -> None:
        self._numbers: Iterable[int] = (*(set(map(int, signal.valid_signals())) - {_SIGINT}), _SIGINT)

    def __enter__(self) -> None:
        self._arrived: dict[int, FrameType | None] = {}
        self._before: dict[int, Handler] = {}
        for number in self._numbers:
            handler = getsignal(number)
            if callable(handler):  # else ignored, or the end of the process
                try:
                    set_handler(number, self._note)
                except ValueError:  # not the main thread
                    return
                self._before[number] = handler

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._arrived[number] = frame

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            if getsignal(number) == self._note:  # else a handler has decided otherwise meanwhile
                set_handler(number, handler)
        for number in self._before:
            if number in self._arrived:
                self._before[number](number, self._arrived[number])


class DeferredInterrupt(Deferred):
    """A block that Ctrl-C does not enter, for a step of a training: cheap, and pressed twice it has its way at once."""

    __slots__ = ()

    def __init__(self) -> None:
        self._numbers = (_SIGINT,)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number in self._arrived:
            self._before[number](number, frame)
        self._arrived[number] = frame
