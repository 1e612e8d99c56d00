"""Steps in bfloat16 whose matrices are rounded once: the recorded calls' bits, and how often something is rounded.

On the stand-in for CuPy, whose kernels are the CUDA source.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest

import fcnet
from fcnet import functional as F
from fcnet.backends.cuda import graph, rounded_once
from fcnet.backends.cuda.graph import Captured
from fcnet.backends.cuda.rounded_once import Refreshed
from fcnet.backends.device import Call, CallSequence
from tests.backends.cuda_fake import fake_backend, fake_cublas, fake_cupy
from tests.small import blobs

CLASSES = 40  # more than layers have that are made in full precision


@pytest.fixture
def cupy(monkeypatch):
    module = fake_cupy()
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


@pytest.fixture
def device(cupy, monkeypatch):
    return fake_backend(cupy, fake_cublas(cupy), monkeypatch)


@pytest.fixture
def in_turn(monkeypatch):
    """Make calls in turn: the stand-in does not capture what NumPy computes."""
    monkeypatch.setattr(graph, "compile", lambda cupy, calls, strategies: CallSequence(calls))


def trained(device, steps=4, classes=CLASSES, training=None, freeze=(), **options):
    """Return a Solver after so many steps."""
    net = {"hidden_dims": [12, 12, 8], "input_dim": 6, "num_classes": classes, "precision": "bf16"} | options
    model = fcnet.FullyConnectedNet(**net, device=device)
    model.freeze(freeze)
    how = {"batch_size": 60, "verbose": False} | (training or {})
    solver = fcnet.Solver(model, blobs(n=120, c=classes, dtype="float32"), **how)
    solver.step(steps)
    return solver


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"classes": 3, "dropout_keep_ratio": 0.7, "hidden_dims": [12, 7, 8]},
        {"dropout_keep_ratio": 0.7, "dropout": "plain", "reg": 0.1},
        {"normalization": "batchnorm"},
        {"normalization": "layernorm", "activation": "tanh"},
        {"activation": ["relu", "tanh", "relu"]},
        {"hidden_dims": []},
        # Steps of two sizes in turn, of which each has copies of the weights; rates that differ from step to step.
        {"steps": 9, "training": {"batch_size": 50, "schedule": lambda step: 1 / (1 + step), "weight_decay": 0.1}},
        {"training": {"lr_multipliers": {2: 0.5}, "max_norm": 0.5}},
        {"freeze": [1], "training": {"lr_multipliers": {3: 0.5}, "schedule": lambda step: 1 / (1 + step)}},
    ],
)
def test_the_bits_of_the_recorded_calls(options, device, in_turn, monkeypatch):
    found = trained(device, **options)
    monkeypatch.setattr(rounded_once.RoundedOnce, "__call__", lambda self, calls: ([], calls))
    expected = trained(device, **options)
    assert found.loss_history == expected.loss_history
    np.testing.assert_array_equal(np.array(found.model.params.flat), np.array(expected.model.params.flat))


@pytest.mark.parametrize("flat", [False, True])
def test_a_weight_set_between_steps_is_seen(flat, device, in_turn, monkeypatch):
    """Also one of a frozen layer, and where the array itself is written to."""

    def set_and_go_on(solver):
        for weights in ("W1", "W2"):
            if flat:
                solver.model.params[weights][...] = 0.3
            else:
                solver.model.params[weights] = np.full(solver.model.params[weights].shape, 0.3)
            solver.step(2)
        return solver.loss_history

    found = set_and_go_on(trained(device, freeze=[1]))
    monkeypatch.setattr(rounded_once.RoundedOnce, "__call__", lambda self, calls: ([], calls))
    assert found == set_and_go_on(trained(device, freeze=[1]))


@pytest.mark.parametrize(
    ("options", "roundings", "widenings"),
    [
        # The loss's gradient, of which the output layer's bias takes a sum in float32.
        ({}, 1, 0),
        ({"classes": 3, "normalization": "batchnorm"}, 0, 0),
        ({"activation": "gelu", "dropout_keep_ratio": 0.7}, 1, 0),
        # Layer norm's gradients, too.
        ({"normalization": "layernorm", "activation": "tanh"}, 4, 0),
        # Plain dropout reads and writes float32: three inputs and outputs of layers, and of the gradients.
        ({"dropout": "plain", "dropout_keep_ratio": 0.7, "classes": 3}, 6, 6),
    ],
)
def test_how_often_something_is_converted(options, roundings, widenings, device, in_turn, cupy):
    """In each of several steps; the weights only once for all of them, though here an epoch ends in between."""
    solver = trained(device, steps=1, **options)
    cupy.fake.log.clear()
    solver.step(2)
    launched = [entry[1] for entry in cupy.fake.log if entry[0] == "launch"]
    weights = 3 if options.get("classes") == 3 else 4
    assert launched.count("to_bf16") == 2 * roundings + weights
    assert launched.count("from_bf16") == 2 * widenings


def test_it_is_captured_and_makes_many_steps(device):
    (step,) = trained(device, steps=1)._compiled_steps.values()
    assert isinstance(step, Refreshed)
    assert isinstance(step.step, Captured)
    assert step.description.startswith("a CUDA graph captured in ")


def test_beside_an_unknown_call_nothing_is_rewritten(device, cupy):
    """It may read or write anything."""
    x, w, out = (cupy.empty((2, 2), "float32") for _ in range(3))
    product = recorded_product(x=x, w=w, out=out)
    rewrite = rounded_once.RoundedOnce(device._launcher, device._own_gemm, device.run_concurrently)
    calls = [product, Call(print)]
    assert rewrite(calls) == ([], calls)


def test_an_array_that_was_written_is_rounded_again(device, cupy):
    x, w, out = (cupy.empty((2, 2), "float32") for _ in range(3))
    product = recorded_product(x=x, w=w, out=out)
    rewrite = rounded_once.RoundedOnce(device._launcher, device._own_gemm, device.run_concurrently)
    before, calls = rewrite([product, recorded_product(x=w, w=w, out=x), product])
    assert [call.name for call in before] == ["round_to_bf16"]  # w: nothing writes to it
    assert [call.name for call in calls] == ["round_to_bf16", "multiply", "multiply", "round_to_bf16", "multiply"]


def recorded_product(**arrays):
    call = Call(F.matmul, **arrays, precision="bf16")
    call.name, call.outputs, call.known = "matmul", frozenset(["out"]), True
    return call
