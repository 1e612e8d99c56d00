"""Notices that something slow begins, such as a compilation; they go to a listener, if one is set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_tell: ContextVar[Callable[[str], None] | None] = ContextVar("_tell", default=None)  # each thread has its own


@contextmanager
def watched_by(tell: Callable[[str], None]) -> Iterator[None]:
    """Call `tell` with a line whenever this thread begins something that takes seconds, within the context."""
    before = _tell.set(tell)
    try:
        yield
    finally:
        _tell.reset(before)


def notice(line: str) -> bool:
    """Report that something begins which takes seconds; return whether there was a listener."""
    tell = _tell.get()
    if tell is None:
        return False
    tell(line)
    return True
