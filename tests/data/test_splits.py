"""Stratified splits: proportions, golden values, small classes, and no second copy of the data."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcnet.data import checks, splits, stratified_split
from fcnet.data.splits import hold_out

Y = np.repeat([0, 1, 2], [10, 20, 30])
GOLDEN_VAL = [8, 24, 25, 35, 45, 46]
GOLDEN_TEST = [3, 16, 17, 30, 34, 52]


def test_golden_rows():
    train, val, test = stratified_split(Y, seed=0)
    assert val.tolist() == GOLDEN_VAL
    assert test.tolist() == GOLDEN_TEST
    assert len(train) == 48


def test_no_global_generator_takes_part():
    before = np.random.get_state()
    first = stratified_split(Y, seed=5)
    for a, b in zip(before, np.random.get_state(), strict=True):
        np.testing.assert_array_equal(a, b)
    np.random.seed(2)
    for a, b in zip(first, stratified_split(Y, seed=5), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[1], stratified_split(Y, seed=6)[1])


def test_proportions_are_exact_where_they_can_be():
    for part, share in zip(stratified_split(Y), (0.8, 0.1, 0.1), strict=True):
        np.testing.assert_allclose(np.bincount(Y[part]), np.array([10, 20, 30]) * share)


def test_digits_sizes():
    y = np.arange(1797) % 10
    assert [len(part) for part in stratified_split(y)] == [1437, 180, 180]


@given(
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=12),
    seed=st.integers(0, 2**64 - 1),
    parts=st.integers(1, 3),
)
def test_any_split_is_a_partition_in_proportion(sizes, seed, parts):
    y = np.repeat(np.arange(len(sizes)), sizes)
    count = max(1, int(len(y) * 0.1 + 0.5))
    if len(y) - len(sizes) < parts * count:
        with pytest.raises(ValueError, match=r"y: expected at least .* samples: one for training of each of"):
            stratified_split(y, [0.1] * parts, seed)
        return
    result = stratified_split(y, [0.1] * parts, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate(result)), np.arange(len(y)))
    assert (np.bincount(y[result[0]], minlength=len(sizes)) >= 1).all()
    for held in result[1:]:
        assert len(held) == count
        assert (np.diff(held) > 0).all()


def test_a_class_of_one_stays_in_training():
    y = np.array([0] * 20 + [1] * 20 + [2])
    train, val, test = stratified_split(y)
    assert 40 in train
    assert len(val) == len(test) == 4


def test_small_classes_take_turns():
    # 20 classes of 5: each part holds 10 rows, half a row a class; no class should give to both parts.
    y = np.repeat(np.arange(20), 5)
    _, val, test = stratified_split(y)
    assert sorted(y[val].tolist() + y[test].tolist()) == list(range(20))


def test_labels_may_be_text():
    train, _, _ = stratified_split(np.array(["a", "b"] * 10))
    assert len(train) == 16


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seed_out_of_range(seed):
    with pytest.raises(ValueError, match="split_seed: expected 0 <= split_seed"):
        stratified_split(Y, seed=seed)


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.0,), (-0.1,)])
def test_fractions_out_of_range(fractions):
    with pytest.raises(ValueError, match="fractions: expected positive numbers"):
        stratified_split(Y, fractions)


def test_hold_out_gives_the_right_rows_and_reuses_the_memory(monkeypatch):
    monkeypatch.setattr(checks, "CHUNK_ELEMENTS", 16)  # many chunks of 8 rows
    X = np.stack([np.arange(60), np.arange(60) * 2], axis=1)
    train, val, test = stratified_split(Y, seed=3)
    expected = X.copy()
    parts = hold_out(X, Y, ("val", "test"), 3)
    for part, rows in (("train", train), ("val", val), ("test", test)):
        np.testing.assert_array_equal(parts[f"X_{part}"], expected[rows])
        np.testing.assert_array_equal(parts[f"y_{part}"], Y[rows])
    assert np.shares_memory(parts["X_train"], X)
    assert not np.shares_memory(parts["X_val"], X)


def test_hold_out_leaves_read_only_data_alone():
    X = np.arange(120).reshape(60, 2)
    X.flags.writeable = False
    parts = hold_out(X, Y, ("val",), 0)
    assert not np.shares_memory(parts["X_train"], X)
    np.testing.assert_array_equal(parts["X_train"], X[stratified_split(Y, [splits.HELD_OUT])[0]])


@pytest.mark.parametrize("classes", [2, 9, 20, 100])
def test_the_number_of_samples_asked_for_is_the_smallest_that_will_do(classes):
    with pytest.raises(ValueError, match="expected at least") as caught:
        stratified_split(np.arange(classes))
    enough = int(str(caught.value).split()[4])
    stratified_split(np.arange(enough) % classes)
    with pytest.raises(ValueError, match=f"at least {enough} samples"):
        stratified_split(np.arange(enough - 1) % classes)
