"""Folds for cross-validation: every row is in the test part of one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from fcnet.data.dataset import Dataset
from fcnet.data.splits import stratified_folds, stratified_split
from fcnet.errors import counted

VALIDATION = 0.1  # the share of the rows beside a fold that choose the best epoch


class Rows(Protocol):
    """Hold N rows of which parts can be made, as of a `LabelledTable`; what is learned comes from a part "train"."""

    @property
    def strata(self) -> np.ndarray:
        """Return what is spread evenly over the parts, (N,)."""

    def dataset(self, parts: Mapping[str, np.ndarray]) -> Dataset:
        """Return the rows of these numbers as parts of a data set."""


@dataclass(frozen=True, eq=False)
class _Arrays:
    """Hold the rows of all parts of a data set of arrays."""

    data: Dataset
    X: np.ndarray
    y: np.ndarray

    @classmethod
    def of(cls, data: Dataset) -> _Arrays:
        if data.sample_weight is not None:
            raise ValueError("sample_weight and cv: expected no weights of samples with cv; leave one of them out")
        X, y = zip(*data.splits().values(), strict=True)
        return cls(data, np.concatenate(X), np.concatenate(y))

    @property
    def strata(self) -> np.ndarray:
        if self.data.targets == "numbers":
            return np.zeros(len(self.y), dtype=np.int64)
        return self.y.argmax(axis=1) if self.y.ndim == 2 else self.y

    def dataset(self, parts: Mapping[str, np.ndarray]) -> Dataset:
        arrays: dict[str, Any] = {"X_test": None, "y_test": None}
        for part, rows in parts.items():
            arrays |= {f"X_{part}": self.X[rows], f"y_{part}": self.y[rows]}
        return replace(self.data, **arrays)


def all_rows(data: Dataset | Rows, seed: int = 0) -> Dataset:
    """Return all rows, of a data set those of all its parts, as a training and a validation part, without a test part.

    Raises ValueError for too few rows.
    """
    rows = _Arrays.of(data) if isinstance(data, Dataset) else data
    return rows.dataset(_beside(rows.strata, np.arange(len(rows.strata)), seed))


def folds(data: Dataset | Rows, count: int, seed: int = 0) -> Iterator[Dataset]:
    """Return data sets of all rows, one after the other, each with another share of them as its test part.

    The classes are spread evenly; a class of one row is never in a test part. What becomes of a table's columns is
    learned from each fold's training rows anew; of a data set it was learned before.

    Raises:
        ValueError: fewer than 2 folds, or more than there are rows for.
    """
    rows = _Arrays.of(data) if isinstance(data, Dataset) else data
    strata = rows.strata
    tests = stratified_folds(strata, count, seed)
    if count < 2 or min(map(len, tests)) == 0:
        raise ValueError(
            f"cv: expected 2 or more folds, and a row for each; got {count} with {counted(len(strata), 'row')}; "
            "give another number"
        )
    every = np.arange(len(strata))
    return (rows.dataset({**_beside(strata, np.setdiff1d(every, test), seed), "test": test}) for test in tests)


def _beside(strata: np.ndarray, rows: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Return the rows that are trained on, and those that choose the best epoch."""
    train, val = (rows[part] for part in stratified_split(strata[rows], [VALIDATION], seed))
    return {"train": train, "val": val}
