"""The course's `vis_utils.py`: images side by side."""

from __future__ import annotations

from math import ceil, sqrt
from typing import Any

import numpy as np

__all__ = ["visualize_grid"]

Array = Any


def visualize_grid(Xs: Array, ubound: float = 255.0, padding: int = 1) -> np.ndarray:
    """Images Xs (N, H, W, C) in a square grid, row by row.

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
