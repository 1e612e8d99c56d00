"""What an estimator is given as y, as a loss takes it, and back.

Shapes: N rows, C classes, K outputs of the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from fcnet.backends import Array, Backend


@dataclass(frozen=True)
class Classes:
    """The classes of a classifier: their labels, and which kind of targets they are.

    Attributes:
        labels: (C,), sorted. multilabel: y are rows of zeros and ones, a column for each label.
    """

    labels: np.ndarray
    multilabel: bool

    @property
    def binary(self) -> bool:
        """Whether one output says it all: two classes, or a lone one."""
        return not self.multilabel and len(self.labels) <= 2

    @staticmethod
    def of(y: np.ndarray) -> Classes:
        """Learn the classes of checked targets (N,), or (N, C) of zeros and ones."""
        if y.ndim == 2:
            return Classes(np.arange(y.shape[1]), True)
        return Classes(np.unique(y), False)

    def encode(self, y: np.ndarray) -> np.ndarray:
        """Return codes (N,) int64, or the rows (N, C) as they are.

        Raises:
            ValueError: a label that is not among them.
        """
        if self.multilabel:
            return y
        codes = np.clip(np.searchsorted(self.labels, y), 0, len(self.labels) - 1)
        odd = self.labels[codes] != y
        if odd.any():
            raise ValueError(
                f"y: expected the classes known so far, {self.labels}, got {np.unique(y[odd])[:10]} too; fit anew, or "
                "give partial_fit all classes at its first call"
            )
        return codes.astype(np.int64)

    def decode(self, backend: Backend | None, codes: Array) -> Array:
        """Return the labels (N,) of codes (N,); on the codes' device if the labels are numbers."""
        if self.multilabel:
            return codes
        if backend is None:
            return self.labels[codes]
        if self.labels.dtype.kind in "biuf":
            return backend.take_rows(backend.asarray(self.labels), codes)
        return self.labels[backend.to_numpy(codes)]


def check_labels(y: Any) -> np.ndarray:
    """Return y (N,), or (N, C) of zeros and ones for several labels.

    Raises:
        ValueError: scikit-learn's own: numbers, rows of several classes, unknown kinds.
    """
    check_classification_targets(y)
    kind = type_of_target(y, input_name="y")
    if kind == "multilabel-indicator":
        return check_array(y, accept_sparse=False, dtype=None, input_name="y").astype(np.float64)
    if kind == "multiclass-multioutput":
        raise ValueError(
            "y: expected one column of classes, or columns of 0 and 1 (multi-label), got several columns of classes; "
            "use sklearn.multioutput.MultiOutputClassifier"
        )
    return column_or_1d(y, warn=True)
