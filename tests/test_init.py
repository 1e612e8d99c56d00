"""Initial weights: pinned values, the schemes, independence of device and dtype."""

import math

import numpy as np
import pytest

import fcnet
from fcnet.init import SCHEMES, initial_weights, weight_std

STDS = {"zeros": 0.0, "normal": 0.01, "xavier": 1 / 20, "he": math.sqrt(2) / 20}  # for 400 inputs


def test_golden_weights():
    """Literally: the same seed gives the same network in every release, on every machine."""
    np.testing.assert_array_equal(initial_weights(0, 1, (2, 3), 1.0), GOLDEN[0])
    np.testing.assert_array_equal(initial_weights(7, 2, (2, 3), 0.5), GOLDEN[1])


def test_they_depend_on_seed_and_layer_and_scale_with_std():
    weights = initial_weights(3, 1, (4, 5), 1.0)
    np.testing.assert_array_equal(initial_weights(3, 1, (4, 5), 1.0), weights)
    np.testing.assert_array_equal(initial_weights(3, 1, (4, 5), 0.25), 0.25 * weights)
    for other in (initial_weights(4, 1, (4, 5), 1.0), initial_weights(3, 2, (4, 5), 1.0)):
        assert (other != weights).all()
    assert weights.dtype == np.float64


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_the_std_of_each_scheme(scheme):
    assert set(STDS) == set(SCHEMES)
    std = weight_std(scheme, None, "he", 400)
    assert std == pytest.approx(STDS[scheme])
    weights = initial_weights(0, 1, (400, 500), std)
    # Of 200,000 draws: the std is known to 0.16 %, the mean to std / 447.
    assert weights.std() == pytest.approx(std, rel=0.01)
    assert abs(weights.mean()) <= 4 * std / math.sqrt(weights.size)


def test_what_is_used_when_nothing_is_said():
    assert weight_std(None, None, "he", 8) == 0.5
    assert weight_std(None, None, "xavier", 4) == 0.5
    assert weight_std(None, 0.3, "he", 8) == 0.3
    assert weight_std(None, np.float32(0.5), "he", 8) == 0.5
    assert weight_std(None, 0, "he", 8) == 0.0
    assert weight_std("normal", None, "he", 8) == 0.01


@pytest.mark.parametrize(
    ("init", "scale", "error", "message"),
    [
        ("hee", None, ValueError, "init: expected one of zeros, normal, xavier, he; got 'hee'; did you mean 'he'?"),
        ("he", 0.1, ValueError, "init and weight_scale: expected one of them, got init='he' and weight_scale=0.1"),
        (None, -1.0, ValueError, "weight_scale: expected a standard deviation of 0 or more, got -1.0"),
        (None, math.nan, ValueError, "weight_scale: expected a finite number, got nan"),
        (None, math.inf, ValueError, "got inf"),
        (None, "0.1", TypeError, "weight_scale: expected a number, got '0.1'"),
        (None, True, TypeError, "weight_scale: expected a number, got True"),
    ],
)
def test_bad_arguments_are_named(init, scale, error, message):
    with pytest.raises(error) as caught:
        weight_std(init, scale, "he", 8)
    assert message in str(caught.value)


def network(**options):
    return fcnet.FullyConnectedNet([6, 5], 4, 3, seed=7, **options)


def test_a_network_has_them_on_every_device_and_in_every_dtype(backend, host, dtype):
    model = network(device=backend, dtype=dtype, normalization="batchnorm", weight_scale=0.5)
    for layer, shape in ((1, (4, 6)), (2, (6, 5)), (3, (5, 3))):
        expected = initial_weights(7, layer, shape, 0.5).astype(dtype)
        np.testing.assert_array_equal(host(model.params[f"W{layer}"]), expected)
        assert not host(model.params[f"b{layer}"]).any()
    for layer in (1, 2):
        assert (host(model.params[f"gamma{layer}"]) == 1).all()
        assert not host(model.params[f"beta{layer}"]).any()
        assert not host(model.state[f"running_mean{layer}"]).any()
        assert not host(model.state[f"running_var{layer}"]).any()


def test_a_network_scales_each_layer_by_its_own_fan_in():
    model = fcnet.FullyConnectedNet([400, 100], 100, 50, device="cpu", dtype="float64")
    for name, fan_in in (("W1", 100), ("W2", 400), ("W3", 100)):
        assert model.params[name].std() == pytest.approx(math.sqrt(2 / fan_in), rel=0.03)


GOLDEN = [
    [
        [-1.2261360781167971, -1.1823208346560528, -0.05593030910319699],
        [0.8519882519538069, 0.8082923952163878, 1.74570000173371],
    ],
    [
        [-1.2200146910823937, 0.22192967905284905, -0.4082232401611471],
        [-0.7881569278492571, -0.20674910509462338, 0.3023524403895476],
    ],
]
