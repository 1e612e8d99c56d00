"""Activations: the table, and ReLU."""

import numpy as np
import pytest

from fcnet import functional as F
from fcnet.init import SCHEMES
from fcnet.numerical import numerical_gradient
from tests import oracles
from tests.tolerances import assert_close

#: forward and backward oracles of each activation; one without a line here fails.
ORACLES = {"relu": (oracles.relu, oracles.relu_backward)}
SHAPES = [(4, 5), (1, 1), (3, 4, 5), (7,)]


def test_every_activation_is_tested():
    assert set(ORACLES) == set(F.ACTIVATIONS)


@pytest.fixture(params=sorted(F.ACTIVATIONS))
def activation(request):
    return request.param


def values(rng, shape):
    """Numbers of both signs, none near zero: the kink is tested by itself."""
    x = rng.standard_normal(shape).astype(np.float32)
    return x + np.float32(0.1) * np.sign(x)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_the_oracle(activation, shape, rng, lay, host, dtype, untouched):
    x, dout = values(rng, shape), values(rng, shape)
    x_, dout_ = lay(x, dtype), lay(dout, dtype)
    forward, backward, _ = F.ACTIVATIONS[activation]
    with untouched(x_, dout_):
        out, cache = forward(x_)
        dx = backward(dout_, cache)
    assert_close(host(out), ORACLES[activation][0](x), dtype, "elementwise")
    assert_close(host(dx), ORACLES[activation][1](dout, x), dtype, "elementwise")


def test_backward_is_the_numerical_gradient(activation, rng, device, host):
    x, dout = values(rng, (4, 5)).astype(float), values(rng, (4, 5)).astype(float)
    forward, backward, _ = F.ACTIVATIONS[activation]
    dx = backward(device(dout), forward(device(x))[1])
    numeric = numerical_gradient(lambda x: host(forward(device(x))[0]), x, dout)
    assert_close(host(dx), numeric, "float64", "gradient")


def test_it_is_torchs(activation, rng, device, host, dtype):
    torch = pytest.importorskip("torch")
    x, dout = values(rng, (4, 5)), values(rng, (4, 5))
    forward, backward, _ = F.ACTIVATIONS[activation]
    out, cache = forward(device(x, dtype))
    tensor = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    expected = getattr(torch, activation)(tensor)
    expected.backward(torch.tensor(dout, dtype=torch.float64))
    assert_close(host(out), expected.detach().numpy(), dtype, "elementwise")
    assert_close(host(backward(device(dout, dtype), cache)), tensor.grad.numpy(), dtype, "elementwise")


def test_outputs_are_filled_also_in_place(activation, rng, device, host, xp, dtype):
    x, dout = values(rng, (4, 5)), values(rng, (4, 5))
    forward, backward, _ = F.ACTIVATIONS[activation]
    expected, cache = forward(device(x, dtype))
    expected_dx = host(backward(device(dout, dtype), cache))
    out, dx = xp.empty((4, 5), dtype=dtype), xp.empty((4, 5), dtype=dtype)
    got, _ = forward(device(x, dtype), out=out)
    assert got is out
    assert backward(device(dout, dtype), cache, dx=dx) is dx
    np.testing.assert_array_equal(host(out), host(expected))
    np.testing.assert_array_equal(host(dx), expected_dx)
    x_, dout_ = device(x, dtype), device(dout, dtype)
    got, cache = forward(x_, out=x_)
    assert got is x_
    np.testing.assert_array_equal(host(x_), host(expected))
    assert backward(dout_, cache, dx=dout_) is dout_
    np.testing.assert_array_equal(host(dout_), expected_dx)


def test_the_initialiser_it_names_exists(activation):
    assert F.ACTIVATIONS[activation].init in SCHEMES


def test_relu_at_zero_passes_nothing_back(device, host, dtype):
    out, cache = F.relu_forward(device([-1.0, -0.0, 0.0, 2.0], dtype))
    np.testing.assert_array_equal(host(out), [0, 0, 0, 2])
    np.testing.assert_array_equal(host(F.relu_backward(device(np.ones(4), dtype), cache)), [0, 0, 0, 1])


def test_relu_keeps_nan_and_infinity_visible(device, host, dtype):
    out, _ = F.relu_forward(device([np.nan, np.inf, -np.inf], dtype))
    np.testing.assert_array_equal(host(out), [np.nan, np.inf, 0])


def test_bad_arguments_are_named(device):
    with pytest.raises(TypeError, match="relu_forward: x: expected float32 or float64, got int64"):
        F.relu_forward(device([1, 2]))
