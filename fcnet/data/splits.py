"""Stratified splits, drawn by a generator of their own: the training seed never changes what is held out."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from fcnet.data.checks import row_chunks
from fcnet.errors import counted

HELD_OUT = 0.1  # the share of the validation part, and of the test part where one has to be made
_PURPOSE = 0x73706C6974  # "split": the second word of the key, so no other use of the same seed shares its numbers


class TooFew(ValueError):
    """Signal too few rows to leave every class one for training; the message names them y."""

    def __init__(self, count: int, classes: int, enough: int) -> None:
        self._counts = count, classes, enough
        of_each = f" of each of {classes} classes" if classes > 1 else ""
        self.needs = (
            f"expected at least {enough} samples: one for training{of_each}, and those held out; got "
            f"{counted(count, 'sample')}"
        )
        super().__init__(f"y: {self.needs}; give more, or make the parts yourself and give X_train, X_val and so on")

    def __reduce__(self) -> tuple[type, tuple[int, ...]]:  # a process of a pool hands its errors over by pickle
        return type(self), self._counts


def stratified_split(
    y: np.ndarray, fractions: Sequence[float] = (HELD_OUT, HELD_OUT), seed: int = 0
) -> list[np.ndarray]:
    """Return the row numbers of the training part, then of one held-out part per fraction; each array ascending.

    y: labels (N,) of any sortable dtype. A held-out part has N * fraction rows (rounded, at least one),
    shared between the classes in proportion by largest remainders; every class keeps at least one row for
    training. The same y, fractions and seed (0 <= seed < 2**64) give the same rows with every NumPy version:
    only the raw Philox stream is used, which NumPy promises to keep, and no Generator method, which it does
    not.

    Raises ValueError if there are too few rows.
    """
    seed = operator.index(seed)
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"split_seed: expected 0 <= split_seed < 2**64; got {seed}")
    if not all(f > 0 for f in fractions) or sum(fractions) >= 1:
        raise ValueError(f"fractions: expected positive numbers with a sum below 1; got {tuple(fractions)}")
    N = len(y)
    _, codes, sizes = np.unique(y, return_inverse=True, return_counts=True)
    counts = [max(1, int(N * fraction + 0.5)) for fraction in fractions]
    if N - len(sizes) < sum(counts):
        enough = N
        while enough - len(sizes) < sum(max(1, int(enough * fraction + 0.5)) for fraction in fractions):
            enough += 1
        raise TooFew(N, len(sizes), enough)
    order = _by_class(codes, seed)
    rank = np.arange(N) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # 0, 1, ... within each class
    taken = np.zeros_like(sizes)
    held_out = []
    for k, count in enumerate(counts):
        # What each class still owes if it gave its exact share to this part and those before.
        owed = sizes * (sum(counts[: k + 1]) / N) - taken
        take = _shares(sizes * count // N, owed, sizes - 1 - taken, count)
        mine = (rank >= np.repeat(taken, sizes)) & (rank < np.repeat(taken + take, sizes))
        held_out.append(np.sort(order[mine]))
        taken += take
    train = np.sort(order[rank >= np.repeat(taken, sizes)])
    return [train, *held_out]


def stratified_folds(y: np.ndarray, count: int, seed: int = 0) -> list[np.ndarray]:
    """Return row numbers of `count` folds, each ascending: rows of every class (N,) dealt out in turn, in random order.

    A class of one row is in none of them, so that the rows beside a fold have every class.
    """
    _, codes, sizes = np.unique(y, return_inverse=True, return_counts=True)
    order = _by_class(codes, seed)
    order = order[sizes[codes[order]] > 1]
    return [np.sort(order[at::count]) for at in range(count)]


def _by_class(codes: np.ndarray, seed: int) -> np.ndarray:
    """Return the rows class by class, each in random order."""
    noise = np.random.Philox(key=np.array([seed, _PURPOSE], dtype=np.uint64)).random_raw(len(codes))
    return np.lexsort((noise, codes))


def _shares(floor: np.ndarray, owed: np.ndarray, room: np.ndarray, count: int) -> np.ndarray:
    """Share `count` rows among the classes: the rounded-down share, then one from each that owes most."""
    take = np.minimum(floor, room)
    while (left := count - int(take.sum())) > 0:
        open_classes = np.flatnonzero(take < room)
        most = np.argsort((take - owed)[open_classes], kind="stable")[:left]
        take[open_classes[most]] += 1
    return take


def split_rows(strata: np.ndarray, parts: Sequence[str], seed: int) -> dict[str, np.ndarray]:
    """Return the row numbers of "train" and of each of `parts`, ascending; raises as `stratified_split`."""
    train, *rest = stratified_split(strata, [HELD_OUT] * len(parts), seed)
    return {"train": train, **dict(zip(parts, rest, strict=True))}


def hold_out(X: np.ndarray, y: np.ndarray, parts: Sequence[str], seed: int, *, stratify: bool = True) -> dict[str, Any]:
    """Split X (N, ...) and codes y (N,) for Dataset: X_train, y_train and X_part, y_part for each of `parts`.

    Without `stratify` y are numbers (N,) or (N, C), and all rows count as one class.
    X is taken over: its memory becomes the training part's, so that a large array is never there twice.
    """
    strata = y if stratify else np.zeros(len(y), dtype=np.int64)
    rows_of = split_rows(strata, parts, seed)
    train = rows_of.pop("train")
    result = {}
    for part, rows in rows_of.items():
        result[f"X_{part}"], result[f"y_{part}"] = X[rows], y[rows]
    result["X_train"], result["y_train"] = _keep_rows(X, train), y[train]
    return result


def _keep_rows(X: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return X[rows] for ascending rows, moved to the front of X's own memory where that can be written."""
    if not (X.flags.writeable and X.flags.c_contiguous):
        return X[rows]
    for chunk in row_chunks(X[: len(rows)]):
        X[chunk] = X[rows[chunk]]  # row i comes from rows[i] >= i: nothing is overwritten before it is read
    return X[: len(rows)]
