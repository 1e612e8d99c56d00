"""What the persistent kernel trains besides softmax and ReLU: its source, run on the CPU, against the CPU's Solver."""

from __future__ import annotations

import sys
from importlib.resources import files

import numpy as np
import pytest

import fcnet
from fcnet.backends.cuda import persistent_step
from fcnet.backends.cuda.sources import ACTIVATIONS
from fcnet.data import Dataset
from fcnet.functional.activation import activation_named
from tests.backends.cuda_fake import fake_backend, fake_cublas, fake_cupy
from tests.kernels.cuda_cpu import CpuKernel

#: A kernel that applies activation.cu to each number.
EACH = """
extern "C" __global__ void each(real* out, real* dx, const real* x)
{
    const int i = threadIdx.x;
    out[i] = ACTIVATION::of(x[i]), dx[i] = ACTIVATION::slope(x[i]);
}
"""
STEPS = 11  # of batches of 24, with a last one of 3 in each epoch
ROWS, INPUTS, HIDDEN, OUTPUTS = 51, 7, (9, 5), 3


@pytest.fixture
def device(monkeypatch):
    """Return the stand-in for a GPU that keeps 16 blocks resident."""
    cupy = fake_cupy(processors=16)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(persistent_step, "THREADS", 64)
    return fake_backend(cupy, fake_cublas(cupy), monkeypatch)


def data(targets="labels", weighted=False, outputs=OUTPUTS):
    """Noise, and targets of it of some kind."""
    rng = np.random.default_rng(5)
    X = rng.standard_normal((ROWS, INPUTS)).astype(np.float32)
    y = {
        "labels": rng.integers(0, outputs, ROWS),
        "numbers": rng.standard_normal((ROWS, outputs)).astype(np.float32),
        "on or off": rng.integers(0, 2, (ROWS, outputs)).astype(np.float32),
    }[targets]
    weights = rng.uniform(0, 3, ROWS).astype(np.float32) if weighted else None
    parts = {"X_train": X, "y_train": y, "X_val": X[:9], "y_val": y[:9], "sample_weight": weights}
    return Dataset(**parts, targets="classes" if targets == "labels" else "numbers")


def solver(device, samples, net, freeze=0, **options):
    model = fcnet.FullyConnectedNet(
        net.pop("hidden", HIDDEN), INPUTS, net.pop("outputs", OUTPUTS), device=device, **net
    )
    how = {"update_rule": "momentum", "optim_config": {"learning_rate": 3e-2}, "batch_size": 24} | options
    found = fcnet.Solver(model, samples, **how, preprocess="none", verbose=False)
    if freeze:  # as after some training
        rng = np.random.default_rng(2)
        model.state.flat[...] = rng.uniform(0.5, 1.5, model.state.flat.size)
        model.params["b1"][...] = rng.standard_normal(model.params["b1"].size)
        for moments in found.optimizer.moments.values():
            for moment in moments.values():
                moment[...] = rng.uniform(-1e-2, 1e-2, moment.shape)
        model.freeze(range(1, freeze + 1))
    return found


def assert_same_training(device, samples, net, **options):
    """Check that the kernel makes the steps, and that they give the CPU's losses, weights and running statistics."""
    found, expected = (solver(where, samples, dict(net), **options) for where in (device, "cpu"))
    for steps in (1, 3, STEPS - 4):
        found.step(steps)
    expected.step(STEPS)
    assert {type(program).__name__ for program in found._compiled_steps.values()} == {"PersistentStep"}, (
        device.not_persistent
    )
    assert np.std(expected.loss_history) > 0
    np.testing.assert_allclose(found.loss_history, expected.loss_history, rtol=3e-6)
    for one, other in ((found.model.params, expected.model.params), (found.model.state, expected.model.state)):
        np.testing.assert_allclose(np.array(one.flat), other.flat, rtol=1e-4, atol=2e-6)


