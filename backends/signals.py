"""Signals that arrive in the middle of what must not be cut in two are answered afterwards.

A step that is cut in two leaves the host and the device counting differently; a module half imported, a compiler half
set up or a run half written cannot be mended by trying again.
"""

from __future__ import annotations

import signal
from _signal import getsignal  # type: ignore[import-not-found]  # half a microsecond; those of `signal` take six
from _signal import signal as set_handler
from collections.abc import Callable
from types import FrameType
from typing import Any, ClassVar

Handler = Callable[[int, FrameType | None], Any]

_SIGINT = int(signal.SIGINT)


class Deferred:
    """A block that no signal handler written in Python enters: each that was called runs once, at the end.

    Ctrl-C's, which raises, comes last. Only the main thread runs handlers, so in others this does nothing.
    """

    __slots__ = ("_arrived", "_before")
    numbers: ClassVar[tuple[int, ...]] = (*(set(map(int, signal.valid_signals())) - {_SIGINT}), _SIGINT)

    def __enter__(self) -> None:
        self._arrived: list[tuple[int, FrameType | None]] = []
        self._before: list[tuple[int, Handler]] = []
        for number in self.numbers:
            handler = getsignal(number)
            if callable(handler):  # else ignored, or the end of the process
                try:
                    set_handler(number, self._note)
                except ValueError:  # not the main thread
                    return
                self._before.append((number, handler))

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._arrived.append((number, frame))

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before:
            if getsignal(number) == self._note:  # else a handler has decided otherwise meanwhile
                set_handler(number, handler)
        if self._arrived:
            frames = dict(self._arrived)
            for number, handler in self._before:
                if number in frames:
                    handler(number, frames[number])


class DeferredInterrupt(Deferred):
    """A block that Ctrl-C does not enter, for a step of a training: cheap, and pressed twice it has its way at once."""

    __slots__ = ()
    numbers = (_SIGINT,)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._arrived:
            self._before[0][1](number, frame)
        self._arrived.append((number, frame))
