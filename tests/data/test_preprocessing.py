"""Preprocessing: each kind against plain formulas in float64, constant features, bounded chunks, apply."""

import math
from fractions import Fraction

import numpy as np
import pytest

from fcnet.data import KINDS, Preprocessing, checks, learn
from fcnet.data.preprocessing import inverse_of

RNG = np.random.default_rng(0)
FLOATS = (RNG.standard_normal((50, 4)) * [1, 10, 0.1, 1000] + [0, 5, -3, 1e6]).astype(np.float32)
PIXELS = RNG.integers(0, 256, (50, 3, 2, 2)).astype(np.uint8)


@pytest.fixture(params=[1 << 20, 30, 1], ids=["one-chunk", "some-rows", "row-by-row"], autouse=True)
def _chunks(request, monkeypatch):
    monkeypatch.setattr(checks, "CHUNK_ELEMENTS", request.param)


def test_none_changes_nothing():
    prep = learn("none", FLOATS)
    np.testing.assert_array_equal(prep.apply(FLOATS, np.float32), FLOATS)
    assert prep.shift.shape == prep.scale.shape == (4,)


def test_scale_maps_bytes_by_255_and_the_rest_to_0_1():
    np.testing.assert_array_equal(learn("scale", PIXELS).scale, np.full(12, 1 / 255))
    np.testing.assert_array_equal(learn("scale", PIXELS).shift, np.zeros(12))
    Z = learn("scale", FLOATS).apply(FLOATS, np.float64)
    assert Z.min() == 0
    assert Z.max() == pytest.approx(1, abs=1e-15)
    # One number for all features: the order between them stays.
    np.testing.assert_array_equal(np.argsort(Z, axis=None), np.argsort(FLOATS, axis=None))


def test_center_subtracts_means_and_divides_by_one_number():
    prep = learn("center", PIXELS)
    np.testing.assert_allclose(prep.shift, PIXELS.reshape(50, 12).mean(axis=0), rtol=1e-14)
    np.testing.assert_array_equal(prep.scale, np.full(12, 1 / 255))
    prep, wide = learn("center", FLOATS), FLOATS.astype(np.float64)
    np.testing.assert_allclose(prep.shift, wide.mean(axis=0), rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(prep.scale, 1 / np.sqrt(wide.var(axis=0).mean()), rtol=1e-12)
    assert prep.apply(FLOATS, np.float64).std() == pytest.approx(1, rel=1e-12)


def test_standardize_gives_mean_0_and_std_1_also_far_from_zero():
    Z = learn("standardize", FLOATS).apply(FLOATS, np.float64)
    np.testing.assert_allclose(Z.mean(axis=0), 0, atol=1e-8)
    np.testing.assert_allclose(Z.std(axis=0), 1, rtol=1e-9)


def test_robust_by_hand():
    X = np.array([[0.0, 0], [1, 0], [2, 0], [3, 0], [104, 8]])  # of the second, quartiles and median are the same
    prep = learn("robust", X)
    np.testing.assert_array_equal(prep.shift, [2, 0])
    np.testing.assert_array_equal(prep.scale, [1 / 2, 1 / 4])
    z = np.array([[-1.0, 0], [-0.5, 0], [0, 0], [0.5, 0], [51, 2]])
    np.testing.assert_allclose(prep.apply(X, np.float64), z / np.sqrt(1 + z * z / 9), rtol=1e-15)


def test_the_smooth_clip_by_hand():
    z = np.array([[0.0, 1, -1, 3, -4, 4, 1e200]])  # of 4: 4 / sqrt(1 + 16 / 9) = 4 / (5 / 3)
    expected = [0, math.sqrt(0.9), -math.sqrt(0.9), 3 / math.sqrt(2), -2.4, 2.4, 3]
    limited = Preprocessing("robust", np.zeros(7), np.ones(7), 3.0).apply(z, np.float64)
    np.testing.assert_allclose(limited, [expected], rtol=1e-15)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1e9, 1e300, 2**60 + 1])
def test_a_constant_feature_is_only_centred(value):
    X = np.full((1000, 2), value)  # int64 for the last one
    X[:, 1] = np.arange(1000)
    prep = learn("standardize", X)
    assert prep.scale[0] == 1
    assert prep.scale[1] != 1
    assert prep.shift[0] == value
    assert len(np.unique(prep.apply(X, np.float64)[:, 0])) == 1


# Far from zero, next to each other, so small or large that squares leave float64: units and offset do not matter.
NEAR_AND_FAR = {
    "nanoseconds": 1.7e18 + np.array([-3e9, 0, 3e9, 1e9]),
    "a billion": 1e9 + np.array([-5.0, 0, 5, 1]),
    "a thousandth": 1e-3 + 1e-12 * np.array([-1, 0, 1, 0.5]),
    "neighbours": np.array([1.0, np.nextafter(1, 2), 1, 1]),
    "tiny": 1e-250 + 1e-260 * np.array([-1, 0, 1, 0.5]),
    "huge": 1e250 + 1e240 * np.array([-1, 0, 1, 0.5]),
    "integers": np.array([2**60 + 1, 2**60 + 2, 2**60 + 4, 2**60 + 3], np.int64),
    "unsigned": np.array([2**64 - 1, 2**64 - 5, 2**64 - 2, 2**64 - 2], np.uint64),
}


