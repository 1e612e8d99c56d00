"""Where the book's random numbers come from: NumPy's global generator, as after the reader's own np.random.seed."""

from __future__ import annotations

from typing import Any

import numpy as np


def own_generator(seed: Any) -> np.random.RandomState | None:
    """Return None for None; for a number a new generator that draws what the global one does after that seed.

    Args:
        seed: None, a number 0 to 2**32 - 1, or a RandomState, which is returned.

    Raises:
        TypeError, ValueError: something else.
    """
    if seed is None or isinstance(seed, np.random.RandomState):
        return seed
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(f"seed: expected an integer, None or an np.random.RandomState, got {seed!r}")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed: expected 0 to 2**32 - 1, as np.random.seed does, got {seed}")
    return np.random.RandomState(seed)


def generator(own: np.random.RandomState | None) -> Any:
    """Return what to draw from: `own`, or the global generator, looked up at each draw so that copies share it."""
    return np.random if own is None else own
