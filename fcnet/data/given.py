"""What users hand over as parts of a data set, as the arrays that a `Dataset` holds: frames, lists, labels of any kind.

Arrays of numbers and codes 0..C-1 stay the same objects.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from fcnet.data.columns import columns_of, is_frame, is_table
from fcnet.data.labels import class_names, encode, encode_as, plain_labels
from fcnet.data.plan import Plan
from fcnet.data.targets import MOST_CLASSES
from fcnet.errors import DataNotice, counted


def inputs_of(parts: Mapping[str, Any], plan: Plan | None) -> tuple[dict[str, Any], Plan | None]:
    """Return X of each part as an array, and the plan that made arrays of tables, learned from X_train if not given.

    Raises TypeError or ValueError for a table that does not fit the first.
    """
    arrays = {name: _numbers(X) for name, X in parts.items()}
    if not is_table(arrays["X_train"]):
        return arrays, plan
    if plan is None:
        plan = Plan.learn(columns_of(arrays["X_train"], name="X_train"))
        for line in plan.said():
            warnings.warn(f"X_train: {line}", DataNotice, stacklevel=5)
    return {
        name: plan.apply(columns_of(X, plan.missing, name=name)) if is_table(X) else X for name, X in arrays.items()
    }, plan


def _numbers(X: Any) -> Any:
    """Return lists of numbers as an array, anything else as it is."""
    if not isinstance(X, list | tuple) or is_frame(X):
        return X
    try:
        array = np.asarray(X)
    except ValueError:  # rows of different lengths, which is said later
        return X
    return array if array.dtype.kind in "buif" else X


def targets_of(name: str, y: Any) -> Any:
    """Return a series, a list or a frame of targets as an array; anything else as it is.

    Raises ValueError for missing ones.
    """
    if isinstance(y, np.ndarray) and y.dtype.kind != "O":
        return y
    if is_frame(y) and hasattr(y, "to_numpy"):
        y = y.to_numpy()
        y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    elif hasattr(y, "to_numpy"):
        y = y.to_numpy()
    elif isinstance(y, list | tuple):
        y = np.array(y, dtype=object) if y and isinstance(y[0], str) else np.asarray(y)
    if not isinstance(y, np.ndarray) or y.dtype.kind not in "Of" or y.ndim > 2:
        return y
    values = y.ravel().tolist()
    absent = [at for at, value in enumerate(values) if _is_absent(value)]
    if absent:
        raise ValueError(
            f"{name}: expected targets without gaps; got {counted(len(absent), 'missing value')}, the first at "
            f"{absent[0]}; leave those rows out"
        )
    if y.dtype.kind == "f":
        return y
    kinds = {type(value) for value in values}
    if kinds <= {bool, np.bool_}:
        return y.astype(bool)
    if all(issubclass(kind, int | float | np.number) for kind in kinds):
        return np.array(values).reshape(y.shape)
    text = y.astype(str)  # without null characters at the end
    first: dict[str, Any] = {}
    for value, word in zip(values, text.ravel().tolist(), strict=True):
        other = first.setdefault(word, value)
        if (isinstance(other, str), str(other)) != (isinstance(value, str), str(value)):
            raise ValueError(
                f"{name}: expected labels that stay different as text; got {other!r} and {value!r}; make all of them "
                "text or all numbers, without null characters at the end"
            )
    return text


def _is_absent(value: Any) -> bool:
    """Return whether a value is None, NaN, or pandas' NA, whose comparisons are neither true nor false."""
    try:
        return value is None or bool(value != value)
    except TypeError:
        return True


def codes_of(
    parts: Mapping[str, Any], classes: tuple[str, ...] | None
) -> tuple[dict[str, Any], tuple[str, ...] | None]:
    """Return y of each part as codes, and the names of the classes if y_train holds labels of another kind.

    Whole numbers from 0 of which at least half occur are codes already, and so are rows (N, C); so is anything with
    `classes` given that is no text. Labels 1 and 2, -1 and 1, True and False, and texts are numbered in their order.

    Raises ValueError for a label that y_train does not have, and for whole numbers that are probably no labels.
    """
    first = parts["y_train"]
    if not isinstance(first, np.ndarray) or first.ndim != 1 or not first.size or not _are_labels(first, classes):
        return dict(parts), classes
    values = np.unique(plain_labels("y_train", first))
    if values.dtype.kind in "iu" and len(values) > MOST_CLASSES:
        raise ValueError(
            f"y_train: expected codes 0 to C - 1, or labels of at most {MOST_CLASSES} classes; got {len(values)} "
            f"different whole numbers, {values[0]} to {values[-1]}; values to predict need loss 'mse' and "
            "targets='numbers'; so many classes need labels of text, such as y.astype(str)"
        )
    if len(values) < 2:  # which is said of the label as it is given
        return dict(parts), classes
    codes = {}
    for name, y in parts.items():
        labels = plain_labels(name, y) if isinstance(y, np.ndarray) else y
        codes[name] = encode(name, labels, values) if classes is None else encode_as(name, labels, classes)
    return codes, class_names(values) if classes is None else classes


def _are_labels(y: np.ndarray, classes: tuple[str, ...] | None) -> bool:
    """Return whether these are labels to be numbered, and no codes."""
    if y.dtype.kind in "bUS":
        return True
    if classes is not None or (y.dtype.kind == "f" and not (np.isfinite(y) & (y == np.floor(y))).all()):
        return False
    if y.dtype.kind == "f":
        return True
    return y.dtype.kind in "iu" and (int(y.min()) != 0 or 2 * len(np.unique(y)) <= int(y.max()))
