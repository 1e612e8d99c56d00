"""What an estimator is given as X, as the engine takes it: host arrays, sparse rows, or arrays of a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.utils.validation import _check_n_features, check_array, validate_data

from fcnet.backends import Array, Backend, array_owner
from fcnet.data.sparse import SparseRows
from fcnet.errors import counted

FLOATS = (np.float64, np.float32)


@dataclass(frozen=True)
class Inputs:
    """Checked inputs.

    Attributes:
        X: (n, D): an array of the host or a device, or sparse rows.
        backend: the device that X lives on; None for the host.
        back: makes arrays of the caller's kind of results: arrays of X's device, or of the host.
    """

    X: Any
    backend: Backend | None
    back: Callable[[Any], Any]

    def __len__(self) -> int:
        return self.X.shape[0]

    @property
    def dtype(self) -> np.dtype:
        """What is computed in if nobody says: that of floating inputs, else float64."""
        return self.X.dtype if self.X.dtype in FLOATS else np.dtype("float64")

    def some(self, rows: np.ndarray) -> Inputs:
        """Return these rows."""
        if self.backend is not None:
            taken = self.backend.take_rows(self.X, self.backend.asarray(rows))
        else:
            taken = self.X.some(rows) if isinstance(self.X, SparseRows) else self.X[rows]
        return replace(self, X=taken)


def check_inputs(estimator: Any, X: Any, *, reset: bool) -> Inputs:
    """Return X, checked; with `reset` the estimator learns its number of features and their names.

    Raises:
        ValueError, TypeError: scikit-learn's own for the host; for a device other shapes and dtypes.
    """
    backend = device_of(X)
    if backend is None:
        X = validate_data(estimator, X, accept_sparse="csr", dtype=FLOATS, reset=reset)
        return Inputs(SparseRows(X) if issparse(X) else X, None, _same)
    if X.ndim != 2 or X.dtype.kind not in "fiub" or 0 in X.shape:
        raise ValueError(
            f"X: expected numbers of shape (n_samples, n_features), got {X.dtype} {X.shape} on {backend.name}; "
            "one feature is X.reshape(-1, 1), one sample X.reshape(1, -1)"
        )
    if reset:
        estimator.__dict__.pop("feature_names_in_", None)
    _check_n_features(estimator, X, reset=reset)
    return Inputs(X, backend, _same)


def device_of(array: Any) -> Backend | None:
    """Return the backend of a device's array, and None for what the host has."""
    return None if isinstance(array, np.ndarray) else array_owner(array)


def check_weights(sample_weight: Any, count: int) -> np.ndarray:
    """Return weights (n,) float64 on the host, checked. Raises ValueError or TypeError."""
    backend = device_of(sample_weight)
    if backend is not None:
        sample_weight = backend.to_numpy(sample_weight)
    if isinstance(sample_weight, Real):
        sample_weight = np.full(count, sample_weight)
    weights = check_array(sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight")
    if weights.shape != (count,):
        raise ValueError(f"sample_weight: expected {counted(count, 'number')}, one for each row, got {weights.shape}")
    if weights.min() < 0 or not weights.any():
        raise ValueError(
            f"sample_weight: expected numbers of zero or more, not all of them zero, got {weights.min():g} to "
            f"{weights.max():g}; leave out the rows that do not count"
        )
    return weights


def _same(array: Array) -> Array:
    return array
