"""Signals that arrive in the middle of what must not be cut in two, such as a compilation, are answered afterwards."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def deferred() -> Iterator[None]:
    """Run Python's signal handlers after this block: one that raises in it, as Ctrl-C does, would leave a module half
    imported or a compiler half set up, and the process cannot try again.
    """
    arrived: dict[int, None] = {}  # in order, each once
    before: dict[signal.Signals, Callable[..., Any]] = {}

    def note(number: int, frame: Any) -> None:
        arrived[number] = None

    try:
        if threading.current_thread() is threading.main_thread():  # no other thread runs handlers
            for number in signal.valid_signals():
                handler = signal.getsignal(number)
                if callable(handler):
                    before[number] = handler
                    signal.signal(number, note)
        yield
    finally:
        for number in sorted(before, key=lambda number: number == signal.SIGINT):  # which may raise from there on
            signal.signal(number, before[number])
        for late in arrived:
            signal.raise_signal(late)
