"""The book's `common/gradient.py`, over `fcnet.tools.gradcheck`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fcnet.tools import gradcheck

__all__ = ["np", "numerical_gradient"]


def numerical_gradient(f: Callable[[np.ndarray], Any], x: np.ndarray) -> np.ndarray:
    """Gradient of the number f(x) in x, floats of any shape: (f(x + h) - f(x - h)) / 2h with h = 1e-4.

    x is changed in place, an element at a time, and put back; so f may also read it without its argument.

    Raises:
        TypeError: x holds no floats, which x + h would be rounded away in; the book then gives wrong numbers.
    """
    return gradcheck.numerical_gradient(f, x, h=1e-4)
