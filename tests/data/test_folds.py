"""Folds: every row is tested once, classes are spread evenly, and what cannot be is said."""

import dataclasses

import numpy as np
import pytest

from fcnet.data import Dataset
from fcnet.data.folds import all_rows, folds
from fcnet.data.loading import load_rows
from fcnet.data.table import TableChoices
from tests.small import blobs


def numbered(n=40, targets="classes"):
    """Return a data set whose inputs are the numbers of its rows."""
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


def test_what_becomes_of_columns_is_learned_from_each_folds_training_rows():
    size = np.where(np.arange(40) % 8 == 0, np.nan, np.arange(40.0) ** 2)
    kind = [f"k{at // 2}" for at in range(40)]  # of each level two rows: some folds keep one
    table = {"size": size, "kind": kind, "y": np.arange(40.0)}
    rows = load_rows(table, None, "y", 0, "numbers", TableChoices())
    fills, levels = set(), set()
    for fold in folds(rows, 4):
        trained = fold.y_train.astype(int)
        number, category = fold.plan.columns
        assert number.fill == np.nanmedian(size[trained])
        counts = {level: sum(kind[at] == level for at in trained) for level in set(kind)}
        assert set(category.levels) == {level for level, count in counts.items() if count == 2}
        assert fold.X_test.shape == (10, len(fold.plan.features))
        fills.add(number.fill)
        levels.add(category.levels)
    assert len(fills) > 1
    assert len(levels) == 4
    assert all_rows(rows).plan.columns[0].fill == np.nanmedian(size[all_rows(rows).y_train.astype(int)])
