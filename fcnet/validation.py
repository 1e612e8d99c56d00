"""Validation of a user's arrays: once, on the host, before anything runs.

Device arrays are checked for shape and dtype only: looking at their values would wait for the device.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np

from fcnet.errors import counted, unknown

Array = Any
SMALL = 1000  # elements of which an array of truths costs less than asking NumPy not to warn
FEW = 50  # labels that Python compares faster than NumPy

# For targets that the loss 'bce' does not take.
OTHER_LOSSES = "for other classes use loss 'softmax', for other numbers 'mse'"
# Each part by itself would give a class another number in each.
RENUMBER = (
    "number the classes of all parts together: codes = np.unique(np.concatenate([y_train, y_val]), "
    "return_inverse=True)[1]"
)


def check_input(name: str, X: Array, input_dim: int, dtype: Any) -> None:
    """Check that X is a real array (N, d1, ..., dk), N >= 1, d1 * ... * dk = input_dim, finite also in `dtype`.

    Raises:
        TypeError, ValueError: as the message says.
    """
    if not hasattr(X, "dtype") or not hasattr(X, "shape"):
        raise TypeError(f"{name}: expected an array, got {type(X).__name__}; use numpy.asarray({name})")
    if isinstance(X, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected an array without mask, got a masked array; use {name}.filled(...)")
    if X.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected real numbers, got dtype {X.dtype}; {to_numbers(name, X)}")
    if X.ndim < 2:
        raise ValueError(f"{name}: expected (N, {input_dim}), got shape {X.shape}; a single sample is {name}[None, :]")
    if X.shape[0] == 0:
        raise ValueError(f"{name}: expected at least one sample, got shape {X.shape}")
    if prod(X.shape[1:]) != input_dim:
        raise ValueError(
            f"{name}: expected {counted(input_dim, 'feature')} per sample, got {prod(X.shape[1:])} (shape {X.shape}); "
            "give the features that the network was made for"
        )
    check_fits(name, X, dtype)


def check_fits(name: str, X: Array, dtype: Any) -> None:
    """Check that an array is finite, in `dtype` too. Raises ValueError."""
    check_finite(name, X)
    if isinstance(X, np.ndarray) and X.dtype.kind == "f" and X.dtype.itemsize > np.dtype(dtype).itemsize:
        largest = max(-float(X.min()), float(X.max()))
        if largest > float(np.finfo(dtype).max):
            raise ValueError(
                f"{name}: expected values that {dtype} can hold, got one of size {largest:g}; "
                "scale the data or use dtype='float64'"
            )


def to_numbers(name: str, array: Array) -> str:
    """Return what makes real numbers of an array of another dtype, for a message."""
    if array.dtype.kind == "c":
        return f"give {name}.real and {name}.imag as features of their own"
    if array.dtype.kind in "mM":
        return f"use {name}.astype('int64')"
    return f"encode text as numbers, truth values as 0 and 1, then use {name}.astype(float)"


def to_labels(name: str, y: Array) -> str:
    """Return what makes integer labels of an array of another dtype, for a message."""
    if y.dtype.kind == "b" or (
        y.dtype.kind == "f" and isinstance(y, np.ndarray) and ((abs(y) < 2.0**63) & (y == np.floor(y))).all()
    ):
        return f"use {name}.astype(int)"
    if y.dtype.kind == "f":
        return "labels are whole numbers; numbers to predict need loss 'mse' or 'bce' and targets='numbers'"
    return RENUMBER


def check_finite(name: str, X: Array) -> None:
    """Check that a host array has no NaN or infinity. Raises ValueError with their number and the first place."""
    if not isinstance(X, np.ndarray) or X.dtype.kind != "f":
        return
    if X.size <= SMALL and np.isfinite(X).all():
        return
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(X.sum()):  # one pass, nothing allocated; a sum can overflow without any bad value
            return
    bad = ~np.isfinite(X)
    count = int(bad.sum())
    if count:
        where = tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), X.shape))
        raise ValueError(
            f"{name}: expected finite numbers, got {count} NaN or infinite, the first at {list(where)}; "
            "remove or impute these samples"
        )


def check_labels(name: str, y: Array, num_classes: int, count: int) -> None:
    """Check that y is `count` integer labels in 0..num_classes-1, or one-hot rows (count, num_classes).

    Raises:
        TypeError, ValueError: as the message says.
    """
    if not hasattr(y, "dtype") or not hasattr(y, "shape"):
        raise TypeError(f"{name}: expected an array, got {type(y).__name__}; use numpy.asarray({name})")
    if y.shape not in ((count,), (count, num_classes)):
        raise ValueError(
            f"{name}: expected {counted(count, 'label')}, shape ({count},) or one-hot ({count}, {num_classes}), "
            f"got shape {y.shape}"
        )
    if y.ndim == 2:
        if y.dtype.kind not in "fiub":
            raise TypeError(f"{name}: expected one-hot rows of numbers, got dtype {y.dtype}; {to_numbers(name, y)}")
        check_finite(name, y)
        if isinstance(y, np.ndarray) and (y.min() < 0 or abs(y.sum(axis=1) - 1).max() > 1e-3):
            raise ValueError(f"{name}: expected one-hot rows or probabilities that sum to 1, got other rows")
        return
    if y.dtype.kind not in "iub":
        raise TypeError(f"{name}: expected integer labels, got dtype {y.dtype}; {to_labels(name, y)}")
    if isinstance(y, np.ndarray) and not labels_within(y, num_classes):
        bad = int(np.argmax((y < 0) | (y >= num_classes)))
        raise ValueError(
            f"{name}: expected labels 0 to {num_classes - 1}, got {y[bad]} at {bad}; "
            "num_classes must be larger, or the labels renumbered"
        )


def labels_within(y: np.ndarray, num_classes: int) -> bool:
    """Return whether integer labels on the host are 0 to num_classes - 1."""
    if y.size > FEW:
        return bool(y.min() >= 0 and y.max() < num_classes)
    labels = y.tolist()
    return min(labels) >= 0 and max(labels) < num_classes


def check_numbers(name: str, y: Array, outputs: int, count: int, dtype: Any, *, probabilities: bool) -> None:
    """Check that y is `count` rows of numbers, (count, outputs), or (count,) for one output; finite also in `dtype`.

    `probabilities` says that they must lie in 0..1.

    Raises:
        TypeError, ValueError: as the message says.
    """
    if not hasattr(y, "dtype") or not hasattr(y, "shape"):
        raise TypeError(f"{name}: expected an array, got {type(y).__name__}; use numpy.asarray({name})")
    if y.shape != (count, outputs) and (outputs > 1 or y.shape != (count,)):
        also = f", or ({count},)" if outputs == 1 else ""
        raise ValueError(f"{name}: expected numbers of shape ({count}, {outputs}){also}, got shape {y.shape}")
    if y.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected numbers, got dtype {y.dtype}; {to_numbers(name, y)}")
    check_fits(name, y, dtype)
    if probabilities and isinstance(y, np.ndarray) and not (y.min() >= 0 and y.max() <= 1):
        bad = int(np.argmax(((y < 0) | (y > 1)).ravel()))
        raise ValueError(
            f"{name}: expected labels of 0 and 1, or probabilities between, got {y.ravel()[bad]}; {OTHER_LOSSES}"
        )


def check_weights(name: str, weights: Array, count: int, dtype: Any) -> None:
    """Check `count` weights of samples, (count,): finite, not negative, not lost in `dtype` unless all are 0.

    Raises:
        TypeError, ValueError: as the message says.
    """
    if not hasattr(weights, "dtype") or getattr(weights, "shape", None) != (count,) or weights.dtype.kind not in "fiub":
        got = f"{weights.dtype} {weights.shape}" if hasattr(weights, "dtype") else type(weights).__name__
        raise ValueError(f"{name}: expected an array of {counted(count, 'number')}, one for each sample, got {got}")
    check_finite(name, weights)
    if isinstance(weights, np.ndarray) and weights.min() < 0:
        raise ValueError(f"{name}: expected weights of 0 or more, got {weights.min()}")
    if isinstance(weights, np.ndarray):
        largest, low, high = float(weights.max()), float(np.finfo(dtype).tiny), float(np.finfo(dtype).max)
        if largest and not low <= largest <= high:
            raise ValueError(
                f"{name}: expected weights that {dtype} can hold, {low:.2g} to {high:.2g}, got {largest:g} "
                "as the largest; divide them by their mean"
            )


def positive_int(name: str, value: object) -> int:
    """Return an integer of 1 or more. Raises TypeError or ValueError."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}: expected an integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{name}: expected 1 or more, got {value}")
    return int(value)


def finite_real(name: str, value: object) -> float:
    """Return a finite number. Raises TypeError or ValueError."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"{name}: expected a number that fits a float, got one that is too large") from None
    if not np.isfinite(number):
        raise ValueError(f"{name}: expected a finite number, got {value}")
    return number


def nonnegative_real(name: str, value: object, what: str = "0 or more") -> float:
    """Return a finite number of 0 or more; `what` says it in the message. Raises TypeError or ValueError."""
    number = finite_real(name, value)
    if number < 0:
        raise ValueError(f"{name}: expected {what}, got {value}")
    return number


def step_number(name: str, value: object) -> int:
    """Return a training step, 0 to 2**63 - 1. Raises TypeError or ValueError."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}: expected an integer, got {value!r}")
    number = int(value)
    if not 0 <= number < 2**63:
        raise ValueError(f"{name}: expected 0 to 2**63 - 1, got {value}")
    return number


def one_of(name: str, value: object, valid: Iterable[str]) -> None:
    """Check that a string is among `valid`; raise ValueError with the nearest one."""
    names = list(valid)
    if not isinstance(value, str) or value not in names:
        raise unknown(name, value, names)
