"""The course's `vis_utils.py`: images side by side."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt
from typing import Any

import numpy as np

__all__ = ["ceil", "np", "sqrt", "vis_grid", "vis_nn", "visualize_grid"]

Array = Any


def visualize_grid(Xs: Array, ubound: float = 255.0, padding: int = 1) -> np.ndarray:
    """Return images Xs (N, H, W, C) in a square grid, row by row.

    Each image is stretched to the range 0 to `ubound` (one of a single value becomes 0); `padding` empty pixels lie
    between them.

    Returns:
        (S * H + (S - 1) * padding, S * W + (S - 1) * padding, C) float64, with S = ceil(sqrt(N)).
    """
    Xs = np.asarray(Xs)
    if Xs.ndim != 4 or Xs.size == 0:
        raise ValueError(f"Xs: expected images (N, H, W, C), got shape {Xs.shape}")
    count, height, width, channels = Xs.shape
    side = ceil(sqrt(count))
    grid = np.zeros((side * (height + padding) - padding, side * (width + padding) - padding, channels))
    for i, image in enumerate(Xs):
        top, left = (i // side) * (height + padding), (i % side) * (width + padding)
        low, high = float(image.min()), float(image.max())
        grid[top : top + height, left : left + width] = ubound * (image - low) / ((high - low) or 1.0)
    return grid


def vis_grid(Xs: Array) -> np.ndarray:
    """Return images Xs (N, H, W, C) in a square grid, row by row, stretched together to the range 0 to 1.

    Below and to the right of each lies an empty pixel, as dark as the darkest.

    Returns:
        (S * (H + 1), S * (W + 1), C) float64, with S = ceil(sqrt(N)).
    """
    Xs = np.asarray(Xs)
    if Xs.ndim != 4 or Xs.size == 0:
        raise ValueError(f"Xs: expected images (N, H, W, C), got shape {Xs.shape}")
    side = ceil(sqrt(len(Xs)))
    return _stretched([Xs[i * side : (i + 1) * side] for i in range(side)], Xs.min())


def vis_nn(rows: Sequence[Sequence[Array]]) -> np.ndarray:
    """Return rows of images (H, W, C), as many in each, stretched together to the range 0 to 1.

    Below and to the right of each lies a pixel of value 1 before the stretching, as in the course.

    Returns:
        (len(rows) * (H + 1), len(rows[0]) * (W + 1), C) float64.
    """
    if not len(rows) or not len(rows[0]):
        raise ValueError("rows: expected at least one image")
    return _stretched(rows, 1)


def _stretched(rows: Sequence[Sequence[Array]], gap: float) -> np.ndarray:
    first = np.asarray(rows[0][0])
    height, width, channels = first.shape
    grid = np.full((len(rows) * (height + 1), len(rows[0]) * (width + 1), channels), gap, first.dtype)
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            top, left = y * (height + 1), x * (width + 1)
            grid[top : top + height, left : left + width] = image
    low, high = float(grid.min()), float(grid.max())
    return (grid - low) / ((high - low) or 1.0)
