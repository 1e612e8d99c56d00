"""The course's update rules against the notebook's tables, each first checked against its formula in plain NumPy."""

import numpy as np
import pytest

from fcnet.compat.cs231n import adam, rmsprop, sgd, sgd_momentum

RULES = [sgd, sgd_momentum, rmsprop, adam]
W = np.linspace(-0.4, 0.6, num=20).reshape(4, 5)
DW = np.linspace(-0.6, 0.4, num=20).reshape(4, 5)


def test_sgd_momentum_gives_the_notebooks_table():
    v = np.linspace(0.6, 0.9, num=20).reshape(4, 5)
    config = {"learning_rate": 1e-3, "velocity": v}
    next_w, returned = sgd_momentum(W, DW, config=config)
    velocity = 0.9 * np.linspace(0.6, 0.9, num=20).reshape(4, 5) - 1e-3 * DW
    np.testing.assert_allclose(velocity[0], [0.5406, 0.55475789, 0.56891579, 0.58307368, 0.59723158], rtol=1e-7)
    np.testing.assert_allclose((W + velocity)[3], [1.14244211, 1.20923158, 1.27602105, 1.34281053, 1.4096], rtol=1e-7)
    np.testing.assert_allclose(next_w, W + velocity, rtol=1e-12)
    np.testing.assert_allclose(config["velocity"], velocity, rtol=1e-12)
    assert returned is config


def test_rmsprop_gives_the_notebooks_table():
    cache = np.linspace(0.6, 0.9, num=20).reshape(4, 5)
    config = {"learning_rate": 1e-2, "cache": cache}
    next_w, _ = rmsprop(W, DW, config=config)
    moved = 0.99 * np.linspace(0.6, 0.9, num=20).reshape(4, 5) + 0.01 * DW**2
    expected = W - 1e-2 * DW / (np.sqrt(moved) + 1e-8)
    table = [-0.39223849, -0.34037513, -0.28849239, -0.23659121, -0.18467247]
    np.testing.assert_allclose(expected[0], table, rtol=1e-6)
    np.testing.assert_allclose(moved[3], [0.82883269, 0.84469141, 0.86060554, 0.87657507, 0.8926], rtol=1e-7)
    np.testing.assert_allclose(next_w, expected, rtol=1e-10)
    np.testing.assert_allclose(config["cache"], moved, rtol=1e-12)


def test_adam_gives_the_notebooks_table():
    m = np.linspace(0.6, 0.9, num=20).reshape(4, 5)
    v = np.linspace(0.7, 0.5, num=20).reshape(4, 5)
    config = {"learning_rate": 1e-2, "m": m, "v": v, "t": 5}
    next_w, _ = adam(W, DW, config=config)
    new_m = 0.9 * np.linspace(0.6, 0.9, num=20).reshape(4, 5) + 0.1 * DW
    new_v = 0.999 * np.linspace(0.7, 0.5, num=20).reshape(4, 5) + 0.001 * DW**2
    expected = W - 1e-2 * (new_m / (1 - 0.9**6)) / (np.sqrt(new_v / (1 - 0.999**6)) + 1e-8)
    table = [-0.40094747, -0.34836187, -0.29577703, -0.24319299, -0.19060977]
    np.testing.assert_allclose(expected[0], table, rtol=1e-6)
    np.testing.assert_allclose(new_m[0], [0.48, 0.49947368, 0.51894737, 0.53842105, 0.55789474], rtol=1e-7)
    np.testing.assert_allclose(new_v[3], [0.54159906, 0.53110598, 0.52061845, 0.51013645, 0.49966], rtol=1e-7)
    np.testing.assert_allclose(next_w, expected, rtol=1e-10)
    np.testing.assert_allclose(config["m"], new_m, rtol=1e-12)
    np.testing.assert_allclose(config["v"], new_v, rtol=1e-12)
    assert config["t"] == 6


def test_sgd():
    next_w, config = sgd(W, DW, {"learning_rate": 0.5})
    np.testing.assert_allclose(next_w, W - 0.5 * DW, rtol=1e-12)
    assert config == {"learning_rate": 0.5}


