"""What an estimator is given as y, as a loss takes it, and back.

Shapes: N rows, C classes, K outputs of the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import check_array, column_or_1d
from sklearn.utils._missing import is_pandas_na, is_scalar_nan
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from fcnet.backends import Array, Backend
from fcnet.errors import counted
from fcnet.sklearn.inputs import device_of, imported


@dataclass(frozen=True)
class Classes:
    """Hold a classifier's classes: their labels, and which kind of targets they are.

    Attributes:
        labels: (C,), sorted, on the host. multilabel: y are rows of zeros and ones, a column for each label.
    """

    labels: np.ndarray
    multilabel: bool

    @property
    def binary(self) -> bool:
        """Return whether one output says it all: two classes, or a lone one."""
        return not self.multilabel and len(self.labels) <= 2

    @staticmethod
    def of(y: Array) -> Classes:
        """Return the classes of checked targets (N,), or (N, C) of zeros and ones."""
        return Classes(np.arange(y.shape[1]), True) if y.ndim == 2 else Classes(distinct(y), False)

    def encode(self, y: Array) -> Array:
        """Return codes (N,) int64 where y is, or the rows (N, C) as they are.

        Raises:
            ValueError: a label that is not among them.
        """
        if self.multilabel:
            return y
        backend = device_of(y)
        if backend is None:
            codes = np.clip(np.searchsorted(self.labels, y), 0, len(self.labels) - 1).astype(np.int64)
            known = bool((self.labels[codes] == y).all())
        else:
            xp = backend.xp
            equal = xp.equal(y.reshape(-1, 1), backend.asarray(self.labels, y.dtype))
            codes = xp.argmax(equal, axis=1).astype("int64")
            known = bool(backend.to_numpy(xp.min(xp.max(equal, axis=1))))
        if not known:
            odd = np.setdiff1d(distinct(y), self.labels)[:10]
            raise ValueError(
                f"y: expected the classes known so far, {self.labels}, got {odd} too; fit anew, or give partial_fit "
                "all classes at its first call"
            )
        return codes

    def decode(self, backend: Backend | None, codes: Array) -> Array:
        """Return the labels (N,) of codes (N,); on the codes' device if the labels are numbers."""
        if self.multilabel:
            return codes
        if backend is None:
            return self.labels[codes]
        if self.labels.dtype.kind in "biuf":
            return backend.take_rows(backend.asarray(self.labels), codes)
        return self.labels[backend.to_numpy(codes)]


def distinct(y: Array) -> np.ndarray:
    """Return the different values in y, sorted, on the host; of a device's array only those are copied."""
    backend = device_of(y)
    return np.unique(y) if backend is None else backend.to_numpy(backend.xp.unique(y))


def check_labels(y: Any) -> Array:
    """Return y (N,), or (N, C) of zeros and ones for several labels; what lies on a device stays there.

    Raises:
        ValueError: scikit-learn's own: numbers, rows of several classes, unknown kinds.
    """
    y = imported(y)
    backend = device_of(y)
    if backend is not None:
        y = y.reshape(-1) if y.ndim == 2 and y.shape[1] == 1 else y
        _check_values(distinct(y), several=y.ndim == 2)
        return y
    y = plain_numbers(y)
    _check_none_lacks(y)
    kind = type_of_target(y, input_name="y")
    if kind == "unknown":
        cell = next(iter(np.asarray(y, dtype=object).flat))
        raise ValueError(
            "y: expected labels of one kind, texts or numbers, or columns of 0 and 1 (multi-label), got objects such "
            f"as {cell!r} (Unknown label type: unknown); convert them, for example by y.astype(str) or y.astype(int)"
        )
    check_classification_targets(y)
    if kind == "multilabel-indicator":
        rows = y.toarray() if issparse(y) else y
        return check_array(rows, dtype=None, input_name="y").astype(np.float64)
    if kind == "multiclass-multioutput":
        raise ValueError(
            "y: expected one column of classes, or columns of 0 and 1 (multi-label), got several columns of classes; "
            "use sklearn.multioutput.MultiOutputClassifier"
        )
    return column_or_1d(y, warn=True)


def _check_none_lacks(y: Any) -> None:
    """Check that no label among objects is None, NaN or pandas' NA. Raises ValueError."""
    if getattr(getattr(y, "dtype", None), "kind", "O") != "O":
        return
    cells = np.asarray(y, dtype=object)
    if cells.ndim == 2 and cells.shape[1] == 1:
        cells = cells[:, 0]
    lacking = [row for row, cell in enumerate(cells) if _is_missing(cell)] if cells.ndim == 1 else []
    if lacking:
        raise ValueError(
            f"y: expected a label in every row, got none in {counted(len(lacking), 'row')}, the first {lacking[0]}; "
            "leave those rows out"
        )


def _is_missing(cell: Any) -> bool:
    return not isinstance(cell, str) and (cell is None or is_scalar_nan(cell) or is_pandas_na(cell))


def plain_numbers(y: Any) -> Any:
    """Return an array of objects that are all numbers, as a column of a data frame may be, as an array of numbers.

    So are pandas' own integers and truth values: without this they would become float64.
    """
    if getattr(y, "ndim", 0) == 1 and hasattr(y.dtype, "numpy_dtype") and y.dtype.kind in "iub" and not y.isna().any():
        return y.to_numpy(y.dtype.numpy_dtype)
    if getattr(y, "ndim", 0) not in (1, 2) or issparse(y):
        return y
    cells = np.asarray(y)
    if cells.dtype.kind != "O" or not all(isinstance(cell, int | float | np.number | np.bool_) for cell in cells.flat):
        return y
    return np.array(cells.tolist())


def _check_values(values: np.ndarray, *, several: bool) -> None:
    """Check that different values on a device are labels. Raises ValueError."""
    if several and not np.isin(values, (0, 1)).all():
        raise ValueError(f"y: expected 0 and 1 in columns of labels, got {values[:10]}")
    if values.dtype.kind == "f" and not (values == np.floor(values)).all():
        raise ValueError(
            f"y: expected labels of classes, got numbers such as {values[values != np.floor(values)][0]} (Unknown "
            "label type: continuous); use FCNetRegressor for numbers"
        )


def check_numbers(y: Any) -> Array:
    """Return y (N,) or (N, K), K of 2 or more: float64, or as it lies on a device. Raises ValueError, TypeError."""
    y = imported(y)
    if device_of(y) is not None:
        return y.reshape(-1) if y.ndim == 2 and y.shape[1] == 1 else y
    numbers = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
    return column_or_1d(numbers, warn=True) if numbers.ndim == 2 and numbers.shape[1] == 1 else numbers
