"""The book's `common/gradient.py`, over `fcnet.tools.gradcheck`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fcnet.tools import gradcheck

H = 1e-4

__all__ = ["np", "numerical_gradient", "numerical_gradient_2d"]


def numerical_gradient(f: Callable[[np.ndarray], Any], x: np.ndarray) -> np.ndarray:
    """Return the gradient of the number f(x) in x, any shape, in x's dtype: (f(x + h) - f(x - h)) / 2h, h = 1e-4.

    x is changed in place, an element at a time, and put back; so f may also read it without its argument. In an array
    of integers x + h and x - h are rounded towards 0, and so is the gradient, which is then wrong, as in the book: pass
    floats.
    """
    if x.dtype.kind == "f":
        return gradcheck.numerical_gradient(f, x, h=H).astype(x.dtype, copy=False)
    moved = x.astype(np.float64)

    def rounded(_: np.ndarray) -> Any:
        x[...] = moved
        return f(x)

    grad = gradcheck.numerical_gradient(rounded, moved, h=H)
    x[...] = moved
    return grad.astype(x.dtype)


def numerical_gradient_2d(f: Callable[[np.ndarray], Any], X: np.ndarray) -> np.ndarray:
    """Return `numerical_gradient` of f at each row of X (N, D), or at X (D,) itself; f gets a single row."""
    return numerical_gradient(f, X) if X.ndim == 1 else np.array([numerical_gradient(f, row) for row in X])
