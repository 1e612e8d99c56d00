"""The book's optimizers against its formulas in plain Python, and its figure of their paths."""

import math

import numpy as np
import pytest

from fcnet.compat.dlfs import SGD, AdaGrad, Adam, Momentum, Nesterov, RMSprop
from tests.tolerances import assert_close

CLASSES = [SGD, Momentum, Nesterov, AdaGrad, RMSprop, Adam]
OPTIONS = {
    SGD: {"lr": 0.3},
    Momentum: {"lr": 0.3, "momentum": 0.8},
    Nesterov: {"lr": 0.3, "momentum": 0.8},
    AdaGrad: {"lr": 0.3},
    RMSprop: {"lr": 0.3, "decay_rate": 0.7},
    Adam: {"lr": 0.3, "beta1": 0.8, "beta2": 0.7},
}


def by_the_book(rule, w, gradients, *, lr, momentum=None, decay_rate=None, beta1=None, beta2=None):
    """One number through the updates that these gradients make; the book's lines, one by one."""
    v = h = m = 0.0
    for t, g in enumerate(gradients, 1):
        if rule is SGD:
            w -= lr * g
        elif rule is Momentum:
            v = momentum * v - lr * g
            w += v
        elif rule is Nesterov:
            w += momentum * momentum * v
            w -= (1 + momentum) * lr * g
            v *= momentum
            v -= lr * g
        elif rule is AdaGrad:
            h += g * g
            w -= lr * g / (math.sqrt(h) + 1e-7)
        elif rule is RMSprop:
            h *= decay_rate
            h += (1 - decay_rate) * g * g
            w -= lr * g / (math.sqrt(h) + 1e-7)
        else:
            lr_t = lr * math.sqrt(1 - beta2**t) / (1 - beta1**t)
            m += (1 - beta1) * (g - m)
            v += (1 - beta2) * (g**2 - v)
            w -= lr_t * m / (math.sqrt(v) + 1e-7)
    return w


@pytest.mark.parametrize("rule", CLASSES)
@pytest.mark.parametrize("size", [1.0, 1e-7])
def test_the_books_lines(rule, size, rng, device, host, dtype):
    """With gradients of order 1, and of order 1e-7, where it shows where 1e-7 is added."""
    start, gradients = rng.normal(size=(3, 4)), size * rng.normal(size=(6, 3, 4))
    params, optimizer = {"W": device(start, dtype)}, rule(**OPTIONS[rule])
    array = params["W"]
    for g in gradients:
        optimizer.update(params, {"W": device(g, dtype)})
    assert params["W"] is array, "in place"
    single = start.astype(dtype), gradients.astype(dtype)
    expected = [
        by_the_book(rule, w, g, **OPTIONS[rule])
        for w, g in zip(single[0].ravel().tolist(), single[1].reshape(6, 12).T.tolist(), strict=True)
    ]
    assert_close(host(array), np.reshape(expected, (3, 4)), dtype, "update")


@pytest.mark.parametrize(
    ("rule", "lr", "x", "y"),
    [
        (SGD, 0.95, -0.350393, 0.084782),
        (Momentum, 0.1, 0.896414, 0.088086),
        (AdaGrad, 1.5, -0.120162, 0.000000),
        (Adam, 0.3, 0.136007, 0.318245),
    ],
)
def test_paths_down_the_books_valley(rule, lr, x, y):
    """Figures 6-3 to 6-7: x²/20 + y² from (-7, 2), plain Python floats."""
    optimizer, params = rule(lr=lr), {"x": -7.0, "y": 2.0}
    for _ in range(30):
        optimizer.update(params, {"x": params["x"] / 10.0, "y": 2.0 * params["y"]})
    assert isinstance(params["x"], float)
    assert (f"{params['x']:.6f}", f"{params['y']:.6f}") == (f"{x:.6f}", f"{y:.6f}")


@pytest.mark.parametrize("rule", CLASSES)
def test_numbers_lists_and_arrays_move_alike(rule):
    """The same updates of a plain number, arrays without and with axes, and lists, which become arrays."""
    start, steps = 1.5, [0.3, -0.2, 0.7]
    expected = by_the_book(rule, start, steps, **OPTIONS[rule])
    kinds = {
        "number": lambda v: v,
        "scalar": np.float64,
        "without axes": np.array,
        "list": lambda v: [v, v],
        "list of lists": lambda v: [[v], [v], [v]],
        "four axes": lambda v: np.full((2, 1, 2, 1), v),
    }
    params, optimizer = {name: make(start) for name, make in kinds.items()}, rule(**OPTIONS[rule])
    for g in steps:
        optimizer.update(params, {name: make(g) for name, make in kinds.items()})
    for name, value in params.items():
        assert np.shape(value) == np.shape(kinds[name](0.0)), name
        np.testing.assert_allclose(value, expected, rtol=1e-12, err_msg=name)
    assert type(params["number"]) is type(params["scalar"]) is float
    assert all(isinstance(params[name], np.ndarray) for name in list(kinds)[2:])


