"""Metrics: figures of how good predictions are, added up on the device over any number of batches.

Shapes: scores (N, C), N batch, C classes or outputs; targets as the loss has them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from fcnet.backends import Backend, accelerated, array_module

Array = Any


@accelerated("count")
def right_classes(backend: Backend, scores: Array, y: Array, *, count: Array | None = None) -> Array:
    """Return count = Σ_n [argmax_c s_nc = y_n], how many rows have their highest score where the label is.

    Of equal scores the first counts.

    Args:
        scores: (N, C). y: (N,) labels, or (N, C) one-hot.
        count: int64 without axes, filled if given.
    """
    xp = backend.xp
    labels = xp.argmax(y, axis=1) if y.ndim == 2 else y
    return xp.sum(xp.equal(xp.argmax(scores, axis=1), labels), out=count)


def right_labels(scores: Array, y: Array) -> Array:
    """Count the labels y (N, C), 0 or 1, that are on the same side of 1/2 as σ(scores), that is, scores of 0."""
    xp = array_module(scores, y)
    return xp.sum(xp.equal(xp.greater(scores, 0), xp.greater(y, 0.5)))


def error_norm(scores: Array, y: Array) -> Array:
    """Return ‖s - y‖₂ over (N, C), float64; scaled by the largest error before squaring, so finite if the norm is."""
    xp = array_module(scores, y)
    error = xp.abs(xp.subtract(scores, y, dtype="float64"))
    largest = xp.max(error)
    scale = xp.where(xp.greater(largest, 0), largest, 1.0)
    scale = xp.where(xp.less_equal(scale, sys.float_info.max), scale, 1.0)  # an infinite error stays one
    share = error / scale
    return xp.asarray(scale * xp.sqrt(xp.sum(share * share)))


def add(one: Array, other: Array) -> Array:
    """Return one + other, which joins the counts of two parts."""
    return one + other


def join_norms(one: Array, other: Array) -> Array:
    """Return √(one² + other²), the norm of two parts together, without overflow on the way."""
    xp = array_module(one, other)
    return xp.asarray(xp.hypot(one, other))


class Metric(NamedTuple):
    """Compute a figure from a total over the samples.

    key: in the history, train_KEY and val_KEY. title: for people. total: (scores, y) -> the total of a part of the
    samples, on the device. join: (total, total) -> that of both parts. figure: (total, rows N, columns C) -> the
    figure. smaller_is_better: which of two models is the better one.
    """

    key: str
    title: str
    total: Callable[[Array, Array], Array]
    figure: Callable[[float, int, int], float]
    join: Callable[[Array, Array], Array] = add
    smaller_is_better: bool = False

    def better(self, value: float, than: float) -> bool:
        """Return whether one figure is better than another."""
        return value < than if self.smaller_is_better else value > than


ACCURACY = Metric("acc", "accuracy", right_classes, lambda total, rows, columns: total / rows)
#: Of all labels of all samples, the share that is right.
LABEL_ACCURACY = Metric(
    "label_acc", "label accuracy", right_labels, lambda total, rows, columns: total / (rows * columns)
)
#: Root of the mean squared error over all outputs of all samples, in the targets' unit.
RMSE = Metric("rmse", "rmse", error_norm, lambda norm, rows, columns: norm / (rows * columns) ** 0.5, join_norms, True)
