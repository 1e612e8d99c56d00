"""What an estimator is given as X, as the engine takes it: host arrays, sparse rows, or arrays of a device."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.utils.validation import _check_n_features, check_array, validate_data

from fcnet.backends import Array, Backend, array_owner, from_dlpack
from fcnet.data.plan import Plan
from fcnet.data.sparse import SparseRows
from fcnet.errors import counted

FLOATS = (np.float64, np.float32)


@dataclass(frozen=True)
class Inputs:
    """Hold checked inputs.

    Attributes:
        X: (n, D): an array of the host or a device, or sparse rows.
        backend: the device that X lives on; None for the host.
        back: makes an array of the caller's library of a result.
        counts: the weights that the caller gave the rows, or None: what is learned of X counts them as so many rows.
    """

    X: Any
    backend: Backend | None
    back: Callable[[Any], Any]
    counts: np.ndarray | None = None

    def __len__(self) -> int:
        return self.X.shape[0]

    @property
    def dtype(self) -> np.dtype:
        """Return the default dtype of computations: that of floating inputs, else float64."""
        return self.X.dtype if self.X.dtype in FLOATS else np.dtype("float64")

    def some(self, rows: np.ndarray) -> Inputs:
        """Return these rows."""
        counts = None if self.counts is None else self.counts[rows]
        return replace(self, X=rows_of(self.X, rows), counts=counts)


def rows_of(X: Any, rows: np.ndarray) -> Any:
    """Return these rows of an array of the host or a device, or of sparse rows."""
    if isinstance(X, SparseRows):
        return X.some(rows)
    backend = device_of(X)
    return X[rows] if backend is None else backend.take_rows(X, backend.asarray(rows))


def device_of(array: Any) -> Backend | None:
    """Return the backend of a device's array, and None for what the host has."""
    return None if isinstance(array, np.ndarray) else array_owner(array)


def imported(array: Any) -> Any:
    """Return an array of another library that speaks DLPack as one of fcnet's, on the same memory; others as they are.

    Frames and lists do not speak it. What cannot be shared is left to be converted as anything else is.
    """
    if isinstance(array, np.ndarray | np.generic) or array_owner(array) is not None:
        return array
    if not hasattr(array, "__dlpack__") or not hasattr(array, "__dlpack_device__"):
        return array
    return from_dlpack(array)


def check_inputs(estimator: Any, X: Any, *, reset: bool) -> Inputs:
    """Return X, checked; with `reset` the estimator learns its number of features and their names.

    Raises:
        ValueError, TypeError: scikit-learn's own for the host; for a device other shapes and dtypes.
    """
    given, X = X, imported(X)
    back = _same if X is given else _giver_back(given)
    backend = device_of(X)
    if backend is None:
        if reset:
            estimator.__dict__.pop("plan_", None)
            if _needs_a_plan(X, estimator.categorical_features):
                _learn_plan(estimator, X)
        if hasattr(estimator, "plan_"):
            validate_data(estimator, X, skip_check_array=True, reset=reset)
            return Inputs(estimator.plan_.apply(X), None, back)
        X = validate_data(estimator, X, accept_sparse="csr", dtype=FLOATS, reset=reset)
        return Inputs(SparseRows(X) if issparse(X) else X, None, back)
    if X.ndim != 2 or X.dtype.kind not in "fiub" or 0 in X.shape:
        raise ValueError(
            f"X: expected numbers of shape (n_samples, n_features), got {X.dtype} {X.shape} on {backend.name}; "
            "one feature is X.reshape(-1, 1), one sample X.reshape(1, -1)"
        )
    if reset:
        for name in ("feature_names_in_", "plan_"):
            estimator.__dict__.pop(name, None)
    _check_n_features(estimator, X, reset=reset)
    return Inputs(X, backend, back)


def _needs_a_plan(X: Any, categorical: Any) -> bool:
    """Return whether columns must be made numbers first: named ones, or those of a frame that hold text or gaps."""
    named = categorical is not None and not isinstance(categorical, str)
    if not hasattr(X, "columns") or not hasattr(X, "dtypes"):
        return named and not issparse(X)
    dtypes = list(X.dtypes)
    if named or not all(_is_number(dtype) for dtype in dtypes):
        return categorical is not None
    gaps = X.isna().to_numpy() if hasattr(X, "isna") else X.null_count().to_numpy()
    return bool(gaps.any())


def _is_number(dtype: Any) -> bool:
    """Return whether a column holds numbers, of pandas, whose dtypes have a kind, or of polars."""
    kind = getattr(dtype, "kind", None)
    return kind in ("f", "i", "u", "b") if kind is not None else bool(dtype.is_numeric())


def _learn_plan(estimator: Any, X: Any) -> None:
    """Learn what becomes of the columns; what is left out unasked is said."""
    estimator.plan_ = Plan.learn(X, categorical=_categories(X, estimator.categorical_features))
    for line in estimator.plan_.said():
        warnings.warn(f"{type(estimator).__name__}: {line}", stacklevel=6)


def _categories(X: Any, given: Any) -> list[str | int]:
    """Return the columns that are categories although they hold numbers: names, places, or a mask of all columns."""
    if isinstance(given, str):
        return []
    chosen = list(given)
    if chosen and all(isinstance(one, bool | np.bool_) for one in chosen):
        if len(chosen) != X.shape[1]:
            raise ValueError(
                f"categorical_features: expected a mask of the {counted(X.shape[1], 'column')}, got {len(chosen)}"
            )
        chosen = np.flatnonzero(chosen).tolist()
    return [int(one) if isinstance(one, Integral) else str(one) for one in chosen]


def check_weights(sample_weight: Any, count: int) -> np.ndarray:
    """Return weights (n,) float64 on the host, checked. Raises ValueError or TypeError."""
    sample_weight = imported(sample_weight)
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


def _giver_back(given: Any) -> Callable[[Any], Any]:
    """Return what makes a result an array of the library of `given`, on the same memory; text stays as it is."""
    namespace = given.__array_namespace__() if hasattr(given, "__array_namespace__") else _library_of(given)

    def back(result: Array) -> Any:
        return namespace.from_dlpack(result) if result.dtype.kind in "fiub" else result

    return back


def _library_of(array: Any) -> Any:
    return sys.modules[type(array).__module__.partition(".")[0]]


def _same(array: Array) -> Array:
    return array
