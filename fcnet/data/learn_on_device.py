"""Preprocessing learned from inputs that lie on a device: worked out there, only what is learned comes to the host.

Shapes: n rows, D features.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import fcnet.errors as errors
from fcnet.backends import Array, Backend, backend_of
from fcnet.data.preprocessing import KINDS, LIMIT, PIXEL_STD_FLOOR, Preprocessing, inverse_of

AT_ONCE = 1 << 24  # elements that are sorted, or worked on in float64, at once


def learn_on_device(kind: str, X: Array, *, name: str = "X") -> Preprocessing:
    """Return what `fcnet.data.learn` would learn of X (n, D) on a device, up to rounding; it waits for a few rows.

    Raises:
        ValueError: an unknown kind, or values that are not finite, or too large.
    """
    if kind not in KINDS:
        raise errors.unknown("preprocess", kind, KINDS)
    backend = backend_of(X)
    pixels = X.dtype == "uint8"
    if kind == "auto":
        kind = "standardize" if pixels else "robust"
    if kind == "none":
        return Preprocessing("none", np.zeros(X.shape[1]), np.ones(X.shape[1]))
    low, high, mean, variance = _by_columns(backend, X, _moments)
    std, overall = np.sqrt(variance), np.sqrt(variance.mean())
    shift, scale = np.where(low == high, low, mean), np.ones(X.shape[1])
    if kind == "scale":
        shift = np.full_like(scale, 0 if pixels else low.min())
        scale = np.full_like(scale, 1 / 255 if pixels else inverse_of(np.array(high.max() - low.min())))
    elif kind == "center":
        scale = np.full_like(scale, 1 / 255 if pixels else inverse_of(overall))
    elif kind == "robust":
        lower, shift, upper = _by_columns(backend, X, _quartiles)
        scale = inverse_of(np.where(upper > lower, upper - lower, (high - low) / 2))
    elif kind == "standardize":
        spread = np.where(low == high, 0, std)
        scale = inverse_of(np.maximum(spread, PIXEL_STD_FLOOR * overall) if pixels else spread)
    finite = np.isfinite([low, high, shift, scale]).all(axis=0)  # quartiles alone would not tell a NaN or two
    if not finite.all():
        raise ValueError(
            f"{name}: expected finite numbers that float64 can average, got others in feature "
            f"{int(np.argmin(finite))}; remove those rows, or use smaller units"
        )
    return Preprocessing(kind, shift, scale, LIMIT if kind == "robust" else None)


def _by_columns(backend: Backend, X: Array, function: Callable[[Backend, Array], np.ndarray]) -> np.ndarray:
    """Return rows (k, D) on the host, computed from some columns at a time."""
    step = max(1, AT_ONCE // X.shape[0])
    parts = [function(backend, X[:, start : start + step]) for start in range(0, X.shape[1], step)]
    return np.concatenate(parts, axis=1)


def _moments(backend: Backend, X: Array) -> np.ndarray:
    """Return the smallest and largest value, mean and variance of each column, (4, D)."""
    xp = backend.xp
    low, high = (np.asarray(backend.to_numpy(f(X, axis=0)), dtype=np.float64) for f in (xp.min, xp.max))
    about = xp.subtract(X, backend.asarray(low), dtype="float64")  # from the smallest on, so that nothing cancels
    mean = xp.mean(about, axis=0)
    off = about - mean
    both = [np.asarray(backend.to_numpy(row)) for row in (mean, xp.mean(off * off, axis=0))]
    return np.stack([low, high, low + both[0], both[1]])


def _quartiles(backend: Backend, X: Array) -> np.ndarray:
    """Return quartiles and median of each column (3, D), interpolated linearly as by `numpy.quantile`."""
    places = np.array([0.25, 0.5, 0.75]) * (X.shape[0] - 1)
    below = np.floor(places).astype(np.int64)
    rows = np.concatenate([below, np.minimum(below + 1, X.shape[0] - 1)])
    near = backend.take_rows(backend.xp.sort(X, axis=0), backend.asarray(rows))
    values = np.asarray(backend.to_numpy(near), dtype=np.float64)
    share = (places - below)[:, None]
    return values[:3] + share * (values[3:] - values[:3])