@pytest.mark.parametrize("rule", CLASSES)
def test_gradients_may_be_lists_and_integers(rule):
    one, other = ({"W": np.ones((2, 2))} for _ in range(2))
    rule(lr=0.1).update(one, {"W": [[1, 2], [3, 4]]})
    rule(lr=0.1).update(other, {"W": np.array([[1.0, 2.0], [3.0, 4.0]])})
    np.testing.assert_array_equal(one["W"], other["W"])


@pytest.mark.parametrize("rule", CLASSES)
def test_state_has_the_books_names(rule):
    optimizer, params = rule(), {"a": np.ones((2, 3)), "b": 1.0}
    names = {SGD: [], Momentum: ["v"], Nesterov: ["v"], AdaGrad: ["h"], RMSprop: ["h"], Adam: ["m", "v"]}[rule]
    assert [getattr(optimizer, name) for name in names] == [None] * len(names)
    optimizer.update(params, {"a": np.ones((2, 3)), "b": 2})
    for name in names:
        state = getattr(optimizer, name)
        assert state["a"].shape == (2, 3)
        assert state["b"].shape == ()
        assert np.all(state["a"] != 0)
    if rule is Adam:
        assert optimizer.iter == 1


def test_defaults_are_the_books():
    assert [rule().lr for rule in CLASSES] == [0.01] * 5 + [0.001]
    assert Momentum().momentum == Nesterov().momentum == 0.9
    assert RMSprop().decay_rate == 0.99
    assert (Adam().beta1, Adam().beta2) == (0.9, 0.999)


@pytest.mark.parametrize("rule", CLASSES)
def test_memory_order_does_not_matter(rule, rng):
    w, grads = rng.normal(size=(4, 3)), rng.normal(size=(3, 4, 3))
    wide = np.zeros((4, 6))
    wide[:, ::2] = w
    several = [{"W": w.copy()}, {"W": np.asfortranarray(w)}, {"W": wide[:, ::2]}]
    for params in several:
        optimizer = rule(lr=0.1)
        for g in grads:
            optimizer.update(params, {"W": np.asfortranarray(g)})
    for params in several[1:]:
        np.testing.assert_allclose(params["W"], several[0]["W"], rtol=1e-12)
    assert np.all(wide[:, 1::2] == 0)


def test_a_rate_set_by_hand_holds():
    optimizer, params = SGD(lr=1), {"w": 0.0}
    optimizer.lr = 0.25
    optimizer.update(params, {"w": 1})
    assert params["w"] == -0.25


def test_bad_input():
    with pytest.raises(ValueError, match=r"grads: expected one for each of W, b, got none for 'b'"):
        SGD().update({"W": np.ones(2), "b": np.ones(1)}, {"W": np.ones(2)})
    with pytest.raises(ValueError, match=r"grads\['W'\]: expected the shape \(2,\) of params\['W'\], got \(3,\)"):
        SGD().update({"W": np.ones(2)}, {"W": np.ones(3)})
    with pytest.raises(TypeError, match=r"params\['W'\]: expected an array of float32 or float64, got int64"):
        SGD().update({"W": np.arange(2)}, {"W": np.ones(2)})
    for odd in ("a", ["a"], [[1.0], [1.0, 2.0]]):
        with pytest.raises(TypeError, match=r"params\['W'\]: expected .* got "):
            SGD().update({"W": odd}, {"W": np.ones(1)})
        with pytest.raises(TypeError, match=r"grads\['W'\]: expected .* got "):
            SGD().update({"W": np.ones(1)}, {"W": odd})
    with pytest.raises(ValueError, match=r"grads\['W'\]: expected the shape \(\) of params\['W'\], got \(1,\)"):
        SGD().update({"W": 1.0}, {"W": [1.0]})
    with pytest.raises(TypeError, match=r"params: expected a dict of arrays by name, got list"):
        SGD().update([1.0], {})
    with pytest.raises(TypeError, match=r"grads: expected a dict of arrays by name, got float"):
        SGD().update({"W": 1.0}, 1.0)
    with pytest.raises(TypeError, match=r"lr: expected a number, got '1'"):
        Adam(lr="1")
    with pytest.raises(ValueError, match=r"lr: expected 0 or more, got -1"):
        SGD(lr=-1)
    for make in (lambda: Adam(beta1=1), lambda: Adam(beta2=1), lambda: RMSprop(decay_rate=1), lambda: Momentum(0.1, 1)):
        with pytest.raises(ValueError, match=r"^\w+: expected 0 <= \w+ < 1, got 1"):
            make()


@pytest.mark.parametrize("rule", [Momentum, Nesterov, AdaGrad, RMSprop, Adam])
def test_an_optimizer_is_of_one_network(rule):
    optimizer = rule()
    optimizer.update({"W": np.ones(2)}, {"W": np.ones(2)})
    for other in ({"W": np.ones(3)}, {"V": np.ones(2)}):
        with pytest.raises(ValueError, match=r"params\['.'\]: expected parameters like those of the first update"):
            optimizer.update(other, other)
    SGD().update({"W": np.ones(3)}, {"W": np.ones(3)})