@pytest.mark.parametrize(
    ("rule", "defaults"),
    [
        (sgd, {"learning_rate": 1e-2}),
        (sgd_momentum, {"learning_rate": 1e-2, "momentum": 0.9}),
        (rmsprop, {"learning_rate": 1e-2, "decay_rate": 0.99, "epsilon": 1e-8}),
        (adam, {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "t": 1}),
    ],
)
def test_defaults_are_filled_in(rule, defaults):
    _, config = rule(W, DW)
    assert {key: value for key, value in config.items() if not isinstance(value, np.ndarray)} == defaults


def test_hyperparameters_are_those_of_the_config():
    """Far from the defaults, after one step from zero state."""
    one, dw = np.ones(1), np.array([4.0])
    config = {"learning_rate": 0.5, "momentum": 0.25, "velocity": one}
    assert sgd_momentum(one, dw, config)[0] == 1 + (0.25 - 2)
    assert rmsprop(one, dw, {"learning_rate": 0.5, "decay_rate": 0.75, "epsilon": 3.0})[0] == 1 - 2 / (2 + 3)
    config = {"learning_rate": 0.5, "beta1": 0.5, "beta2": 0.75, "epsilon": 1.0, "m": one, "v": one, "t": 1}
    m, v = 0.5 + 0.5 * 4, 0.75 + 0.25 * 16
    expected = 1 - 0.5 * (m / (1 - 0.5**2)) / (np.sqrt(v / (1 - 0.75**2)) + 1)
    assert adam(one, dw, config)[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("order", ["C", "F"])
def test_nothing_of_the_callers_is_changed(rule, order):
    w, dw = np.asarray(W, order=order).copy(order), np.asarray(DW, order=order).copy(order)
    state = {key: np.asfortranarray(W + 1) for key in ("velocity", "cache", "m", "v")}
    kept = {key: value.copy() for key, value in state.items()}
    next_w, config = rule(w, dw, dict(state))
    assert np.array_equal(w, W)
    assert np.array_equal(dw, DW)
    assert all(np.array_equal(state[key], kept[key]) for key in state)
    assert next_w.shape == W.shape
    assert not any(np.shares_memory(next_w, a) for a in (w, dw, *config.values()) if isinstance(a, np.ndarray))
    plain = rule(W, DW, {key: np.ascontiguousarray(value) for key, value in state.items()})[0]
    np.testing.assert_allclose(next_w, plain, rtol=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_state_of_earlier_steps_stays_as_it_was(rule):
    _, config = rule(W, DW)
    first = {key: value for key, value in config.items() if isinstance(value, np.ndarray)}
    kept = {key: value.copy() for key, value in first.items()}
    rule(W, DW, config)
    assert all(np.array_equal(first[key], kept[key]) for key in first)
    assert all(not np.array_equal(config[key], kept[key]) for key in first)


@pytest.mark.parametrize("rule", RULES)
def test_dtypes_and_shapes(rule):
    single = rule(W.astype("float32"), DW.astype("float32"))[0]
    assert single.dtype == "float32"
    np.testing.assert_allclose(single, rule(W, DW)[0], rtol=1e-5, atol=1e-6)
    assert rule(W.astype("float32"), DW)[0].dtype == "float64", "as NumPy promotes"
    assert rule(np.arange(3), np.ones(3))[0].dtype == "float64"
    assert rule(1.0, 0.5)[0].shape == ()
    assert rule(np.zeros((0, 3)), np.zeros((0, 3)))[0].shape == (0, 3)


@pytest.mark.parametrize("rule", RULES)
def test_a_parabola_is_minimised(rule):
    w, config = np.array([3.0, -2.0]), {"learning_rate": 0.05}
    for _ in range(400):
        w, config = rule(w, 2 * (w - 1), config)
    np.testing.assert_allclose(w, 1, atol=0.06)


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"sgd: dw: expected the shape \(4, 5\) of w, got \(5, 4\)"):
        sgd(W, DW.T)
    with pytest.raises(ValueError, match=r"sgd_momentum: config\['velocity'\]"):
        sgd_momentum(W, DW, {"velocity": np.zeros(3)})
    with pytest.raises(TypeError, match=r"adam: dw: expected an array"):
        adam(W, None)
