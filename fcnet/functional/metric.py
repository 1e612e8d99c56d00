"""Metrics: how good predictions are, in figures for people; added up on the device, over any number of batches.

Shapes: scores (N, C), N batch, C classes or outputs; targets as the loss has them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from fcnet.backends import array_module

Array = Any


def right_classes(scores: Array, y: Array) -> Array:
    """How many rows have their highest score where the label is; y (N,), or (N, C) one-hot."""
    xp = array_module(scores, y)
    labels = xp.argmax(y, axis=1) if y.ndim == 2 else y
    return xp.sum(xp.equal(xp.argmax(scores, axis=1), labels))


def right_labels(scores: Array, y: Array) -> Array:
    """How many labels y (N, C) of 0 and 1 are on the side of 1/2 that σ(scores) is on, that is, scores of 0."""
    xp = array_module(scores, y)
    return xp.sum(xp.equal(xp.greater(scores, 0), xp.greater(y, 0.5)))


def squared_errors(scores: Array, y: Array) -> Array:
    """Σ (s - y)² over (N, C), added up in float64."""
    xp = array_module(scores, y)
    error = xp.subtract(scores, y)
    return xp.sum(error * error, dtype="float64")


class Metric(NamedTuple):
    """A figure made of a sum over the samples.

    key: in the history, train_KEY and val_KEY. title: for people. total: (scores, y) -> the sum, on the device.
    figure: (sum, rows N, columns C) -> the figure. smaller_is_better: which of two models is the better one.
    """

    key: str
    title: str
    total: Callable[[Array, Array], Array]
    figure: Callable[[float, int, int], float]
    smaller_is_better: bool = False

    def better(self, value: float, than: float) -> bool:
        """Whether one figure is better than another."""
        return value < than if self.smaller_is_better else value > than


ACCURACY = Metric("acc", "accuracy", right_classes, lambda total, rows, columns: total / rows)
#: Of all labels of all samples, the share that is right.
LABEL_ACCURACY = Metric(
    "label_acc", "label accuracy", right_labels, lambda total, rows, columns: total / (rows * columns)
)
#: Root of the mean squared error over all outputs of all samples, in the targets' unit.
RMSE = Metric("rmse", "rmse", squared_errors, lambda total, rows, columns: (total / (rows * columns)) ** 0.5, True)

#: What a network is judged by, by its loss: accuracy = right classes / N; label accuracy = right labels / (N C);
#: rmse = sqrt(Σ (s - y)² / (N C)).
METRICS = {"softmax": ACCURACY, "svm": ACCURACY, "mse": RMSE, "bce": LABEL_ACCURACY}
