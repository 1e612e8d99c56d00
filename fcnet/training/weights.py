"""Weights of samples and classes in the loss, so that rare classes are not neglected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fcnet.data import Dataset
from fcnet.errors import counted, unknown
from fcnet.nn.objective import Objective
from fcnet.validation import nonnegative_real


def sample_weights(data: Dataset, objective: Objective, class_weight: Any) -> np.ndarray | None:
    """Return the weight of each training sample, (N,): its own, if any, times that of its class; None: all equal.

    Args:
        class_weight: None, "balanced" or a mapping, see `class_weights`.

    Raises:
        ValueError, TypeError: as there, or targets that are no classes.
    """
    if class_weight is None:
        return data.sample_weight
    y = data.y_train
    if objective.loss == "bce" and objective.outputs == 1:
        codes, count = (y.reshape(-1) > 0.5).astype(np.int64), 2
    elif objective.numeric:
        raise ValueError(
            f"class_weight and loss: expected one class for each sample with class_weight, got loss {objective.loss!r} "
            f"of {counted(objective.outputs, 'output')}; leave class_weight out"
        )
    else:
        codes, count = (y.argmax(axis=1) if y.ndim == 2 else y), objective.outputs
    names = data.classes if data.classes is not None and len(data.classes) == count else None
    each = class_weights(class_weight, codes, count, names, data.sample_weight)[codes]
    weights = each if data.sample_weight is None else each * data.sample_weight
    if not weights.any():
        raise ValueError("class_weight: expected a weight above 0 for a class of the training samples, got 0 for all")
    return weights


def class_weights(
    class_weight: Any,
    codes: np.ndarray,
    count: int,
    names: Sequence[str] | None = None,
    sample_weight: np.ndarray | None = None,
) -> np.ndarray:
    """Return the weight of each class, (C,).

    Args:
        class_weight: "balanced", so that every class counts the same in all, N / (C n_c); or a mapping of classes, by
            name or code, to weights: others weigh 1. As in scikit-learn.
        codes: (N,) of the training samples, 0..C-1. count: C. names: of the classes.
        sample_weight: (N,), which "balanced" adds up in place of counting; None: 1 each.

    Raises:
        ValueError, TypeError: neither, or an unknown class, or a weight that is negative or not finite.
    """
    if isinstance(class_weight, str) and class_weight == "balanced":
        sums = np.bincount(codes, sample_weight, minlength=count).astype(np.float64)
        present = sums > 0
        return np.divide(sums.sum() / present.sum(), sums, out=np.ones(count), where=present)
    if not isinstance(class_weight, Mapping):
        raise ValueError(
            f"class_weight: expected 'balanced' or weights by class such as {{0: 1, 1: 5}}, got {class_weight!r}"
        )
    known = {name: code for code, name in enumerate(map(str, range(count)) if names is None else names)}
    weights = np.ones(count)
    for name, weight in class_weight.items():
        code = known.get(str(name), name)
        if isinstance(code, bool) or not isinstance(code, int | np.integer) or not 0 <= code < count:
            raise unknown("class_weight", name, list(known))
        weights[code] = nonnegative_real("class_weight", weight)
    return weights
