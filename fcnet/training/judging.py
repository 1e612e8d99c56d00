"""Metrics on the host, of targets and predictions: by scikit-learn where it is installed, by our own lines elsewhere.

Shapes: N rows, C classes or outputs. y and predicted (N,) are class codes 0..C-1, or numbers. A figure that is not
defined for these rows (one class alone, numbers that are all alike, a score that is not finite) is NaN.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np

from fcnet.functional.metric import error_norm

TINY = float(np.finfo(np.float64).eps)  # what probabilities are kept away from 0 and 1 by, as scikit-learn does


#: scikit-learn's metrics, if they were asked for and are there: to import them takes a second.
_library: Any = None


def use_library() -> None:
    """Compute by scikit-learn from now on, where it is installed; our own lines give the same."""
    global _library
    with contextlib.suppress(ImportError):
        import sklearn.metrics

        _library = sklearn.metrics


def confusion_matrix(y: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return how many rows of each class (the rows of the matrix) were taken for each class (its columns), (C, C)."""
    return np.bincount(y * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def accuracy(y: np.ndarray, predicted: np.ndarray) -> float:
    """Return the share of rows that are predicted right, 0 to 1."""
    return float(np.mean(y == predicted))


def balanced_accuracy(y: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean over the classes in y of the share of their rows that is predicted right (recall)."""
    if _library is not None:
        return float(_library.recall_score(y, predicted, labels=np.unique(y), average="macro", zero_division=0.0))
    return float(np.mean([np.mean(predicted[y == code] == code) for code in np.unique(y)]))


def f1(y: np.ndarray, predicted: np.ndarray, positive: int = 1) -> float:
    """Return F1 of one class: 2 TP / (2 TP + FP + FN), 0 where nothing is right."""
    y, predicted = y == positive, predicted == positive
    if _library is not None:
        return float(_library.f1_score(y, predicted, zero_division=0.0))
    right = int(np.sum(y & predicted))
    return 2 * right / max(int(y.sum()) + int(predicted.sum()), 1)


def f1_macro(y: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean of F1 over the classes that are in y or were predicted."""
    if _library is not None:
        return float(_library.f1_score(y, predicted, average="macro", zero_division=0.0))
    return float(np.mean([f1(y, predicted, code) for code in np.union1d(y, predicted)]))


def roc_auc(positive: np.ndarray, scores: np.ndarray) -> float:
    """Return the area under the ROC curve: how often a row with `positive` (N,) has the larger of two scores (N,).

    Equal scores count half. NaN without rows of both kinds.
    """
    if positive.all() or not positive.any() or not np.isfinite(scores).all():
        return math.nan
    if _library is not None:
        return float(_library.roc_auc_score(positive, scores))
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place]  # the mean rank of equal scores, from 1
    n = int(positive.sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(scores) - n)))


def roc_auc_of_classes(y: np.ndarray, scores: np.ndarray) -> float:
    """Return the area under the ROC curve of scores (N, C): of two classes, that of the second; of more, one against
    the rest, the mean over the classes in y.
    """
    if scores.shape[1] == 2:
        return roc_auc(y == 1, scores[:, 1] - scores[:, 0])
    return float(np.mean([roc_auc(y == code, scores[:, code]) for code in np.unique(y)]))


def log_loss(y: np.ndarray, probabilities: np.ndarray) -> float:
    """Return -mean_n log p of the right class; probabilities (N, C), kept away from 0 and 1 by 2.2e-16."""
    if not np.isfinite(probabilities).all():
        return math.nan
    if _library is not None:
        return float(_library.log_loss(y, probabilities, labels=np.arange(probabilities.shape[1])))
    right = np.take_along_axis(probabilities, y[:, None], axis=1)
    return float(-np.log(np.clip(right, TINY, 1 - TINY)).mean())


def rmse(y: np.ndarray, predicted: np.ndarray) -> float:
    """Return the root of the mean squared error, in the unit of y."""
    return float(error_norm(predicted, y)) / len(y) ** 0.5


def mae(y: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean absolute error, in the unit of y."""
    return float(np.mean(np.abs(y - predicted)))


def r2(y: np.ndarray, predicted: np.ndarray) -> float:
    """Return the coefficient of determination, 1 - Σ (y - p)² / Σ (y - mean)²: 1 for no error, 0 for the mean of y."""
    spread = float(np.ptp(y))
    if spread == 0 or not np.isfinite(predicted).all():
        return math.nan
    y, predicted = (np.ldexp(values - y.mean(), -math.frexp(spread)[1]) for values in (y, predicted))  # near 1
    if _library is not None:
        return float(_library.r2_score(y, predicted))
    return 1 - float(np.sum((y - predicted) ** 2)) / float(np.sum((y - y.mean()) ** 2))
