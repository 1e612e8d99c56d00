"""Folds for cross-validation: every row is in the test part of one of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from fcnet.data.dataset import Dataset
from fcnet.data.splits import stratified_folds, stratified_split
from fcnet.errors import counted

VALIDATION = 0.1  # the share of the rows beside a fold that choose the best epoch


def all_rows(data: Dataset, seed: int = 0) -> Dataset:
    """Return the rows of all parts of a data set as a training and a validation part, without a test part."""
    X, y = _together(data)
    return _parts(data, X, y, np.arange(len(y)), None, seed)


def check_folds(data: Dataset, count: int) -> None:
    """There are 2 folds or more, and a row of a class with several for each. Raises ValueError."""
    strata = _strata(data, np.concatenate([y for _, y in data.splits().values()]))
    if count < 2 or min(map(len, stratified_folds(strata, count))) == 0:
        raise ValueError(
            f"cv: expected 2 or more folds, and a row for each; got {count} with {counted(len(strata), 'row')}; "
            "give another number"
        )


def folds(data: Dataset, count: int, seed: int = 0) -> Iterator[Dataset]:
    """Give data sets of the rows of all parts, each with another share of them as its test part.

    The classes are spread evenly; a class of one row is never in a test part.

    Raises:
        ValueError: fewer than 2 folds, or more than there are rows for.
    """
    X, y = _together(data)
    check_folds(data, count)
    tests = stratified_folds(_strata(data, y), count, seed)
    for rows in tests:
        yield _parts(data, X, y, np.setdiff1d(np.arange(len(y)), rows), rows, seed)


def _together(data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    if data.sample_weight is not None:
        raise ValueError("sample_weight and cv: expected no weights of samples with cv; leave one of them out")
    parts = data.splits().values()
    return np.concatenate([X for X, _ in parts]), np.concatenate([y for _, y in parts])


def _strata(data: Dataset, y: np.ndarray) -> np.ndarray:
    """Return what is spread evenly: codes; numbers count as one class."""
    if data.targets == "numbers":
        return np.zeros(len(y), dtype=np.int64)
    return y.argmax(axis=1) if y.ndim == 2 else y


def _parts(
    data: Dataset, X: np.ndarray, y: np.ndarray, rows: np.ndarray, test: np.ndarray | None, seed: int
) -> Dataset:
    train, val = (rows[part] for part in stratified_split(_strata(data, y)[rows], [VALIDATION], seed))
    return replace(
        data,
        X_train=X[train],
        y_train=y[train],
        X_val=X[val],
        y_val=y[val],
        X_test=None if test is None else X[test],
        y_test=None if test is None else y[test],
    )
