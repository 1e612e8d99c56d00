"""Blocks of code that no signal interrupts: signals that arrive within are handled at the end.

If a step were interrupted, host and device would count differently afterwards; and a half imported module, a half
initialised compiler or a half written run cannot be repaired by trying again.
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
    """Defer, within a context, every signal handler written in Python: each one called runs once, at the end.

    Ctrl-C's handler, which raises, runs last. Only the main thread runs handlers, so in others this does nothing.
    """

    __slots__ = ("_arrived", "_before")
    numbers: ClassVar[tuple[int, ...]] = (*(set(map(int, signal.valid_signals())) - {_SIGINT}), _SIGINT)

    def __enter__(self) -> None:
        self._arrived: list[tuple[int, FrameType | None]] = []
        self._before: list[tuple[int, Handler]] = []
        try:
            for number in self.numbers:
                handler = getsignal(number)
                if callable(handler):  # else ignored, or the end of the process
                    self._before.append((number, handler))
                    set_handler(number, self._note)
        except ValueError:  # not the main thread
            self._before.clear()
        except BaseException:  # of a handler that is called in between
            self._put_back()
            raise

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._arrived.append((number, frame))

    def _put_back(self) -> None:
        for number, handler in self._before:
            if getsignal(number) == self._note:  # else a handler has decided otherwise meanwhile
                set_handler(number, handler)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._put_back()
        if self._arrived:
            frames = dict(self._arrived)
            for number, handler in self._before:
                if number in frames:
                    try:
                        handler(number, frames[number])
                    except KeyboardInterrupt:
                        if error is None:
                            raise
                        # The error ends the work as well, and must not be lost.
                        error.add_note("it was interrupted, too")


class DeferredInterrupt(Deferred):
    """Defer Ctrl-C within a context, for a training step: it costs little, and a second Ctrl-C takes effect at once."""

    __slots__ = ()
    numbers = (_SIGINT,)

    def _note(self, number: int, frame: FrameType | None) -> None:
        """Note Ctrl-C; `number` is another signal's if that one's handler passes it on, which is no second press."""
        if self._arrived and number == _SIGINT:
            self._before[0][1](number, frame)
        self._arrived.append((_SIGINT, frame))
