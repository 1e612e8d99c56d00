"""Labels as files have them (integers, truth values, text, whole floats, one-hot) into codes 0..C-1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def plain_labels(name: str, y: np.ndarray) -> np.ndarray:
    """y (N,), (N, 1) or one-hot (N, C) as values (N,): int64, uint64, bool or text.

    Raises ValueError for floats that are not whole numbers, other shapes and other types.
    """
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2 and y.dtype.kind in "buif":
        from fcnet.data.checks import check_labels

        y = check_labels(name, y)
    if y.ndim != 1:
        raise ValueError(f"{name}: expected labels of shape (N,) or one-hot (N, C); got {y.shape}")
    if y.dtype.kind == "f":
        whole = np.isfinite(y) & (np.floor(y) == y) & (np.abs(y) < 2**53)
        if not whole.all():
            at = int(np.argmin(whole))
            raise ValueError(
                f"{name}: labels are not integers: got {y[at]} at {at}; give class codes or class names; "
                "values to predict need loss 'mse' or targets='numbers'"
            )
        return y.astype(np.int64)
    if y.dtype.kind == "S":
        return np.array([value.decode("utf-8", "replace") for value in y.tolist()], dtype=np.str_)
    if y.dtype.kind not in "iubU":
        raise ValueError(f"{name}: expected integers, truth values or text as labels; got dtype {y.dtype}")
    return y


def encode(name: str, y: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Codes (N,) int64: the position of each label of y in the sorted `values`, the training part's labels.

    Raises ValueError for a label that the training part does not have.
    """
    if y.dtype.kind != values.dtype.kind and "U" in (y.dtype.kind, values.dtype.kind):
        raise ValueError(f"{name}: expected labels like those of y_train (dtype {values.dtype}); got dtype {y.dtype}")
    codes = np.minimum(np.searchsorted(values, y), len(values) - 1)
    known = values[codes] == y
    if not known.all():
        at = int(np.argmin(known))
        raise ValueError(
            f"{name}: expected only labels that y_train has; got {y[at]} at {at}; "
            "put samples of every class in the training part"
        )
    return codes.astype(np.int64)


def encode_as(name: str, y: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Codes (N,) int64: the number of each label's text among `classes`, the names that a model has.

    Raises ValueError for a label that the model does not know.
    """
    values, places = np.unique(y, return_inverse=True)
    numbers = {name: number for number, name in enumerate(classes)}
    codes = np.array([numbers.get(text, -1) for text in class_names(values)], dtype=np.int64)[places]
    if codes.size and codes.min() < 0:
        at = int(np.argmin(codes))
        raise ValueError(
            f"{name}: expected labels that the model knows ({', '.join(classes[:20])}); got {y[at]} at {at}; "
            "correct or remove those samples"
        )
    return codes


def class_names(values: np.ndarray) -> tuple[str, ...]:
    """The sorted label values as text, which become the class names by code."""
    return tuple(str(value) for value in values.tolist())
