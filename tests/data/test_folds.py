"""Folds: every row is tested once, classes are spread evenly, and what cannot be is said."""

import dataclasses

import numpy as np
import pytest

from fcnet.data import Dataset
from fcnet.data.folds import all_rows, folds
from tests.small import blobs


def numbered(n=40, targets="classes"):
    """A data set whose inputs are the numbers of its rows."""
    X = np.arange(n, dtype=float)[:, None]
    y = np.r_[[0] * (n - 9), [1] * 8, 2] if targets == "classes" else X[:, 0]
    return Dataset(X[10:], y[10:], X[:5], y[:5], X[5:10], y[5:10], targets=targets)


def rows(data, *parts):
    return sorted(int(x) for part in parts for x in data.splits()[part][0][:, 0])


@pytest.mark.parametrize("targets", ["classes", "numbers"])
def test_every_row_is_tested_once(targets):
    data = numbered(targets=targets)
    tested = []
    for fold in folds(data, 4):
        assert rows(fold, "train", "val", "test") == list(range(40))
        tested += rows(fold, "test")
        for X, y in fold.splits().values():
            assert len(X) == len(y)
    lone = [39] if targets == "classes" else []  # the class of one row is trained on
    assert sorted(tested + lone) == list(range(40))


def test_classes_are_spread_evenly_and_targets_stay_with_their_rows():
    data = numbered()
    for fold in folds(data, 4):
        assert np.bincount(fold.y_test, minlength=3).tolist()[1:] == [2, 0]
        for part in ("train", "val", "test"):
            X, y = fold.splits()[part]
            np.testing.assert_array_equal(y, (X[:, 0] >= 31).astype(int) + (X[:, 0] == 39))
        assert 2 in fold.y_train
    assert [rows(one, "test") for one in folds(data, 4)] == [rows(one, "test") for one in folds(data, 4)]
    assert [rows(one, "test") for one in folds(data, 4)] != [rows(one, "test") for one in folds(data, 4, seed=1)]


def test_all_rows_are_those_of_every_part():
    whole = all_rows(numbered())
    assert rows(whole, "train", "val") == list(range(40))
    assert (list(whole.splits()), len(whole.X_val), whole.name) == (["train", "val"], 4, "data")


@pytest.mark.parametrize("count", [0, 1, 300])
def test_folds_that_cannot_be_are_refused(count):
    with pytest.raises(ValueError, match=f"cv: expected 2 or more folds, and a row for each; got {count} with 20"):
        list(folds(blobs(), count))
    weighted = dataclasses.replace(blobs(), sample_weight=np.ones(130))
    with pytest.raises(ValueError, match="sample_weight and cv: expected no weights"):
        list(folds(weighted, 3))
