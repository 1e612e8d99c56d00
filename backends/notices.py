"""What takes long is said to whoever watches; nobody does unless they ask for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_tell: ContextVar[Callable[[str], None] | None] = ContextVar("_tell", default=None)  # each thread has its own


@contextmanager
def watched_by(tell: Callable[[str], None]) -> Iterator[None]:
    """Give `tell` a line whenever this thread begins something that takes seconds, until this block ends."""
    before = _tell.set(tell)
    try:
        yield
    finally:
        _tell.reset(before)


def notice(line: str) -> bool:
    """Say that something begins which takes seconds; whether anybody heard it."""
    tell = _tell.get()
    if tell is None:
        return False
    tell(line)
    return True
