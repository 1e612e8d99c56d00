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


def trained(device, steps=4, classes=CLASSES, **options):
    """Return a Solver after so many steps."""
    net = {"hidden_dims": [12, 12, 8], "input_dim": 6, "num_classes": classes, "precision": "bf16"} | options
    model = fcnet.FullyConnectedNet(**net, device=device)
    solver = fcnet.Solver(model, blobs(n=120, c=classes, dtype="float32"), batch_size=60, verbose=False)
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
    ],
)
def test_the_bits_of_the_recorded_calls(options, device, in_turn, monkeypatch):
    found = trained(device, **options)
    monkeypatch.setattr(rounded_once.RoundedOnce, "__call__", lambda self, calls: ([], calls))
    expected = trained(device, **options)
    assert found.loss_history == expected.loss_history
    np.testing.assert_array_equal(np.array(found.model.params.flat), np.array(expected.model.params.flat))


def test_a_weight_set_between_steps_is_seen(device, in_turn, monkeypatch):
    def set_and_go_on(solver):
        solver.model.params["W2"] = np.full((12, 12), 0.3)
        solver.step()
        return solver.loss_history

    found = set_and_go_on(trained(device))
    monkeypatch.setattr(rounded_once.RoundedOnce, "__call__", lambda self, calls: ([], calls))
    assert found == set_and_go_on(trained(device))


@pytest.mark.parametrize(
    ("options", "inside", "apart"),
    [
        # Of 4 layers: three outputs and gradients inside, the batch, four weights and the loss's gradient apart.
        ({}, 6, 6),
        # The last hidden layer's output is read in float32 by the output layer, which rounds nothing.
        ({"classes": 3}, 5, 4),
        # Only ReLU's kernels write bfloat16: three outputs and gradients more apart.
        ({"activation": "tanh"}, 0, 12),
    ],
)
def test_how_often_something_is_rounded(options, inside, apart, device, in_turn, cupy, monkeypatch):
    calls = []
    compile = rounded_once.RoundedOnce.__call__
    monkeypatch.setattr(
        rounded_once.RoundedOnce, "__call__", lambda self, recorded: calls.extend(compile(self, recorded)) or calls
    )
    trained(device, steps=1, **options)
    cupy.fake.log.clear()
    for call in calls:
        call()
    launched = [entry[1] for entry in cupy.fake.log if entry[0] == "launch"]
    assert sum("bf16" in name and name != "to_bf16" for name in launched) == inside
    assert launched.count("to_bf16") == apart


def test_it_is_captured(device):
    steps = trained(device, steps=1)._compiled_steps
    assert [type(step) for step in steps.values()] == [Captured]


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
