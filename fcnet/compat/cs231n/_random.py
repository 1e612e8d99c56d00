"""Where the course's random numbers come from: NumPy's global generator, in the course's order."""

from __future__ import annotations

from typing import Any

import numpy as np

from fcnet.backends import check_seed

MAX_SEED = 2**32 - 1  # of NumPy's legacy generator


def generator(seed: int | None = None) -> Any:
    """Return NumPy's global generator, or with a seed a new one that draws as after `np.random.seed(seed)`.

    Either has NumPy's `rand`, `randn` and `choice`.

    Raises:
        TypeError, ValueError: seed is no integer from 0 to 2**32 - 1.
    """
    return np.random if seed is None else np.random.RandomState(checked(seed))


def checked(seed: object) -> int:
    """Return the seed as an int that NumPy's legacy generator takes. Raises TypeError or ValueError."""
    if check_seed(seed) > MAX_SEED:
        raise ValueError(f"seed: expected 0 to 2**32 - 1, got {seed}")
    return int(seed)  # type: ignore[call-overload]  # check_seed knows that it is an integer
