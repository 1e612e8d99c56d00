"""Weights of classes: as scikit-learn's, and as repeated rows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import fcnet
from fcnet.training.weights import class_weights, sample_weights
from tests.small import blobs, net, solver
from tests.tolerances import assert_close

Y = np.array([0, 0, 0, 0, 0, 2, 2, 2])  # class 1 has no sample


def test_balanced_is_what_scikit_learn_gives():
    of = pytest.importorskip("sklearn.utils.class_weight").compute_class_weight
    found = class_weights("balanced", Y, 3)
    assert_close(found[[0, 2]], of("balanced", classes=np.array([0, 2]), y=Y), "float64", "elementwise")
    assert np.bincount(Y, found[Y]).tolist() == pytest.approx([4, 0, 4])
    repeated = class_weights("balanced", np.repeat(Y, 2 + Y), 3)
    assert_close(class_weights("balanced", Y, 3, sample_weight=2.0 + Y), repeated, "float64", "elementwise")


def test_classes_are_named_by_their_names_before_their_codes():
    assert class_weights({"b": 3, 0: 2}, Y, 3, ["a", "b", "c"]).tolist() == [2, 3, 1]
    assert class_weights({1: 3, "2": 2}, Y, 2, ["1", "2"]).tolist() == [3, 2]
    for given, name in (({"d": 1}, "d"), ({3: 1}, 3), ({True: 1}, True), ({-1: 1}, -1)):
        with pytest.raises(ValueError, match=f"class_weight: expected one of a, b, c; got {name!r}"):
            class_weights(given, Y, 3, ["a", "b", "c"])
    with pytest.raises(ValueError, match="class_weight: expected 'balanced' or weights by class"):
        class_weights("equal", Y, 3)
    with pytest.raises(ValueError, match="class_weight: expected 0 or more, got -1"):
        class_weights({0: -1}, Y, 3)


def test_a_weight_of_2_is_a_row_twice(backend):
    """One step on all rows; with weights the sum is divided by N, so the rate makes up for the count."""
    data, weights = blobs(n=12), {0: 1.0, 1: 0.0, 2: 2.0}
    each = np.array([weights[code] for code in data.y_train.tolist()])
    rows = np.repeat(np.arange(12), each.astype(int))
    twice = dataclasses.replace(data, X_train=data.X_train[rows], y_train=data.y_train[rows])
    how = {"batch_size": 50, "net_options": {"dtype": "float64"}, "preprocess": "none", "update_rule": "sgd"}
    one = solver(data, backend, class_weight=weights, optim_config={"learning_rate": 0.1 * 12 / len(rows)}, **how)
    other = solver(twice, backend, optim_config={"learning_rate": 0.1}, **how)
    for each_solver in (one, other):
        each_solver.step()
    flats = [backend.to_numpy(each_solver.model.params.flat) for each_solver in (one, other)]
    assert_close(*flats, "float64", "gemm")


def test_they_multiply_the_weights_of_samples_and_suit_labels():
    data = dataclasses.replace(blobs(n=6), sample_weight=np.arange(6.0))
    assert sample_weights(data, net(data).objective, {2: 10}).tolist() == [0, 1, 20, 3, 4, 50]
    X = np.zeros((4, 2))
    y = np.array([1.0, 0, 0, 0])
    numbers = fcnet.data.Dataset(X, y, X, y, targets="numbers")
    balanced = sample_weights(numbers, net(numbers, loss="bce").objective, "balanced")
    assert balanced.tolist() == pytest.approx([2, 2 / 3, 2 / 3, 2 / 3])
    with pytest.raises(ValueError, match=r"class_weight and loss: expected one class for each sample .* loss 'mse'"):
        solver(numbers, net_options={"loss": "mse"}, class_weight="balanced")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"class_weight": {0: 0, 1: 0, 2: 0}}, "a weight above 0 for a class of the training samples"),
        ({"class_weight": {0: 1e300}}, r"weights that float32 can hold, .*, got 1e.300 as the largest"),
        ({"scale": 1e-300}, r"sample_weight: .* got 1e-300 as the largest; divide them by their mean"),
    ],
)
def test_weights_that_come_to_nothing_are_refused(how, message):
    data = blobs(n=60)
    if "scale" in how:
        data = dataclasses.replace(data, sample_weight=np.full(len(data.X_train), how["scale"]))
        how = {}
    with pytest.raises(ValueError, match=message):
        fcnet.Solver(net(data), data, **how)


def test_they_are_options_of_the_command_line():
    assert solver(blobs(), class_weight="balanced").options()["class-weight"] == "balanced"
    assert solver(blobs(), class_weight={0: 2, "1": 0.5}).options()["class-weight"] == "0=2,1=0.5"
