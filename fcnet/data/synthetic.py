"""Data made up on the spot."""

from __future__ import annotations

import math
import operator

import numpy as np

_PURPOSE = 0x73706972616C  # "spiral": keeps these numbers apart from any other use of the same seed


def spirals(points: int = 200, classes: int = 3, noise: float = 0.2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Make interleaved spiral arms, one per class, after CS231n's "Minimal neural network case study".

    points: per class.  noise: standard deviation of the angle, in radians.  seed: 0 <= seed < 2**64.
    Each arm runs from radius 0 to 1 while it turns by 4 radians; arms start at equal angles (in the course 4
    radians apart, where the twelfth arm would cover the first).
    Returns X (points * classes, 2) float64 and y (points * classes,) int64, sorted by class.
    """
    points, classes, seed = operator.index(points), operator.index(classes), operator.index(seed)
    if points < 2 or classes < 2:
        raise ValueError(f"points, classes: expected at least 2 each; got {points} and {classes}")
    if not 0 <= noise < math.inf:
        raise ValueError(f"noise: expected a finite number >= 0; got {noise}")
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"seed: expected 0 <= seed < 2**64; got {seed}")
    rng = np.random.Generator(np.random.Philox(key=np.array([seed, _PURPOSE], dtype=np.uint64)))
    y = np.repeat(np.arange(classes, dtype=np.int64), points)
    radius = np.tile(np.linspace(0, 1, points), classes)
    angle = 4 * radius + 2 * math.pi / classes * y + noise * rng.standard_normal(y.size)
    return np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1), y
