"""The Optimizer: a rule over a network's flat buffers."""

import copy
import itertools
import math

import numpy as np
import pytest

from fcnet.backends.step import StepRecorder
from fcnet.nn.params import ParamBuffer
from fcnet.optim import RULES, Optimizer
from tests import oracles
from tests.small import blobs, net
from tests.tolerances import assert_close

pytestmark = pytest.mark.references  # the kernels of rules: test_rules.py

SHAPES = {"W1": (5, 7), "b1": (7,), "W2": (7, 3), "b2": (3,)}


@pytest.fixture(params=sorted(RULES))
def name(request):
    return request.param


@pytest.fixture
def make(backend, rng):
    """make(dtype): parameters and gradients with random values, zero padding."""

    def buffers(dtype="float64"):
        pair = []
        for _ in range(2):
            buffer = ParamBuffer(backend, SHAPES, dtype)
            for key, shape in SHAPES.items():
                buffer[key] = rng.standard_normal(shape).astype(np.float32)
            pair.append(buffer)
        return pair

    return buffers


def expected_after(optimizer, key, before, steps):
    """Return the oracle's values of a tensor; only matrices decay, which an oracle of its own may know."""
    config = dict(optimizer.config)
    oracle = oracles.RULES[optimizer.rule]
    if oracle.decays:
        config["weight_decay"] = optimizer.weight_decay if key.startswith("W") else 0
    return oracle.after(before, steps, **config)


def test_updates_are_the_oracles_for_every_tensor(name, make, host, dtype):
    params, grads = make(dtype)
    before = {key: host(params[key]).ravel() for key in SHAPES}
    optimizer = Optimizer(name, params, {"learning_rate": 0.125})
    for number in range(1, 4):
        optimizer.update(grads)
        for key in SHAPES:
            steps = [host(grads[key]).ravel()] * number
            expected = expected_after(optimizer, key, before[key], steps)
            assert_close(host(params[key]).ravel(), expected, dtype, "update")
    assert host(optimizer.step_counter).tolist() == [3]


def test_padding_stays_zero(name, make, host, dtype):
    params, grads = make(dtype)
    optimizer = Optimizer(name, params)
    for _ in range(20):
        optimizer.update(grads)
    for buffer in (params, grads, *optimizer.moments.values()):
        assert host(buffer.flat).size > sum(math.prod(shape) for shape in SHAPES.values())
        for key in SHAPES:
            assert host(buffer[key]).any(), key
            buffer[key][...] = 0
        assert not host(buffer.flat).any()


def test_moments_are_buffers_of_zeros(name, make, host):
    params, _ = make()
    optimizer = Optimizer(name, params)
    assert tuple(optimizer.moments) == RULES[name].moments
    for moment in optimizer.moments.values():
        assert moment.shapes == params.shapes
        assert moment.dtype == params.dtype
        assert not host(moment.flat).any()


def test_config_is_the_defaults_with_what_was_given(name, make):
    params, _ = make()
    assert Optimizer(name, params).config == RULES[name].defaults
    given = {"learning_rate": 0.5}
    optimizer = Optimizer(name, params, given)
    assert optimizer.config == {**RULES[name].defaults, "learning_rate": 0.5}
    optimizer.learning_rate = 0.25
    assert given == {"learning_rate": 0.5}


