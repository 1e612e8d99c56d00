"""Activations: the table, and what is particular to one of them."""

import math
from functools import partial

import numpy as np
import pytest

from fcnet import functional as F
from fcnet.nn.init import SCHEMES
from fcnet.tools.gradcheck import numerical_gradient
from tests import oracles_activation as oracles
from tests.guard import shares_memory
from tests.tolerances import assert_close

SHAPES = [(4, 6), (1, 2), (3, 4, 6), (8,)]
NAMES = [*sorted(F.ACTIVATIONS), "maxout:3"]


def test_every_activation_is_tested():
    """The names of the design, each with an oracle."""
    assert set(F.ACTIVATIONS) == {*oracles.NUMBERS, "maxout"}


@pytest.fixture(params=NAMES)
def activation(request):
    return request.param


def functions(activation):
    forward, backward, *_ = F.activation_named("activation", activation)
    return forward, backward


def pieces(activation):
    return F.activation_named("activation", activation).pieces


def values(rng, shape, activation="relu"):
    """Numbers of both signs, none near zero: the kink is tested by itself. Three pieces need columns of their own."""
    if pieces(activation) == 3:
        shape = (*shape[:-1], 3 * shape[-1] // 2)
    x = rng.standard_normal(shape).astype(np.float32)
    return x + np.float32(0.1) * np.sign(x)


def draw(rng, shape, activation):
    """x, and dout in the shape of the result."""
    x = values(rng, shape, activation)
    dout = values(rng, x.shape)
    return x, dout[..., : x.shape[-1] // pieces(activation)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_the_oracle(activation, shape, rng, lay, host, dtype, untouched):
    x, dout = draw(rng, shape, activation)
    x_, dout_ = lay(x, dtype), lay(dout, dtype)
    forward, backward = functions(activation)
    with untouched(x_, dout_):
        out, cache = forward(x_)
        dx = backward(dout_, cache)
    name, k = activation.partition(":")[0], pieces(activation)
    assert_close(host(out), oracles.forward(name, x, k), dtype, "elementwise")
    assert_close(host(dx), oracles.backward(name, dout, x, k), dtype, "elementwise")


def test_backward_is_the_numerical_gradient(activation, rng, device, host):
    x, dout = (value.astype(float) for value in draw(rng, (4, 6), activation))
    forward, backward = functions(activation)
    dx = backward(device(dout), forward(device(x))[1])
    numeric = numerical_gradient(lambda x: host(forward(device(x))[0]), x, dout)
    assert_close(host(dx), numeric, "float64", "gradient")


def test_it_is_torchs(activation, rng, device, host, dtype):
    torch = pytest.importorskip("torch")
    k = pieces(activation)
    if k == 1 and oracles.NUMBERS[activation].torch is None:
        pytest.skip(f"PyTorch has no {activation}")
    if k > 1:
        theirs = lambda x: x.reshape(*x.shape[:-1], k, -1).amax(-2)  # noqa: E731
    else:
        theirs = partial(getattr(torch.nn.functional, activation), **oracles.NUMBERS[activation].torch)
    x, dout = draw(rng, (4, 6), activation)
    forward, backward = functions(activation)
    out, cache = forward(device(x, dtype))
    tensor = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    expected = theirs(tensor)
    expected.backward(torch.tensor(dout, dtype=torch.float64))
    assert_close(host(out), expected.detach().numpy(), dtype, "elementwise")
    assert_close(host(backward(device(dout, dtype), cache)), tensor.grad.numpy(), dtype, "elementwise")


def test_outputs_are_filled_also_in_place(activation, rng, device, host, xp, dtype):
    x, dout = draw(rng, (4, 6), activation)
    forward, backward = functions(activation)
    expected, cache = forward(device(x, dtype))
    expected_dx = host(backward(device(dout, dtype), cache))
    out, dx = xp.empty(dout.shape, dtype=dtype), xp.empty(x.shape, dtype=dtype)
    got, _ = forward(device(x, dtype), out=out)
    assert got is out
    assert backward(device(dout, dtype), cache, dx=dx) is dx
    np.testing.assert_array_equal(host(out), host(expected))
    np.testing.assert_array_equal(host(dx), expected_dx)
    if pieces(activation) > 1:
        return  # narrower than its input: never in place
    x_, dout_ = device(x, dtype), device(dout, dtype)
    got, cache = forward(x_, out=x_)
    assert got is x_
    np.testing.assert_array_equal(host(x_), host(expected))
    assert backward(dout_, cache, dx=dout_) is dout_
    np.testing.assert_array_equal(host(dout_), expected_dx)


def test_a_cache_given_back_is_filled_again(activation, rng, device, host, dtype):
    kind = F.activation_named("activation", activation)
    x, dout = draw(rng, (4, 6), activation)
    out, cache = kind.forward(device(x, dtype))
    expected = host(kind.backward(device(dout, dtype), cache))
    arrays = cache if isinstance(cache, tuple) else (cache,)
    assert kind.own_cache != any(shares_memory(array, out) for array in arrays)
    if kind.own_cache:
        _, other = kind.forward(device(-x, dtype))
        _, again = kind.forward(device(x, dtype), cache=other)
        for mine, given in zip(again if isinstance(again, tuple) else (again,), _tuple(other), strict=True):
            assert shares_memory(mine, given)
        np.testing.assert_array_equal(host(kind.backward(device(dout, dtype), again)), expected)


def _tuple(cache):
    return cache if isinstance(cache, tuple) else (cache,)


def test_the_initialiser_it_names(activation):
    usual = F.activation_named("activation", activation).init
    assert usual in SCHEMES
    assert usual == ("xavier" if pieces(activation) > 1 else oracles.NUMBERS[activation].init)


def test_relu_at_zero_passes_nothing_back(device, host, dtype):
    out, cache = F.relu_forward(device([-1.0, -0.0, 0.0, 2.0], dtype))
    np.testing.assert_array_equal(host(out), [0, 0, 0, 2])
    np.testing.assert_array_equal(host(F.relu_backward(device(np.ones(4), dtype), cache)), [0, 0, 0, 1])


@pytest.mark.parametrize("name", sorted(oracles.NUMBERS))
def test_nan_and_infinity_stay_visible(name, device, host, dtype):
    out, _ = functions(name)[0](device([np.nan, np.inf], dtype))
    ends = oracles.NUMBERS[name].ends
    np.testing.assert_array_equal(host(out), [np.nan, np.inf if ends is None or ends[1] is None else ends[1]])


def test_relu_of_minus_infinity_is_zero(device, host, dtype):
    out, _ = F.relu_forward(device([-np.inf], dtype))
    np.testing.assert_array_equal(host(out), [0])


@pytest.mark.parametrize("name", [name for name, oracle in oracles.NUMBERS.items() if oracle.ends])
@pytest.mark.parametrize("size", [30.0, 100.0, 1e3, 1e15])
def test_large_numbers_overflow_nowhere(name, size, device, host, dtype):
    """NumPy would warn, and a warning fails the test."""
    x = np.array([-size, size])
    forward, backward = functions(name)
    out, cache = forward(device(x, dtype))
    dx = backward(device(np.ones(2), dtype), cache)
    low, high = oracles.NUMBERS[name].ends
    np.testing.assert_allclose(host(out), [low, size if high is None else high], rtol=1e-6, atol=1e-10)
    np.testing.assert_allclose(host(dx), [0, 1 if high is None else 0], atol=1e-10)


def test_sigmoid_is_precise_far_below_zero(device, host, dtype):
    out, _ = F.sigmoid_forward(device([-20.0, -80.0], dtype))
    np.testing.assert_allclose(host(out), [math.exp(-20.0), math.exp(-80.0)], rtol=1e-5)


def test_gelu_is_near_the_form_with_the_error_function(device, host):
    x = np.linspace(-6, 6, 121)
    exact = [value * 0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x]
    difference = np.abs(host(F.gelu_forward(device(x))[0]) - exact)
    assert 1e-4 < difference.max() < 5e-4


def test_of_equal_maxout_pieces_the_first_has_the_gradient(device, host, dtype):
    x = device([[2.0, 0.0, 2.0, 1.0, 2.0, 1.0]], dtype)  # two units, three pieces
    out, cache = F.maxout_forward(x, 3)
    np.testing.assert_array_equal(host(out), [[2, 1]])
    dx = F.maxout_backward(device([[5.0, 7.0]], dtype), cache)
    np.testing.assert_array_equal(host(dx), [[5, 0, 0, 7, 0, 0]])


def test_bad_arguments_are_named(device):
    for name in sorted(oracles.NUMBERS):
        with pytest.raises(TypeError, match=f"{name}_forward: x: expected float32 or float64, got int64"):
            getattr(F, f"{name}_forward")(device([1, 2]))
    with pytest.raises(
        ValueError, match=r"maxout_forward: x: expected \(\.\.\., 2 M\) for 2 pieces, got shape \(2, 3\)"
    ):
        F.maxout_forward(device(np.ones((2, 3))))
    with pytest.raises(ValueError, match="maxout_forward: pieces: expected 2 or more, got 1"):
        F.maxout_forward(device(np.ones((2, 3))), 1)
    with pytest.raises(TypeError, match="maxout_forward: pieces: expected an integer, got 2"):
        F.maxout_forward(device(np.ones((2, 4))), 2.0)
    with pytest.raises(ValueError, match="maxout_backward: dout: expected the shape"):
        F.maxout_backward(device(np.ones((2, 3))), F.maxout_forward(device(np.ones((2, 4))))[1])


@pytest.mark.parametrize("name", ["rleu", "maxout:1", "maxout:x", "relu:2", None])
def test_unknown_names(name):
    with pytest.raises(ValueError, match="activation: expected one of relu, leaky_relu"):
        F.activation_named("activation", name)
