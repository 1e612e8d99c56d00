"""Spirals: shapes, radii, determinism, and that arms do not coincide."""

import numpy as np
import pytest

import fcnet.data
from fcnet.data import spirals

GOLDEN = [
    [0.0, 0.0],
    [0.3638037322247346, -0.34299685773976646],
    [-0.8867578245836542, -0.4622343134598137],
    [-0.0, -0.0],
    [-0.4858670538680154, 0.11803900188333954],
    [0.7368091503263965, 0.6761007883409792],
]


def test_shapes_and_order():
    X, y = spirals(points=50, classes=4, seed=3)
    assert X.shape == (200, 2)
    assert X.dtype == np.float64
    assert y.dtype == np.int64
    np.testing.assert_array_equal(y, np.repeat(np.arange(4), 50))


def test_radius_grows_from_0_to_1_on_each_arm():
    X, _ = spirals(points=11, classes=3, seed=0)
    np.testing.assert_allclose(np.hypot(*X.T), np.tile(np.linspace(0, 1, 11), 3), atol=1e-15)


def test_without_noise_arms_turn_by_four_radians_from_equal_angles():
    X, y = spirals(points=100, classes=3, noise=0)
    turn = np.unwrap(np.arctan2(X[1:100, 0], X[1:100, 1]))
    assert turn[-1] == pytest.approx(4)
    ends = X[99::100]
    np.testing.assert_allclose(ends.sum(axis=0), 0, atol=1e-12)  # three equal angles cancel
    assert len(y) == 300


def test_seed_decides_and_nothing_else():
    np.testing.assert_array_equal(spirals(seed=1)[0], spirals(seed=1)[0])
    assert not np.array_equal(spirals(seed=1)[0], spirals(seed=2)[0])
    np.testing.assert_allclose(spirals(points=3, classes=2, seed=0)[0], GOLDEN, atol=1e-12)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"points": 1}, "points, classes"),
        ({"classes": 1}, "points, classes"),
        ({"noise": -1}, "noise"),
        ({"noise": float("nan")}, "noise"),
        ({"seed": -1}, "seed"),
    ],
)
def test_errors(bad, words):
    with pytest.raises(ValueError, match=f"^{words}: expected"):
        spirals(**bad)


def test_load_spirals():
    ds = fcnet.data.load("spirals")
    assert ds.summary() == "spirals: 480 train, 60 val, 60 test, 2 features, 3 classes"
    assert ds.preprocess == "none"
    assert np.bincount(ds.y_test).tolist() == [20, 20, 20]
    other = fcnet.data.load("spirals", split_seed=1)
    assert not np.array_equal(ds.X_val, other.X_val)
