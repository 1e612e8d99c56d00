"""The time that a command has, and what a part of it may take."""

from __future__ import annotations

import time
from collections.abc import Mapping


class Clock:
    """Count down."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds left; below 0 when it is over."""
        return self._end - time.monotonic()

    def within(self, seconds: float) -> Clock:
        """Return a clock that is over in so many seconds, or with this one."""
        return Clock(min(seconds, self.left()))


def deadlines(shares: Mapping[str, float], seconds: float) -> dict[str, float]:
    """Return when each part should be over, counted from the start; what one leaves over goes to later ones.

    >>> deadlines({"a": 1, "b": 3}, 60)
    {'a': 15.0, 'b': 60.0}
    """
    scale, passed, found = seconds / sum(shares.values()), 0.0, {}
    for name, share in shares.items():
        passed += share * scale
        found[name] = passed
    return found
