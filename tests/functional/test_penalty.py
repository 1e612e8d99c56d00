"""L1 and L2 penalties: their value, their gradient, and what they leave alone."""

import numpy as np
import pytest

from fcnet import functional as F
from fcnet.tools.gradcheck import numerical_gradient
from tests import oracles
from tests.tolerances import assert_close

pytestmark = pytest.mark.references

ORACLES = {"l1_penalty": oracles.l1, "l2_penalty": oracles.l2}


@pytest.fixture(params=sorted(ORACLES))
def name(request):
    return request.param


@pytest.mark.parametrize("block", [1, 7, 20, 64])
def test_it_is_the_oracle(name, block, rng, device, host, xp, dtype, untouched):
    weights, dweights = rng.standard_normal(20).astype(np.float32), rng.standard_normal(20).astype(np.float32)
    weights[3:5] = 0
    weights_, dweights_, loss = device(weights, dtype), device(dweights, dtype), device(1.5, dtype)
    with untouched(weights_):
        getattr(F, name)(weights_, 0.3, loss, dweights_, xp.empty(block, dtype=dtype))
    value, gradient = ORACLES[name](weights, 0.3)
    assert_close(host(loss), 1.5 + value, dtype, "loss")
    assert_close(host(dweights_), dweights + gradient, dtype, "elementwise")


def test_the_gradient_is_the_numerical_one(name, rng):
    weights = rng.standard_normal(12)

    def penalty(w):
        return getattr(F, name)(w, 0.7, np.zeros(()), np.zeros(12), np.empty(5))

    dweights = np.zeros(12)
    getattr(F, name)(weights, 0.7, np.zeros(()), dweights, np.empty(5))
    assert_close(dweights, numerical_gradient(penalty, weights), "float64", "gradient")


def test_it_copies_nothing(name, guard):
    """CuPy copies an input that overlaps `out` and is another object: here that would be every parameter."""
    xp = guard.xp
    arrays = xp.ones(64), 0.1, xp.zeros(()), xp.ones(64), xp.empty(16)
    with guard.recording() as log, guard.no_waits():
        getattr(F, name)(*arrays)
    assert max(event.nbytes for event in log.allocations) == 8


def test_they_are_torchs(name, rng, device, host, xp, dtype):
    torch = pytest.importorskip("torch")
    weights = rng.standard_normal(20).astype(np.float32)
    weights[3] = 0
    loss, dweights = device(0.0, dtype), device(np.zeros(20), dtype)
    getattr(F, name)(device(weights, dtype), 0.3, loss, dweights, xp.empty(8, dtype=dtype))
    tensor = torch.tensor(weights, dtype=torch.float64, requires_grad=True)
    expected = {"l1_penalty": lambda w: 0.3 * w.abs().sum(), "l2_penalty": lambda w: 0.15 * w.pow(2).sum()}[name](
        tensor
    )
    expected.backward()
    assert_close(host(loss), expected.item(), dtype, "loss")
    assert_close(host(dweights), tensor.grad.numpy(), dtype, "elementwise")
