"""Weights that are updated beside the lowest layer's gradients: the recorded calls' bits, and what runs beside what.

On the stand-in for CuPy, whose kernels are the CUDA source.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest

import fcnet
from fcnet.backends.cuda import graph, overlapped_update
from fcnet.backends.cuda.overlapped_update import OverlappedUpdate
from fcnet.backends.device import CallSequence
from tests.backends.cuda_fake import fake_backend, fake_cublas, fake_cupy
from tests.small import blobs


@pytest.fixture
def device(monkeypatch):
    cupy = fake_cupy()
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return fake_backend(cupy, fake_cublas(cupy), monkeypatch)


@pytest.fixture
def compiled(monkeypatch):
    """The calls of each compiled step, which are made in turn: the stand-in does not capture what NumPy computes."""
    steps = []
    monkeypatch.setattr(graph, "compile", lambda cupy, calls, strategies: steps.append(calls) or CallSequence(calls))
    monkeypatch.setattr(overlapped_update, "LEAST", 100)
    monkeypatch.setattr(overlapped_update, "SMALL", 520)
    return steps


def trained(device, steps=3, **options):
    """Return a Solver after so many steps."""
    net = {"hidden_dims": [20, 12, 12], "input_dim": 8, "num_classes": 5, "reg": 0} | options
    how = {name: net.pop(name) for name in ("update_rule", "clip_norm", "freeze") if name in net}
    model = fcnet.FullyConnectedNet(**net, device=device)
    data = blobs(n=120, d=8, c=5, dtype="float32")
    solver = fcnet.Solver(model, data, batch_size=60, schedule="constant", verbose=False, **how)
    solver.step(steps)
    return solver


def aside(calls):
    """The updates that are made aside, by the size of their part."""
    found = [call for call in calls if call.name == "run_concurrently"]
    return [[call.arguments["w"].size for call in both.keywords["aside"]] for both in found]


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({}, [544]),  # 20 x 12, 12 x 12 and 12 x 5 are filled up to 64, and so is the matrix before them
        ({"update_rule": "momentum", "normalization": "batchnorm", "dropout_keep_ratio": 0.7}, [544]),
        ({"update_rule": "sgd", "precision": "bf16", "activation": "tanh"}, [544]),
    ],
)
def test_the_bits_of_the_recorded_calls(options, parts, device, compiled, monkeypatch):
    found = trained(device, **options)
    assert aside(compiled[0]) == [parts]
    monkeypatch.setattr(OverlappedUpdate, "__call__", lambda self, calls: calls)
    expected = trained(device, **options)
    assert found.loss_history == expected.loss_history
    np.testing.assert_array_equal(np.array(found.model.params.flat), np.array(expected.model.params.flat))


def test_every_weight_is_updated_once(device, compiled):
    solver = trained(device, steps=1)
    seen, start = [], solver.model.params.flat.data.ptr
    for call in compiled[0]:
        for one in call.keywords["aside"] if call.name == "run_concurrently" else [call]:
            if one.name == "adam":
                begin = (one.arguments["w"].data.ptr - start) // 4
                seen += range(begin, begin + one.arguments["w"].size)
    assert sorted(seen) == list(range(solver.model.params.flat.size))


@pytest.mark.parametrize(
    "options",
    [
        {"reg": 0.1},  # the penalty reads all weights after the last product
        {"clip_norm": 1.0},
        {"hidden_dims": [20]},  # little is left for a second stream
        {"hidden_dims": []},
    ],
)
def test_steps_that_stay_as_they_are(options, device, compiled):
    trained(device, steps=1, **options)
    assert aside(compiled[0]) == []


def test_the_graph_has_two_branches(device, monkeypatch):
    monkeypatch.setattr(overlapped_update, "LEAST", 100)
    monkeypatch.setattr(overlapped_update, "SMALL", 520)
    beside = []
    monkeypatch.setattr(device, "run_concurrently", lambda first, second: beside.append(1) or (first(), second()))
    solver = trained(device, steps=1)
    assert isinstance(*solver._compiled_steps.values(), graph.Captured)
    assert beside