@pytest.mark.parametrize("kind", ["center", "standardize"])
@pytest.mark.parametrize("values", NEAR_AND_FAR.values(), ids=NEAR_AND_FAR)
def test_whatever_varies_gets_a_std_of_1(values, kind):
    X = np.tile(values, 500).reshape(-1, 1)
    Z = learn(kind, X).apply(X, np.float64)[:, 0]
    exact = [Fraction(value) for value in values.tolist()]
    exact = [(value - exact[0]) / (max(exact) - min(exact)) for value in exact]
    std = math.sqrt(sum((value - sum(exact) / 4) ** 2 for value in exact) / 4)
    expected = [float(value) / std for value in exact]
    np.testing.assert_allclose((Z - Z[0])[:4], expected, rtol=1e-9)
    assert Z.std() == pytest.approx(1, rel=1e-9)


def test_the_mean_is_exact_to_the_last_bit():
    """The sum alone is off by a hundred times as much here."""
    bit = np.spacing(0.1)
    X = np.column_stack([0.1 + bit * (np.arange(1000) % 3), np.ones(1000)])
    exact = sum(map(Fraction, X[:, 0].tolist())) / 1000
    assert abs(Fraction(float(learn("center", X).shift[0])) - exact) <= Fraction(float(bit))


def test_a_std_whose_inverse_is_infinite_is_that_of_a_constant():
    np.testing.assert_array_equal(inverse_of(np.array([1e-310, 2.0, 0.0])), [1, 0.5, 1])


def test_units_do_not_matter():
    X = RNG.standard_normal((100, 3)) * [1e200, 1.0, 1e-200]
    X = np.column_stack([X, np.zeros(100)])
    np.testing.assert_allclose(learn("standardize", X).apply(X, np.float64)[:, :3].std(axis=0), 1, rtol=1e-12)
    for part in (X[:, :1], X[:, 2:]):  # also of very small ones beside a constant
        assert learn("center", part).apply(part, np.float64).std(axis=0).max() == pytest.approx(
            math.sqrt(part.shape[1]), rel=1e-12
        )


def test_nearly_constant_pixels_do_not_explode():
    X = RNG.integers(0, 256, (5000, 10)).astype(np.uint8)
    X[:, 0] = 0
    X[17, 0] = 255  # inked once: its std is 3.6
    X[:, 1] = 0
    prep = learn("standardize", X)
    overall = np.sqrt(X.astype(np.float64).var(axis=0).mean())
    np.testing.assert_allclose(prep.scale[:2], 10 / overall, rtol=1e-12)
    np.testing.assert_allclose(prep.scale[2:], 1 / X[:, 2:].astype(np.float64).std(axis=0), rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, np.float16, np.float64, np.bool_])
def test_all_equal_data_stay_finite(kind, dtype):
    X = np.ones((5, 3), dtype=dtype)
    prep = learn(kind, X)
    assert prep.shift.dtype == prep.scale.dtype == np.float64
    assert np.isfinite(prep.apply(X)).all()


def test_the_smallest_integer_does_not_wrap_round():
    X = np.array([[-128, 3], [-128, 4], [-128, 5]], dtype=np.int8)
    assert learn("standardize", X).scale[0] == 1


def test_apply_flattens_rounds_once_and_leaves_its_input():
    prep, before = learn("center", PIXELS), PIXELS.copy()
    Z = prep.apply(PIXELS, np.float32)
    assert Z.shape == (50, 12)
    assert Z.dtype == np.float32
    np.testing.assert_array_equal(Z, prep.apply(PIXELS, np.float64).astype(np.float32))
    np.testing.assert_array_equal(PIXELS, before)
    assert prep.apply(PIXELS[:0]).shape == (0, 12)


@pytest.mark.parametrize("shape", [(5, 11), (12,), (5, 13)])
def test_apply_refuses_other_widths(shape):
    with pytest.raises(ValueError, match=r"X: expected shape \(N, 12\)"):
        learn("center", PIXELS).apply(np.zeros(shape))


def test_errors():
    with pytest.raises(ValueError, match="did you mean 'standardize'"):
        learn("standardise", FLOATS)
    with pytest.raises(TypeError, match="X_train: expected a NumPy array; got list"):
        learn("none", [[1.0]])
    with pytest.raises(ValueError, match=r"X_train: expected shape \(N, D\)"):
        learn("none", FLOATS[:0])
    with pytest.raises(ValueError, match="overflows"):
        learn("standardize", np.array([[1.7e308], [1.6e308]]))
    with pytest.raises(ValueError, match="kind: expected one of"):
        Preprocessing("whiten", np.zeros(2), np.ones(2))
    with pytest.raises(ValueError, match=r"two arrays of shape \(D,\)"):
        Preprocessing("none", np.zeros(2), np.ones(3))


def test_the_feature_that_is_too_large_is_named():
    with pytest.raises(ValueError, match=r"'standardize' overflows, feature 1 reaches 1.7e\+308; use smaller units"):
        learn("standardize", np.array([[1.0, 1.7e308], [2.0, 1.6e308]]))