def test_learning_rate_may_be_set_between_updates(name, make, host, backend):
    """Also for a recorded update, which reads it on the device."""
    params, grads = make()
    start = host(params["W1"]).ravel()
    optimizer, recorder = Optimizer(name, params, {"learning_rate": 0.1}), StepRecorder(backend)
    optimizer.update(grads, recorder)
    after_one = host(params["W1"]).ravel()
    optimizer.learning_rate = 0
    assert optimizer.learning_rate == 0.0
    recorder.repeat()
    expected = after_one  # the decay too is times the rate
    if name == "momentum":  # the velocity goes on
        expected = after_one + 0.9 * (after_one - start)
    elif name == "nesterov":  # whose first step is 1 + μ of the velocity, and the next μ² of it
        expected = after_one + 0.81 / 1.9 * (after_one - start)
    np.testing.assert_allclose(host(params["W1"]).ravel(), expected, rtol=1e-12)
    optimizer.learning_rate = 0.1
    recorder.repeat()
    assert (host(params["W1"]).ravel() != expected).all()


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (-1.0, ValueError, "learning_rate: expected 0 or more, got -1.0"),
        (float("inf"), ValueError, "learning_rate: expected a finite number, got inf"),
        ("fast", TypeError, "learning_rate: expected a number, got 'fast'"),
    ],
)
def test_a_bad_rate_is_refused_and_changes_nothing(value, error, message, make, host):
    params, grads = make()
    optimizer = Optimizer("sgd", params, {"learning_rate": 0.5})
    with pytest.raises(error) as caught:
        optimizer.learning_rate = value
    assert str(caught.value) == message
    before = host(params["b1"])
    optimizer.update(grads)
    np.testing.assert_allclose(host(params["b1"]), before - 0.5 * host(grads["b1"]), rtol=1e-12)


def test_repeating_a_recorded_update_is_updating(name, make, host, backend):
    params, grads = make()
    other = copy.deepcopy(params)
    recorded, direct = Optimizer(name, params), Optimizer(name, other)
    recorder = StepRecorder(backend)
    recorded.update(grads, recorder)
    for _ in range(4):
        recorder.repeat()
    for _ in range(5):
        direct.update(grads)
    np.testing.assert_array_equal(host(params.flat), host(other.flat))
    assert host(recorded.step_counter).tolist() == host(direct.step_counter).tolist() == [5]


def test_an_update_allocates_nothing_of_the_size_of_a_parameter(name, guard):
    params = ParamBuffer(guard, {"W": (50, 50), "b": (50,)}, "float32")
    optimizer, recorder = Optimizer(name, params), StepRecorder(guard)
    grads = params.like()
    optimizer.update(grads, recorder)
    with guard.recording() as log, guard.no_waits():
        recorder.repeat()
    assert max((event.nbytes for event in log.allocations), default=0) <= 8
    assert log.uploads == []


def test_gradients_are_not_changed(name, make, untouched):
    params, grads = make()
    with untouched(grads.flat):
        Optimizer(name, params).update(grads)


@pytest.mark.parametrize(
    ("rule", "config", "error", "message"),
    [
        (
            "adma",
            None,
            ValueError,
            f"update_rule: expected one of {', '.join(RULES)}; got 'adma'; did you mean 'adam'?",
        ),
        (
            "adam",
            {"beta_1": 0.9},
            ValueError,
            "optim_config for adam: expected one of learning_rate, beta1, beta2, epsilon; "
            "got 'beta_1'; did you mean 'beta1'?",
        ),
        ("sgd", {"momentum": 0.9}, ValueError, "optim_config for sgd: expected one of learning_rate; got 'momentum'"),
        ("sgd", {"learning_rate": -1}, ValueError, "optim_config['learning_rate']: expected 0 or more, got -1.0"),
        (
            "sgd",
            {"learning_rate": float("nan")},
            ValueError,
            "optim_config['learning_rate']: expected a finite number, got nan",
        ),
        ("sgd", {"learning_rate": "1e-3"}, TypeError, "optim_config['learning_rate']: expected a number, got '1e-3'"),
        ("momentum", {"momentum": 1.0}, ValueError, "optim_config['momentum']: expected 0 <= momentum < 1, got 1.0"),
        ("adam", {"beta1": -0.1}, ValueError, "optim_config['beta1']: expected 0 <= beta1 < 1, got -0.1"),
        ("adam", {"epsilon": -1e-8}, ValueError, "optim_config['epsilon']: expected 0 or more, got -1e-08"),
        ("rmsprop", {"decay_rate": 2}, ValueError, "optim_config['decay_rate']: expected 0 <= decay_rate < 1, got 2.0"),
        ("sgd", [1e-3], TypeError, "optim_config: expected a dict such as {'learning_rate': 1e-3}, got [0.001]"),
    ],
)
def test_bad_arguments_are_named(rule, config, error, message, make):
    params, _ = make()
    with pytest.raises(error) as caught:
        Optimizer(rule, params, config)
    assert str(caught.value) == message


