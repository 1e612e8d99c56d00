"""Ctrl-C between the steps of a training, never within one.

A step that is cut in two leaves the host and the device counting differently: a batch would be missed, and a loss lost.
"""

from __future__ import annotations

import signal
from _signal import getsignal  # type: ignore[import-not-found]  # half a microsecond; those of `signal` take six
from _signal import signal as set_handler
from types import FrameType
from typing import Any

_SIGINT = int(signal.SIGINT)


class Undivided:
    """A context that Ctrl-C does not enter: what it raises comes at the end. A second one has its way at once."""

    __slots__ = ("_asked", "_before")

    def __enter__(self) -> None:
        self._asked: list[FrameType | None] = []
        self._before: Any = getsignal(_SIGINT)
        if not callable(self._before):  # ignored, or the end of the process
            self._before = None
            return
        try:
            set_handler(_SIGINT, self._wait)
        except ValueError:  # not the main thread, which alone is interrupted
            self._before = None

    def _wait(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            self._before(number, frame)
        self._asked.append(frame)

    def __exit__(self, *_: object) -> None:
        if self._before is None:
            return
        if getsignal(_SIGINT) == self._wait:  # else another signal's handler has decided otherwise meanwhile
            set_handler(_SIGINT, self._before)
        if self._asked:
            self._before(_SIGINT, self._asked[0])
