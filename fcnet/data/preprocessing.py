"""Preprocessing, feature by feature: (X - shift) * scale, learned from the training data, and a smooth limit for some.

Which rule a data set uses by default, and why:

- images ("center"): pixels share one unit, so one number scales them all. Dividing each pixel by its own std
  would blow up the border pixels that are nearly always black.
- digits ("standardize"): its pixels run from 0 to 16, so "center", which divides bytes by 255, would leave
  inputs of about 0.02. The floor below keeps its rarely inked pixels in bounds.
- tables and other features ("robust"): columns come in units of their own, some with values far from all others.
- spirals ("none"): the coordinates already lie in [-1, 1], and CS231n trains on them as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import fcnet.errors as errors
from fcnet.data.checks import check_array, row_chunks
from fcnet.functional.batch import difference, smooth_clip

if TYPE_CHECKING:
    import numpy.typing as npt

#: The kinds of preprocessing; see `learn`.
KINDS = ("none", "scale", "center", "standardize", "robust", "auto")

LIMIT = 3.0  # of robust inputs

# uint8 pixels: no std counts as less than this share of the overall one, so a pixel inked once in the
# training data is stretched at most ten times as much as a typical one.
PIXEL_STD_FLOOR = 0.1


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """Compute z = (X - shift) * scale, feature by feature, or of the kind "robust" z / sqrt(1 + (z / limit)²).

    kind: one of KINDS but "auto"; shift, scale: float64 of shape (D,); limit: a number, or None.
    """

    kind: str
    shift: np.ndarray
    scale: np.ndarray
    limit: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise errors.unknown("kind", self.kind, KINDS)
        if self.shift.ndim != 1 or self.shift.shape != self.scale.shape:
            raise ValueError(
                f"shift, scale: expected two arrays of shape (D,); got {self.shift.shape} and {self.scale.shape}"
            )

    def apply(self, X: np.ndarray, dtype: npt.DTypeLike = np.float32) -> np.ndarray:
        """Return X (N, d1, ..., dk) preprocessed, a new array (N, D), computed in float64 and rounded once.

        Raises ValueError if X has another number of features than the training data had.
        """
        D = math.prod(X.shape[1:])
        if X.ndim < 2 or self.shift.shape[0] != D:
            raise ValueError(f"X: expected shape (N, {self.shift.shape[0]}), as learned; got {X.shape}")
        out = np.empty((X.shape[0], D), dtype=dtype)
        for rows in row_chunks(X):
            chunk = X[rows].reshape(-1, D)
            z = chunk if self.kind == "none" else difference(chunk, self.shift) * self.scale
            out[rows] = z if self.limit is None else smooth_clip(z, self.limit)
        return out


def learn(kind: str, X_train: np.ndarray, *, name: str = "X_train") -> Preprocessing:
    """Learn a rule from X_train (N, d1, ..., dk), in chunks of rows and in float64. With D = d1 * ... * dk:

    none         nothing is changed
    scale        one number for all features: uint8 / 255, else the smallest value goes to 0 and the largest to 1
    center       minus each feature's mean, then one number for all: uint8 / 255, else / the overall std
    standardize  minus each feature's mean, / each feature's std; a constant feature is only centred, and the
                 std of uint8 features (constant ones too) counts as at least a tenth of the overall std
    robust       minus each feature's median, / the distance of its quartiles (where that is 0, half that of its
                 extremes), then z / sqrt(1 + (z / 3)²): nearly z within 1, never beyond 3
    auto         standardize for uint8 features, robust for all others

    A feature is constant if all its values are equal, however far from zero the others lie together (or if its std is
    a denormal number, whose inverse float64 cannot hold). 64-bit integers are taken as they are, beyond 2**53 too.
    std is the biased one (divided by N); the overall std is the root of the features' mean variance. Mean and variance
    are corrected for the rounding of the mean.
    Sources: Chan, Golub, LeVeque, "Algorithms for computing the sample variance", The American Statistician 37 (1983);
    of "robust" Holzmüller, Grinsztajn, Steinwart, "Better by Default" (RealMLP), 2024.

    Raises ValueError for an unknown kind, empty data, or values too large to average; its message says `name`.
    """
    if kind not in KINDS:
        raise errors.unknown("preprocess", kind, KINDS)
    check_array(name, X_train)
    if X_train.ndim < 2 or X_train.size == 0:
        raise ValueError(f"{name}: expected shape (N, D) with N and D at least 1; got {X_train.shape}")
    D = math.prod(X_train.shape[1:])
    pixels = X_train.dtype == np.uint8
    if kind == "auto":
        kind = "standardize" if pixels else "robust"
    shift, scale = np.zeros(D), np.ones(D)
    with np.errstate(over="ignore", invalid="ignore"):
        if kind == "scale" and pixels:
            scale = np.full(D, 1 / 255)
        elif kind == "scale":
            low, high = X_train.min().item(), X_train.max().item()  # their difference is exact, of integers too
            shift, scale = np.full(D, float(low)), np.full(D, inverse_of(np.array(float(high - low))))
        elif kind == "center" and pixels:
            shift, scale = _mean(X_train, D), np.full(D, 1 / 255)
        elif kind == "robust":
            shift, scale = _by_quartiles(X_train, D)
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
    return Preprocessing(kind, shift, scale, LIMIT if kind == "robust" else None)


def _by_quartiles(X: np.ndarray, D: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each feature's median (D,), and the inverse of the distance of its quartiles."""
    shift, spread = np.empty(D), np.empty(D)
    step = max(1, 2**22 // len(X))  # features sorted at once
    for start in range(0, D, step):
        columns = slice(start, start + step)
        chunk = X.reshape(len(X), D)[:, columns]
        # Of 64-bit integers, exact in both, the smallest first: float64 would round them all alike.
        low = chunk.min(axis=0)
        first = low.astype(np.float64)
        z = difference(chunk, first)
        lower, median, upper = np.quantile(z, (0.25, 0.5, 0.75), axis=0)
        most = z.max(axis=0) - z.min(axis=0)
        shift[columns], spread[columns] = first + median, np.where(upper > lower, upper - lower, most / 2)
    return shift, inverse_of(spread)


def inverse_of(std: np.ndarray) -> np.ndarray:
    """Return 1 / std, and 1 where float64 cannot hold that."""
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
    """Return each feature's std (D,) and the overall one, from means and largest distances from the means."""
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
