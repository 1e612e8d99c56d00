"""The book's `common/util.py`: of it, what smooths a loss curve for a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["smooth_curve"]

WINDOW = 11


def smooth_curve(x: Sequence[float] | np.ndarray) -> np.ndarray:
    """Each of the numbers x (n,) averaged with its neighbours: 11 of them, weighed by a Kaiser window of beta 2.

    At its ends the curve is mirrored, so the result is (n,) too. Source: Saito, "Deep Learning from Scratch", 6.1.

    Raises:
        ValueError: fewer than 11 numbers, or more than one axis.
    """
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 1 or len(x) < WINDOW:
        raise ValueError(f"x: expected {WINDOW} numbers or more in a row, got shape {x.shape}")
    mirrored = np.concatenate([x[WINDOW - 1 : 0 : -1], x, x[-1:-WINDOW:-1]])
    window = np.kaiser(WINDOW, 2)
    smooth = np.convolve(window / window.sum(), mirrored, mode="valid")
    return smooth[WINDOW // 2 : len(smooth) - WINDOW // 2]
