"""A small net's step on a large batch, rows by rows: the step call by call to rounding, the same bits in every way."""

from __future__ import annotations

import numpy as np
import pytest

from fcnet.backends import get_backend
from fcnet.backends.cpu import loader
from tests.small import blobs, solver
from tests.tolerances import TOLERANCES

ROWS = 1100  # of a batch: two whole pieces, and a part of a block
NETS = {
    "tanh, squares": {"activation": "tanh", "loss": "mse"},
    "relu and gelu, labels": {"activation": ["relu", "gelu"], "reg": 0.1},
    "elu, rows of shares, weighted": {"activation": "elu", "label_smoothing": 0.1, "weighted": True},
    "softplus, hinge": {"activation": "softplus", "loss": "svm"},
    "no hidden layer, bce": {"loss": "bce", "hidden": ()},
    "odd widths": {"activation": ["silu", "sigmoid", "leaky_relu"], "hidden": (17, 1, 5)},
    "inputs turned in strips": {"features": 70},
}

GATHERED_BEFORE = ("elu, rows of shares, weighted",)  # another call reads the batch's labels, too


@pytest.fixture(autouse=True)
def products(cpu_kernels):
    if "matmul" not in loader.load().kernels:
        pytest.skip("no library for products")


def trained(steps=3, *, hidden=(8, 7), weighted=False, features=6, **options):
    """The solver of a net after so many steps."""
    data = blobs(ROWS, features, dtype="float32")
    if options.get("loss") in ("mse", "bce"):
        hot = np.eye(3, dtype=np.float32)
        data = type(data)(
            X_train=data.X_train, y_train=hot[data.y_train], X_val=data.X_val, y_val=hot[data.y_val],
            targets="numbers", preprocess="none",
        )  # fmt: skip
    how = {"class_weight": {0: 0.5, 1: 1.0, 2: 2.0}} if weighted else {}
    one = solver(data, update_rule="adam", batch_size=ROWS, net_options={"hidden": hidden} | options, **how)
    one.step(steps)
    return one


def names(one):
    (step,) = one._compiled_steps.values()
    return [entry.thunk._function.__name__ for part in step.calls for entry in getattr(part, "thunks", ())]


def gathers(one):
    """Whether the batch is gathered by a call of its own."""
    (step,) = one._compiled_steps.values()
    return "_thunk_batch_rows" in names(one) or any(getattr(part, "name", "") == "next_batch" for part in step.calls)


@pytest.mark.parametrize("net", NETS)
def test_it_is_the_step_call_by_call(net, monkeypatch):
    one = trained(**NETS[net])
    assert "_thunk_row_blocks" in names(one)
    assert gathers(one) is (net in GATHERED_BEFORE)
    monkeypatch.setattr(loader, "shortened", lambda calls: None)
    other = trained(**NETS[net])
    assert "_thunk_row_blocks" not in names(other)
    rtol, atol = TOLERANCES["float32", "gemm"]
    np.testing.assert_allclose(one.loss_history, other.loss_history, rtol=10 * rtol)
    np.testing.assert_allclose(one.model.params.flat, other.model.params.flat, rtol=100 * rtol, atol=100 * atol)


def test_neither_threads_nor_a_new_recording_change_bits(monkeypatch):
    from fcnet.backends.cpu import pool

    one, bits = trained(4, activation="tanh"), []
    for num_threads in (1, 3):
        with monkeypatch.context() as patch:
            alone = pool.Pool(num_threads)
            patch.setattr(pool, "_pool", alone)
            other = trained(1, activation="tanh")
            for _ in range(3):
                other._compiled_steps.clear()  # so that each step is the first one
                other.step()
            bits.append(other.model.params.flat.tobytes())
            alone.close()
    assert bits == [one.model.params.flat.tobytes()] * 2


@pytest.mark.parametrize(
    "options",
    [{"normalization": "batchnorm"}, {"dropout_keep_ratio": 0.5}, {"dtype": "float64"}, {"activation": "maxout"},
     {"hidden": (200, 200)}],
    ids=str,
)  # fmt: skip
def test_other_nets_go_call_by_call(options):
    assert "_thunk_row_blocks" not in names(trained(1, **options))


def test_calls_that_are_no_step_are_left():
    assert loader.shortened([]) is None
    assert get_backend("cpu").snapshot([np.empty(1 << 20)]) is None
