"""The book's `common/util.py`: smoothing of loss curves, shuffling of data, the size of a feature map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fcnet.compat import _install
from fcnet.compat.dlfs._random import generator, own_generator

WINDOW = 11
ABSENT = ("im2col", "col2im")

__all__ = ["conv_output_size", "np", "shuffle_dataset", "smooth_curve"]
__getattr__ = _install.without(ABSENT, "common.util", globals())


def conv_output_size(input_size: int, filter_size: int, stride: int = 1, pad: int = 0) -> float:
    """Return (input_size + 2 pad - filter_size) / stride + 1: a convolution's height or width, if it is whole."""
    return (input_size + 2 * pad - filter_size) / stride + 1


def shuffle_dataset(x: np.ndarray, t: np.ndarray, *, seed: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Return samples x (n, d1, ..., dk) and labels t, (n,) or (n, C), both in the same new order, as new arrays.

    seed: of the order; None, the book's way, draws it from NumPy's global generator.

    Raises:
        ValueError: not as many labels as samples.
    """
    if len(x) != len(t):
        raise ValueError(f"t: expected a label for each sample of x, {len(x)}, got {len(t)}")
    order = generator(own_generator(seed)).permutation(len(x))
    return x[order], t[order]


def smooth_curve(x: Sequence[float] | np.ndarray) -> np.ndarray:
    """Average each of the numbers x (n,) with its neighbours: 11 of them, weighed by a Kaiser window of beta 2.

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