def rarely(*values):
    """Return a case that runs with -m slow only: each compiles a kernel of its own for some seconds."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("loss", "targets", "weighted"),
    [
        rarely("softmax", "labels", True),
        rarely("svm", "labels", False),
        ("svm", "labels", True),
        ("mse", "numbers", False),
        rarely("bce", "on or off", False),
        rarely("bce", "on or off", True),
        rarely("poisson", "on or off", False),
        rarely("poisson", "on or off", True),
    ],
)
def test_losses(loss, targets, weighted, device):
    assert_same_training(device, data(targets, weighted), {"loss": loss, "reg": 1e-2})


@pytest.mark.slow
def test_one_output(device):
    assert_same_training(device, data("numbers", True, outputs=1), {"loss": "mse", "outputs": 1, "hidden": (9,)})


@pytest.mark.parametrize("weighted", [False, rarely(True)])
def test_label_smoothing(weighted, device):
    assert_same_training(device, data(weighted=weighted), {"label_smoothing": 0.2, "dropout_keep_ratio": 0.8})


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_and_slope(name):
    head = f"#define ACTIVATION {ACTIVATIONS[name]}\ntypedef double real;\n"
    each = CpuKernel(head + files("fcnet.backends.cuda").joinpath("activation.cu").read_text("utf-8") + EACH, "each")
    x = np.concatenate([np.linspace(-9, 9, 500), [-1e3, 1e3]])
    out, dx = np.empty_like(x), np.empty_like(x)
    each((1,), (len(x),), (out, dx, x))
    kind = activation_named("activation", name)
    expected, cache = kind.forward(x.copy())
    np.testing.assert_allclose(out, expected, rtol=1e-13, atol=1e-300)
    np.testing.assert_allclose(dx, kind.backward(np.ones_like(x), cache), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("activation", ["gelu", *map(rarely, sorted(ACTIVATIONS.keys() - {"relu", "gelu"}))])
def test_activations(activation, device):
    assert_same_training(device, data(), {"activation": activation, "dropout_keep_ratio": 0.7})


@pytest.mark.parametrize("activation", ["elu", rarely("gelu")])
def test_activations_after_batch_norm(activation, device):
    assert_same_training(device, data(), {"activation": activation, "normalization": "batchnorm"})


@pytest.mark.parametrize("reg", [rarely(0), 1e-2])
def test_l1_penalty(reg, device):
    assert_same_training(device, data(), {"reg": reg, "reg_l1": 2e-2})


@pytest.mark.parametrize(
    ("normalization", "dropout", "layers"),
    [
        ("batchnorm", "inverted", 2),
        (None, "plain", 1),
        rarely("layernorm", "plain", 2),
        rarely(None, "inverted", 3),
    ],
)
def test_frozen_layers(normalization, dropout, layers, device):
    net = {"hidden": (9, 6, 5), "activation": "elu", "normalization": normalization, "reg": 1e-2}
    dropping = {"dropout": dropout, "dropout_keep_ratio": 0.7}
    assert_same_training(device, data(), {**net, **dropping}, freeze=layers, weight_decay=1e-2)


@pytest.mark.parametrize("schedule", [None, lambda step: 1 / (1 + step)])
def test_one_multiplier_of_all_rates(schedule, device):
    assert_same_training(device, data(), {}, lr_multipliers={1: 0.5, 2: 0.5, 3: 0.5}, schedule=schedule)


@pytest.mark.parametrize(
    ("normalization", "freeze", "multipliers", "rule"),
    [
        ("batchnorm", 0, {1: 0.1, 2: 4.0, 4: 0.5}, {"update_rule": "adam"}),
        ("layernorm", 1, {2: 3.0, 3: 0.1}, {"update_rule": "lion", "weight_decay": 0.3}),
        rarely(None, 2, {4: 3.0}, {"weight_decay": 0.3}),
    ],
)
def test_multipliers_that_differ(normalization, freeze, multipliers, rule, device):
    net = {"hidden": (9, 6, 5), "normalization": normalization, "dropout_keep_ratio": 0.7, "reg": 1e-2}
    rule = {"optim_config": {"learning_rate": 3e-3}, "schedule": lambda step: 1 / (1 + step)} | rule
    assert_same_training(device, data(), net, freeze=freeze, lr_multipliers=multipliers, **rule)


@pytest.mark.parametrize("activation", ["relu", rarely("silu")])
def test_plain_dropout(activation, device):
    assert_same_training(device, data(), {"activation": activation, "dropout": "plain", "dropout_keep_ratio": 0.6})


@pytest.mark.parametrize(
    ("activation", "hidden", "keep"),
    [("relu", (6, 34, 3), 0.8), rarely("relu", (9, 5), 1.0), rarely("tanh", (5,), 0.7)],
)
def test_layer_norm(activation, hidden, keep, device):
    net = {"activation": activation, "hidden": hidden, "dropout_keep_ratio": keep, "reg": 1e-2}
    assert_same_training(device, data(), {**net, "normalization": "layernorm"})


@pytest.mark.filterwarnings("ignore:this training step is not captured")  # what NumPy makes of it is not reproduced
def test_layers_that_differ_are_left_to_the_graph(device):
    trained = solver(device, data(), {"activation": ["elu", "relu"]})
    trained.step()
    assert device.not_persistent == "its layers differ in their activation"


@pytest.mark.parametrize(
    ("loss", "targets", "size", "ends"),
    [
        ("mse", "numbers", 1e17, False),
        ("mse", "numbers", 1e23, True),
        rarely("bce", "on or off", 1e37, False),
        rarely("bce", "on or off", np.finfo("float32").max, True),
        ("svm", "labels", np.finfo("float32").max, True),
    ],
)
def test_ends_before_a_loss_that_is_not_finite(loss, targets, size, ends, device):
    samples = data(targets)
    samples.X_train[0] = size
    trained = solver(device, samples, {"loss": loss, "hidden": ()})
    trained.model.params.flat[...] = 1
    with np.errstate(all="ignore"):
        trained.step(3)  # an epoch
    losses = trained.loss_history
    assert np.isfinite(losses).all() == (not ends)
    assert np.isfinite(np.array(trained.model.params["W1"])).all()
    assert np.isnan(np.array(trained.model.params["b1"])).all() == ends
    assert trained.optimizer.step_counter[0] == np.isfinite(losses).sum()
