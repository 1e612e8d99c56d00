"""Initial weights: pinned values, the schemes, independence of device and dtype."""

import math

import numpy as np
import pytest

import fcnet
from fcnet.functional import ACTIVATIONS
from fcnet.nn.init import SCHEMES, initial_weights, weight_std
from tests.small import blobs, solver

USUAL = {
    "identity": "xavier",
    "sigmoid": "xavier",
    "tanh": "xavier",
    "maxout": "xavier",
}  # He for others
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


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_the_usual_start_of_each_activation(activation):
    model = fcnet.FullyConnectedNet([300], 400, 200, activation=activation, device="cpu")
    scheme = USUAL.get(activation, "he")
    for name, fan_in in (("W1", 400), ("W2", 300)):
        assert model.params[name].std() == pytest.approx(SCHEMES[scheme](fan_in), rel=0.02)


@pytest.mark.parametrize(("activation", "wrong"), [("relu", "xavier"), ("tanh", "normal")])
def test_the_usual_start_keeps_the_signal_alive(activation, wrong):
    """Through ten layers: the spread of the activations stays, and dies with a start made for something else."""
    X = np.random.default_rng(0).standard_normal((200, 100))
    spread = {}
    for init in (None, wrong):
        model = fcnet.FullyConnectedNet([100] * 10, 100, 2, activation=activation, init=init, device="cpu")
        hidden = X.astype(model.dtype)
        for layer in model.hidden:
            hidden = layer.evaluate(fcnet.backends.step.direct, model.params, model.state, hidden)
        spread[init] = hidden.std(axis=0).mean()  # over the samples: how much of their difference is left
    assert spread[None] > 10 * spread[wrong]


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("normalization", [None, "batchnorm"])
def test_zeros_learn_nothing_about_the_inputs(activation, normalization):
    """Why weights start at random: from zeros every unit of a layer stays like its neighbours, and W1 stays zero.

    Only the output's bias learns, so the network says the most frequent class, whatever it is shown. (Units that
    are not 0 at 0, as sigmoid's 1/2, let W2 learn, but all units alike, and W1 the same column over and over.)
    """
    data = blobs()
    how = {"update_rule": "sgd", "optim_config": {"learning_rate": 0.5}, "num_epochs": 20}
    accuracy = {}
    for init in ("zeros", None):
        one = solver(data, net_options={"activation": activation, "normalization": normalization, "init": init}, **how)
        one.train()
        accuracy[init] = one.check_accuracy(data.X_train, data.y_train)
        if init == "zeros":
            w1, w2 = one.model.params["W1"], one.model.params["W2"]
    units = w1.reshape(6, -1, 8)  # pieces of maxout apart
    assert np.ptp(units, axis=2).max() == 0, "all units of a layer are one"
    at_zero, _ = ACTIVATIONS[activation].forward(np.zeros((1, 2)))
    if not at_zero.any():
        assert not w1.any()
        assert not w2.any()
        assert accuracy["zeros"] < 0.5
    assert accuracy[None] > 0.9
    assert accuracy["zeros"] < accuracy[None]


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
