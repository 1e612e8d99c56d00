"""The book's `common/util.py`: what smooths a loss curve for a picture, and what shuffles data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fcnet.backends import Purpose, host_generator
from fcnet.compat import _install

__all__ = ["shuffle_dataset", "smooth_curve"]

WINDOW = 11

__getattr__ = _install.without(("im2col", "col2im"), "common.util", globals())


def shuffle_dataset(x: np.ndarray, t: np.ndarray, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Samples x (n, d1, ..., dk) and labels t, (n,) or (n, C), in a new order, the same for both; in new arrays.

    seed decides the order. Not the book's: that draws from NumPy's global generator, which is left alone here.

    Raises:
        ValueError: not as many labels as samples.
    """
    if len(x) != len(t):
        raise ValueError(f"t: expected a label for each sample of x, {len(x)}, got {len(t)}")
    order = host_generator(seed, Purpose.SHUFFLE).permutation(len(x))
    return x[order], t[order]


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
