"""Labels as files have them (integers, truth values, text, whole floats, one-hot) into codes 0..C-1."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np


def plain_labels(name: str, y: np.ndarray) -> np.ndarray:
    """Return y (N,), (N, 1) or one-hot (N, C) as values (N,): int64, uint64, bool or text.

    Raises ValueError for floats that are not whole numbers of 64 bits, bytes that are not UTF-8, other shapes and
    types.
    """
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2 and y.dtype.kind in "buif":
        from fcnet.data.checks import check_labels

        y = check_labels(name, y)
    if y.ndim != 1:
        raise ValueError(f"{name}: expected labels of shape (N,) or one-hot (N, C); got {y.shape}")
    if y.dtype.kind == "f":
        return _whole_numbers(name, y)
    if y.dtype.kind == "S":
        try:
            return np.char.decode(y, "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{name}: expected text in UTF-8; got {error.object!r} at {y.tolist().index(error.object)}; save it as "
                f"text, np.char.decode({name}, 'latin-1') or what it is encoded in"
            ) from None
    if y.dtype.kind not in "iubU":
        raise ValueError(
            f"{name}: expected integers, truth values or text as labels; got dtype {y.dtype}; use {name}.astype(str)"
        )
    return y


def _whole_numbers(name: str, y: np.ndarray) -> np.ndarray:
    whole = np.isfinite(y) & (np.floor(y) == y)
    if not whole.all():
        at = int(np.argmin(whole))
        raise ValueError(
            f"{name}: labels are not integers: got {y[at]} at {at}; give class codes or class names; "
            "values to predict need loss 'mse' or targets='numbers'"
        )
    if not y.size or (y.min() >= -(2.0**63) and y.max() < 2.0**63):
        return y.astype(np.int64)
    if y.min() >= 0 and y.max() < 2.0**64:
        return y.astype(np.uint64)
    at = int(np.abs(y).argmax())
    raise ValueError(f"{name}: expected whole numbers of 64 bits; got {y[at]:g} at {at}; use {name}.astype(str)")


def encode(name: str, y: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return codes (N,) int64: the position of each label of y in the sorted `values`, the training part's labels.

    Raises ValueError for a label that the training part does not have.
    """
    if y.dtype.kind != values.dtype.kind and "U" in (y.dtype.kind, values.dtype.kind):
        raise ValueError(
            f"{name}: expected labels like those of y_train (dtype {values.dtype}); got dtype {y.dtype}; "
            "save both as text or both as numbers"
        )
    codes = _numbered(y, {value: code for code, value in enumerate(values.tolist())})
    if codes.min(initial=0) < 0:
        at = int(np.argmin(codes))
        raise ValueError(
            f"{name}: expected only labels that y_train has; got {y[at]} at {at}; "
            "put samples of every class in the training part"
        )
    return codes


def encode_as(name: str, y: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Return codes (N,) int64: the position of each label's text in `classes`, the names that a model has.

    Raises ValueError for a label that the model does not know.
    """
    codes = _numbered(y, {name: number for number, name in enumerate(classes)}, str)
    if codes.min(initial=0) < 0:
        at = int(np.argmin(codes))
        raise ValueError(
            f"{name}: expected labels that the model knows ({', '.join(classes[:20])}); got {y[at]} at {at}; "
            "correct or remove those samples"
        )
    return codes


def _numbered(y: np.ndarray, numbers: Mapping[Any, int], key: Callable[[Any], Any] = lambda value: value) -> np.ndarray:
    """Return the number of each label, -1 for others; 64-bit integers are compared exactly, as Python's own."""
    values, places = np.unique(y, return_inverse=True)
    return np.array([numbers.get(key(value), -1) for value in values.tolist()], dtype=np.int64)[places]


def class_names(values: np.ndarray) -> tuple[str, ...]:
    """Return the sorted label values as text, which become the class names by code."""
    return tuple(str(value) for value in values.tolist())
