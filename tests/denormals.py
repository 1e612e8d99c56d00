"""Numbers about the smallest normal one, and what is denormal among an array's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def count(array: np.ndarray) -> int:
    """How many elements are denormal."""
    size = np.abs(array)
    return int(((size > 0) & (size < np.finfo(array.dtype).smallest_normal)).sum())


def small(dtype: str) -> np.ndarray:
    """Return normal numbers of both signs up to four times the smallest, which soon decay to denormals, and zeros."""
    sizes = np.array([1, 1 + 2**-20, 1.25, 1.5, 2 - 2**-20, 2, 3, 4, 0]) * float(np.finfo(dtype).smallest_normal)
    return np.concatenate([sizes, -sizes]).astype(dtype)


#: Gradients with which moments that start so small stay small, from those moments.
GRADIENTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "zero": np.zeros_like,
    "denormal": lambda start: start / 7,
    "its square is denormal": lambda start: start / (5 * np.finfo(start.dtype).smallest_normal ** 0.5),
}
