"""gradcheck passes what is right and catches what is a little wrong."""

import numpy as np
import pytest

import fcnet
from fcnet.tools.gradcheck import gradcheck, numerical_gradient, relative_error

N, D, C = 5, 4, 3
RIGHT, WRONG = 1e-6, 3e-4


def batch():
    rng = np.random.default_rng(0)
    return rng.standard_normal((N, D)), rng.integers(C, size=N)


def network(backend="cpu", **options):
    model = fcnet.FullyConnectedNet([5, 4], D, C, seed=3, device=backend, **options)
    rng = np.random.default_rng(1)
    for name, shape in model.params.shapes.items():
        if len(shape) == 1:  # off their usual start of 0 and 1, where a mistake may not show
            model.params[name] = rng.uniform(0.5, 1.5, shape)
    return model


def assert_right(errors, normalization):
    for name, error in errors.items():
        # Batch norm takes a bias off again: its gradient is 0, and what is compared is rounding (1e-11) against the
        # floor of 1e-6. A gradient that is not 0 gives an error of about 1.
        noise = normalization == "batchnorm" and name in ("b1", "b2")
        assert error < (1e-3 if noise else RIGHT), (name, errors)


@pytest.mark.parametrize("reg", [0.0, 0.3])
@pytest.mark.parametrize("loss", ["softmax", "svm"])
@pytest.mark.parametrize("keep", [1.0, 0.7])
@pytest.mark.parametrize("normalization", [None, "batchnorm", "layernorm"])
def test_every_kind_of_network_passes(normalization, keep, loss, reg):
    model = network(normalization=normalization, dropout_keep_ratio=keep, loss=loss, reg=reg)
    errors = gradcheck(model, *batch(), samples=None)
    assert set(errors) == set(model.params)
    assert_right(errors, normalization)


def test_it_runs_on_every_device(backend):
    model = network(backend, normalization="batchnorm", dropout_keep_ratio=0.7, reg=0.3)
    assert_right(gradcheck(model, *batch()), "batchnorm")


PARAMETERS = ["W1", "b1", "gamma1", "beta1", "W2", "W3", "b3"]


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("mistake", ["0.1 % in one element", "sign", "missing"])
def test_a_wrong_gradient_is_caught(name, mistake, monkeypatch):
    """In the parameter that has it, and in no other."""
    right = fcnet.FullyConnectedNet.loss

    def wrong(self, X, y, step=0):
        loss, grads = right(self, X, y, step)
        gradient = grads[name].reshape(-1)
        if mistake == "sign":
            gradient *= -1
        elif mistake == "missing":
            gradient[...] = 0
        else:
            gradient[np.argmax(np.abs(gradient))] *= 1.001
        return loss, grads

    model = network(normalization="layernorm")
    monkeypatch.setattr(fcnet.FullyConnectedNet, "loss", wrong)
    errors = gradcheck(model, *batch(), samples=None)
    assert errors.pop(name) > WRONG
    assert max(errors.values()) < RIGHT


def test_a_missing_l2_term_is_caught(monkeypatch):
    monkeypatch.setattr(
        "fcnet.functional.l2_penalty", lambda w, reg, loss, dw, work: loss.__iadd__(0.5 * reg * (w @ w))
    )
    errors = gradcheck(network(reg=0.3), *batch())
    assert min(errors[name] for name in ("W1", "W2", "W3")) > 1e-2


def test_a_float32_network_is_checked_in_float64_and_left_alone():
    model = network(normalization="batchnorm")
    before, state = model.params.flat.copy(), model.state.flat.copy()
    assert_right(gradcheck(model, *batch()), "batchnorm")
    assert model.dtype == np.float32
    np.testing.assert_array_equal(model.params.flat, before)
    np.testing.assert_array_equal(model.state.flat, state)


def test_samples_bounds_the_work_and_is_deterministic(monkeypatch):
    calls = []
    right = fcnet.FullyConnectedNet.loss
    monkeypatch.setattr(fcnet.FullyConnectedNet, "loss", lambda self, *args: calls.append(1) or right(self, *args))
    model = network()
    first = gradcheck(model, *batch(), samples=4)
    # W1, b1, W2, b2, W3, b3: two losses for each of 4, but b3 has 3 elements; and one for the analytic gradient.
    assert len(calls) == 1 + 2 * (5 * 4 + 3)
    assert gradcheck(model, *batch(), samples=4) == first


def test_numerical_gradient_of_a_polynomial():
    x = np.array([[1.0, -2.0], [0.5, 3.0]])
    before = x.copy()
    np.testing.assert_allclose(numerical_gradient(lambda x: np.sum(x**3), x), 3 * x**2, rtol=1e-8)
    np.testing.assert_array_equal(x, before)
    weights = np.array([[1.0, 2.0], [-1.0, 0.0]])
    np.testing.assert_allclose(numerical_gradient(lambda x: x**2, x, weights), 2 * x * weights, rtol=1e-8, atol=1e-12)
    same = np.empty(4)

    def reuses_its_result(x):
        same[...] = x.ravel() ** 2
        return same

    np.testing.assert_allclose(numerical_gradient(reuses_its_result, x), 2 * x, rtol=1e-8)
    assert numerical_gradient(lambda x: x * 3, np.array(2.0)) == pytest.approx(3)


def test_relative_error():
    assert relative_error([1.0, 2.0], [1.0, 2.0]) == 0
    assert relative_error([1.0], [-1.0]) == 1
    assert relative_error([1.0, 1.0], [1.0, 1.002]) == pytest.approx(0.002 / 2.002)
    assert relative_error([0.0], [1e-10]) == pytest.approx(1e-2)  # the floor of 1e-8
    assert relative_error([], []) == 0
    with pytest.raises(ValueError, match=r"relative_error: expected two arrays of one shape, got \(2,\) and \(1,\)"):
        relative_error([1.0, 2.0], [1.0])