def test_gradients_as_a_network_gives_them():
    data = blobs()
    one, two = net(data, dtype="float64"), net(data, dtype="float64")
    _, grads = one.loss(data.X_train, data.y_train)
    buffer = two.params.like()
    buffer.update(grads)
    Optimizer("adam", one.params).update(grads)
    Optimizer("adam", two.params).update(buffer)
    np.testing.assert_array_equal(one.params.flat, two.params.flat)


def test_gradients_of_something_else_are_refused():
    data = blobs()
    model = net(data)
    optimizer = Optimizer("sgd", model.params)
    for grads, message in [
        (None, "grads: expected gradients by name"),
        ({"W1": model.params["W1"]}, "missing or unknown: W2, W3, b1, b2, b3"),
        (net(data, hidden=(9, 9)).params, "grads: expected gradients of"),
        (net(data, dtype="float64").params, "grads: expected gradients of"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            optimizer.update(grads)
    with pytest.raises(TypeError, match="params: expected the params of a network"):
        Optimizer("sgd", {})


def test_hyperparameters_are_read_only():
    optimizer = Optimizer("adam", net(blobs()).params)
    with pytest.raises(TypeError):
        optimizer.config["beta1"] = 0


@pytest.mark.parametrize(("rule", "epsilon"), [("adam", 0), ("rmsprop", 0), ("adam", 1e-60)])
def test_an_epsilon_that_is_nothing_is_refused(rule, epsilon):
    """Padding has gradient 0, and 0 / 0 would spread."""
    with pytest.raises(ValueError, match=r"optim_config\['epsilon'\]: expected more than 0 in float32"):
        Optimizer(rule, net(blobs()).params, {"epsilon": epsilon})


def test_weight_decay_is_beside_any_rule_and_of_matrices_only(name, make, host, dtype):
    """w = (1 - η λ) w before each step of the rule, whose own steps do not know w."""
    params, grads = make(dtype)
    before = {key: host(params[key]).ravel() for key in SHAPES}
    oracle = oracles.RULES[name]
    none = {"weight_decay": 0} if oracle.decays else {}
    optimizer = Optimizer(name, params, {"learning_rate": 0.125}, weight_decay=0.5)
    for number in range(1, 4):
        optimizer.update(grads)
        for key in SHAPES:
            path = [
                oracle.after(before[key], [host(grads[key]).ravel()] * made, **optimizer.config, **none)
                for made in range(number + 1)
            ]
            expected = path[0]
            for last, new in itertools.pairwise(path):
                expected = expected * (1 - 0.125 * 0.5 * (key[0] == "W")) + (new - last)
            assert_close(host(params[key]).ravel(), expected, dtype, "update")


def test_decay_is_apart_from_the_gradient():
    """With L2 the moments would know of the weights; adamw's are those of adam."""
    data = blobs()
    moments = []
    for rule in ("adam", "adamw"):
        model = net(data, dtype="float64")
        optimizer = Optimizer(rule, model.params)
        _, grads = model.loss(data.X_train, data.y_train)
        optimizer.update(grads)
        moments.append(optimizer.moments["m"].flat)
    np.testing.assert_array_equal(*moments)
    assert Optimizer("adamw", model.params).weight_decay == 0.01
    assert Optimizer("adamw", model.params, weight_decay=0).weight_decay == 0
    assert Optimizer("adam", model.params).weight_decay == 0


def test_it_is_torchs_adamw(make, host, dtype):
    torch = pytest.importorskip("torch")
    params, grads = make(dtype)
    tensors = {key: torch.tensor(host(params[key]), dtype=torch.float64, requires_grad=True) for key in SHAPES}
    theirs = torch.optim.AdamW(
        [
            {"params": [tensors[key] for key in SHAPES if key[0] == "W"], "weight_decay": 0.3},
            {"params": [tensors[key] for key in SHAPES if key[0] == "b"], "weight_decay": 0.0},
        ],
        lr=0.05,
    )
    ours = Optimizer("adamw", params, {"learning_rate": 0.05}, weight_decay=0.3)
    for _ in range(10):
        for key in SHAPES:
            tensors[key].grad = torch.tensor(host(grads[key]), dtype=torch.float64)
        theirs.step()
        ours.update(grads)
    for key in SHAPES:
        assert_close(host(params[key]), tensors[key].detach().numpy(), dtype, "update")


def test_multipliers_are_on_the_rate_and_zero_freezes(name, make, host, dtype):
    """Also for rules, such as Adam, that forget the size of a gradient."""
    params, grads = make(dtype)
    before = {key: host(params[key]).ravel() for key in SHAPES}
    factors = {"W1": 0, "b1": 0, "W2": 0.25, "b2": 1}
    optimizer = Optimizer(
        name, params, {"learning_rate": 0.5}, multipliers={k: v for k, v in factors.items() if v != 1}
    )
    twins = {k: Optimizer(name, copy.deepcopy(params), {"learning_rate": 0.5 * v}) for k, v in factors.items()}
    for number in range(4):
        if number == 2:  # as a schedule does
            optimizer.learning_rate = 0.25
            for key, twin in twins.items():
                twin.learning_rate = 0.25 * factors[key]
        optimizer.update(grads)
        for key, twin in twins.items():
            twin.update(grads)
            expected = host(twin.params[key]).ravel() if factors[key] else before[key]
            np.testing.assert_array_equal(host(params[key]).ravel(), expected)
    for moment in optimizer.moments.values():
        assert not host(moment["W1"]).any()
        assert not host(moment["b1"]).any()
        assert host(moment["W2"]).any()
    assert host(optimizer.step_counter).tolist() == [4]


def test_neighbours_with_one_factor_are_updated_by_one_call(backend):
    params = ParamBuffer(
        backend, {f"{kind}{i}": (3, 4)[kind == "b" :] for i in range(1, 5) for kind in "Wb"}, "float64"
    )

    def calls(**factors):
        recorder = StepRecorder(backend)
        Optimizer("sgd", params, multipliers=factors).update(params.like(), recorder)
        return len(recorder.calls) - 1  # the last one counts the step

    assert calls() == 1
    assert calls(W1=0, W2=0, b1=0, b2=0) == 2  # the matrices above, and the vectors
    assert calls(W4=0.5, b4=0.5) == 4
    assert calls(**dict.fromkeys(params, 0.1)) == 1
    assert calls(**dict.fromkeys(params, 0)) == 0


def test_a_copy_of_an_optimizer_goes_on_by_itself(name, make, host):
    params, grads = make()
    one = Optimizer(name, params, multipliers={"W1": 0.5}, weight_decay=0.1)
    one.update(grads)
    other = copy.deepcopy(one)
    for optimizer in (one, other):
        optimizer.learning_rate = 0.3
        optimizer.update(grads)
    np.testing.assert_array_equal(host(one.params.flat), host(other.params.flat))
    assert one.params is not other.params


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"weight_decay": -0.1}, ValueError, "weight_decay: expected 0 or more, got -0.1"),
        ({"weight_decay": "x"}, TypeError, "weight_decay: expected a number, got 'x'"),
        ({"multipliers": {"W9": 1}}, ValueError, "multipliers: expected one of W1, b1, W2, b2; got 'W9'"),
        ({"multipliers": {"W1": -1}}, ValueError, "multipliers['W1']: expected 0 or more, got -1"),
        ({"multipliers": [1]}, TypeError, "multipliers: expected a dict such as {'W1': 0.1}, got [1]"),
    ],
)
def test_bad_decay_and_multipliers_are_named(options, error, message, make):
    params, _ = make()
    with pytest.raises(error) as caught:
        Optimizer("sgd", params, **options)
    assert str(caught.value).startswith(message)
