"""Preprocessing as one affine map of the features, (X - shift) * scale, learned from the training data.

Which rule a data set uses by default, and why:

- images ("center"): pixels share one unit, so one number scales them all. Dividing each pixel by its own std
  would blow up the border pixels that are nearly always black.
- digits ("standardize"): its pixels run from 0 to 16, so "center", which divides bytes by 255, would leave
  inputs of about 0.02. The floor below keeps its rarely inked pixels in bounds.
- tables and other features ("standardize"): columns come in units of their own.
- spirals ("none"): the coordinates already lie in [-1, 1], and CS231n trains on them as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import fcnet.errors as errors
from fcnet.data.checks import check_array, row_chunks
from fcnet.functional.batch import difference

if TYPE_CHECKING:
    import numpy.typing as npt

#: The kinds of preprocessing; see `learn`.
KINDS = ("none", "scale", "center", "standardize")

# uint8 pixels: no std counts as less than this share of the overall one, so a pixel inked once in the
# training data is stretched at most ten times as much as a typical one.
PIXEL_STD_FLOOR = 0.1


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """(X - shift) * scale, feature by feature. kind: one of KINDS; shift, scale: float64 of shape (D,)."""

    kind: str
    shift: np.ndarray
    scale: np.ndarray

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise errors.unknown("kind", self.kind, KINDS)
        if self.shift.ndim != 1 or self.shift.shape != self.scale.shape:
            raise ValueError(
                f"shift, scale: expected two arrays of shape (D,); got {self.shift.shape} and {self.scale.shape}"
            )

    def apply(self, X: np.ndarray, dtype: npt.DTypeLike = np.float32) -> np.ndarray:
        """(X - shift) * scale of X (N, d1, ..., dk) as a new array (N, D), computed in float64 and rounded
        once.

        Raises ValueError if X has another number of features than the training data had.
        """
        D = math.prod(X.shape[1:])
        if X.ndim < 2 or self.shift.shape[0] != D:
            raise ValueError(f"X: expected shape (N, {self.shift.shape[0]}), as learned; got {X.shape}")
        out = np.empty((X.shape[0], D), dtype=dtype)
        for rows in row_chunks(X):
            chunk = X[rows].reshape(-1, D)
            out[rows] = chunk if self.kind == "none" else difference(chunk, self.shift) * self.scale
        return out


def learn(kind: str, X_train: np.ndarray, *, name: str = "X_train") -> Preprocessing:
    """Learn a rule from X_train (N, d1, ..., dk), in chunks of rows and in float64. With D = d1 * ... * dk:

    none         nothing is changed
    scale        one number for all features: uint8 / 255, else the smallest value goes to 0 and the largest to 1
    center       minus each feature's mean, then one number for all: uint8 / 255, else / the overall std
    standardize  minus each feature's mean, / each feature's std; a constant feature is only centred, and the
                 std of uint8 features (constant ones too) counts as at least a tenth of the overall std

    A feature is constant if all its values are equal, however far from zero the others lie together (or if its std is
    a denormal number, whose inverse float64 cannot hold). 64-bit integers are taken as they are, beyond 2**53 too.
    std is the biased one (divided by N); the overall std is the root of the features' mean variance. Mean and variance
    are corrected for the rounding of the mean.
    Source: Chan, Golub, LeVeque, "Algorithms for computing the sample variance", The American Statistician 37 (1983).

    Raises ValueError for an unknown kind, empty data, or values too large to average; its message says `name`.
    """
    if kind not in KINDS:
        raise errors.unknown("preprocess", kind, KINDS)
    check_array(name, X_train)
    if X_train.ndim < 2 or X_train.size == 0:
        raise ValueError(f"{name}: expected shape (N, D) with N and D at least 1; got {X_train.shape}")
    D = math.prod(X_train.shape[1:])
    pixels = X_train.dtype == np.uint8
    shift, scale = np.zeros(D), np.ones(D)
    with np.errstate(over="ignore", invalid="ignore"):
        if kind == "scale" and pixels:
            scale = np.full(D, 1 / 255)
        elif kind == "scale":
            low, high = X_train.min().item(), X_train.max().item()  # their difference is exact, of integers too
            shift, scale = np.full(D, float(low)), np.full(D, inverse_of(np.array(float(high - low))))
        elif kind == "center" and pixels:
            shift, scale = _mean(X_train, D), np.full(D, 1 / 255)
        elif kind in ("center", "standardize"):
            low, high = X_train.min(axis=0).reshape(D), X_train.max(axis=0).reshape(D)
            shift = np.where(low == high, low.astype(np.float64), _mean(X_train, D))
            farthest = np.where(low == high, 0, np.maximum(difference(high, shift), -difference(low, shift)))
            std, overall = _deviations(X_train, shift, farthest)
            if kind == "center":
                scale = np.full(D, inverse_of(overall))
            else:
                scale = inverse_of(np.maximum(std, PIXEL_STD_FLOOR * overall) if pixels else std)
    if not (np.isfinite(shift).all() and np.isfinite(scale).all() and scale.all()):
        largest = np.maximum(X_train.max(axis=0), -X_train.min(axis=0)).reshape(D)
        raise ValueError(
            f"{name}: expected values that float64 can average; {kind!r} overflows, feature {int(largest.argmax())} "
            f"reaches {largest.max():g}; use smaller units"
        )
    return Preprocessing(kind, shift, scale)


def inverse_of(std: np.ndarray) -> np.ndarray:
    """1 / std, and 1 where float64 cannot hold that."""
    varied = std >= np.finfo(np.float64).tiny
    return np.where(varied, 1 / np.where(varied, std, 1.0), 1.0)


def _mean(X: np.ndarray, D: int) -> np.ndarray:
    total = np.zeros(D)
    for rows in row_chunks(X):
        total += X[rows].reshape(-1, D).sum(axis=0, dtype=np.float64)
    mean = total / X.shape[0]
    if X.dtype.kind != "f" and X.dtype.itemsize < 8:  # a sum of small integers is exact
        return mean
    lost = np.zeros(D)  # by the sum, which is large where the mean is
    for rows in row_chunks(X):
        lost += difference(X[rows].reshape(-1, D), mean).sum(axis=0)
    return mean + lost / X.shape[0]


def _deviations(X: np.ndarray, mean: np.ndarray, farthest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each feature's std (D,) and the overall one, from the means and each feature's largest distance from its mean."""
    # A power of 2 for each feature brings its values near 1: squares then neither overflow nor vanish.
    unit = np.ldexp(1.0, np.where(farthest > 0, -np.clip(np.frexp(farthest)[1], -1022, 1023), 1022))
    squares, sums = np.zeros_like(mean), np.zeros_like(mean)
    for rows in row_chunks(X):
        centred = difference(X[rows].reshape(-1, mean.size), mean)
        centred *= unit
        squares += np.einsum("nd,nd->d", centred, centred)
        sums += centred.sum(axis=0)
    # A second pass, as E[x²] - E[x]² would cancel when the mean is large against the spread; what is subtracted is
    # that of the rounded mean.
    variance = np.where(farthest > 0, np.maximum(squares / len(X) - (sums / len(X)) ** 2, 0), 0)
    common = unit.min()
    return np.sqrt(variance) / unit, np.sqrt((variance * (common / unit) ** 2).mean()) / common
