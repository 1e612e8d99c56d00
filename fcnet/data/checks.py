"""What arrays must fulfil before anything is trained on them: one line for each thing that can be wrong."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator

import numpy as np

from fcnet.validation import RENUMBER, to_labels, to_numbers

CHUNK_ELEMENTS = 1 << 20  # rows are visited in chunks of about this many elements: 8 MiB in float64


def row_chunks(X: np.ndarray) -> Iterator[slice]:
    """Yield slices over the first axis of X, each of about CHUNK_ELEMENTS elements (at least one row)."""
    rows = max(1, CHUNK_ELEMENTS // max(1, math.prod(X.shape[1:])))
    for start in range(0, X.shape[0], rows):
        yield slice(start, min(start + rows, X.shape[0]))


def check_array(name: str, value: object) -> np.ndarray:
    """Return `value` if it is a plain NumPy array; else raise TypeError, which says how to convert it."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{name}: expected a NumPy array without a mask; got a masked array; fill it: {name}.filled(...)"
        )
    if isinstance(value, np.ndarray) and not isinstance(value, np.matrix):
        return value
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    if value is None:
        remedy = "hold part of the training data out: fcnet.data.stratified_split(y)"
    elif hasattr(value, "__cuda_array_interface__"):
        remedy = f"data stay on the host until a Solver moves them: use {name}.get()"
    else:
        remedy = f"use np.asarray({name})"
    raise TypeError(f"{name}: expected a NumPy array; got {kind}; {remedy}")


def check_names(name: str, value: object) -> tuple[str, ...] | None:
    """Return `value`, None or different texts, as a tuple of them. Raises TypeError or ValueError."""
    if value is None:
        return None
    if not isinstance(value, tuple | list | np.ndarray) or not all(isinstance(entry, str) for entry in value):
        raise TypeError(f"{name}: expected a tuple of texts; got {str(value)[:60]!r}; give {name}=('a', 'b', ...)")
    names = tuple(str(entry) for entry in value)
    if len(set(names)) < len(names):
        twice = next(entry for at, entry in enumerate(names) if entry in names[:at])
        raise ValueError(f"{name}: expected different names; got {twice!r} twice; rename one")
    return names


def check_shape(name: str, value: object) -> tuple[int, ...] | None:
    """Return `value`, None or integers of 1 or more, as a tuple of them. Raises TypeError or ValueError."""
    if value is None:
        return None
    remedy = f"give {name}=(channels, height, width)"
    if not isinstance(value, tuple | list) or not all(
        isinstance(size, numbers.Integral) and not isinstance(size, bool) for size in value
    ):
        raise TypeError(f"{name}: expected a tuple of integers; got {value!r}; {remedy}")
    if min(value, default=0) < 1:
        raise ValueError(f"{name}: expected integers of 1 or more; got {value!r}; {remedy}")
    return tuple(int(size) for size in value)


def check_features(name: str, X: np.ndarray) -> int:
    """Check X of shape (N, d1, ..., dk), k >= 1: numeric, not empty, finite. Returns D = d1 * ... * dk."""
    if X.dtype.kind not in "buif":
        raise TypeError(f"{name}: expected numbers; got dtype {X.dtype}; {to_numbers(name, X)}")
    if X.ndim < 2:
        raise ValueError(
            f"{name}: expected shape (N, D) or (N, d1, ..., dk); got {X.shape}; one feature is {name}.reshape(-1, 1)"
        )
    if X.shape[0] == 0:
        remedy = "leave the part out" if name == "X_test" else "hold some out: fcnet.data.stratified_split(y)"
        raise ValueError(f"{name}: expected at least one sample; got shape {X.shape}; give samples, or {remedy}")
    if X.size == 0:
        raise ValueError(f"{name}: expected at least one feature; got shape {X.shape}; give (N, D) with D >= 1")
    check_finite(name, X)
    return math.prod(X.shape[1:])


def check_finite(name: str, X: np.ndarray) -> None:
    """Raise ValueError with the number of NaN and infinite values in X and the place of the first, if there is one.

    A sum is finite only if every term is, so clean data cost one pass and no memory; only if the sum is not
    finite (which large finite values can cause too) are the elements looked at, chunk by chunk.
    """
    if X.dtype.kind != "f":
        return
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(X.sum()):
            return
    count, first = 0, None
    for rows in row_chunks(X):
        bad = ~np.isfinite(X[rows])
        count += int(np.count_nonzero(bad))
        if first is None and bad.any():
            place = np.argwhere(bad)[0]
            first = (rows.start + int(place[0]), *(int(i) for i in place[1:]))
    if first is not None:
        raise ValueError(
            f"{name}: expected finite numbers; got {count} NaN or infinite, the first {X[first]} at {first}; "
            "remove those samples or fill the values in"
        )


def check_labels(name: str, y: np.ndarray) -> np.ndarray:
    """Check labels y, codes (N,) or one-hot (N, C); returns codes (N,): y itself if it holds them."""
    if y.ndim == 2 and y.shape[1] > 1 and y.dtype.kind in "buif":
        return _one_hot_codes(name, y)
    if y.dtype.kind not in "iub":
        raise TypeError(f"{name}: expected integer labels; got dtype {y.dtype}; {to_labels(name, y)}")
    if y.ndim != 1:
        remedy = f"; use {name}.ravel()" if y.ndim and y.size == y.shape[0] > 0 else "; give one label for each sample"
        raise ValueError(f"{name}: expected shape (N,) or one-hot (N, C); got {y.shape}{remedy}")
    if y.size and y.min() < 0:
        at = int(np.argmax(y < 0))
        raise ValueError(f"{name}: expected labels 0, 1, ...; got {y[at]} at {at}; {RENUMBER}")
    return y


def check_numbers(name: str, y: np.ndarray) -> np.ndarray:
    """Check targets that are numbers: (N,) or (N, C), finite; returns them. Raises TypeError or ValueError."""
    if y.dtype.kind not in "buif":
        raise TypeError(f"{name}: expected numbers; got dtype {y.dtype}; {to_numbers(name, y)}")
    if y.ndim not in (1, 2) or 0 in y.shape[1:]:
        raise ValueError(f"{name}: expected numbers of shape (N,) or (N, C); got {y.shape}")
    check_finite(name, y)
    return y


def check_sample_weight(name: str, weights: np.ndarray, count: int) -> None:
    """Check `count` weights: finite, 0 or more, one above 0. Raises TypeError or ValueError."""
    check_array(name, weights)
    if weights.dtype.kind not in "buif":
        raise TypeError(f"{name}: expected numbers; got dtype {weights.dtype}; {to_numbers(name, weights)}")
    if weights.shape != (count,):
        raise ValueError(f"{name}: expected {count} numbers, one for each sample of X_train; got {weights.shape}")
    check_finite(name, weights)
    if weights.min() < 0 or not weights.any():
        raise ValueError(f"{name}: expected numbers of 0 or more, not all 0; got {weights.min()} to {weights.max()}")


def _one_hot_codes(name: str, y: np.ndarray) -> np.ndarray:
    codes = np.empty(y.shape[0], dtype=np.int64)
    for rows in row_chunks(y):
        part = y[rows]
        ok = ((part == 0) | (part == 1)).all(axis=1) & (np.count_nonzero(part, axis=1) == 1)
        if not ok.all():
            at = rows.start + int(np.argmin(ok))
            raise ValueError(
                f"{name}: expected one-hot rows (a single 1, else 0); got another row at {at}; give codes of shape (N,)"
            )
        codes[rows] = part.argmax(axis=1)
    return codes
