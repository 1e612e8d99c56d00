"""What takes long is said to whoever watches; nobody does unless they ask for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_tell: Callable[[str], None] | None = None


@contextmanager
def watched_by(tell: Callable[[str], None]) -> Iterator[None]:
    """Give `tell` a line whenever something begins that takes seconds, until this block ends."""
    global _tell
    before, _tell = _tell, tell
    try:
        yield
    finally:
        _tell = before


def notice(line: str) -> bool:
    """Say that something begins which takes seconds; whether anybody heard it."""
    if _tell is None:
        return False
    _tell(line)
    return True
