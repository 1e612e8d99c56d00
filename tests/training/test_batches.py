"""Data too large for the device: brought batch by batch, with the same results."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import fcnet
from tests.small import blobs

KINDS = {
    "bytes": lambda X: (X * 20 + 128).clip(0, 255).astype("uint8"),
    "float32": lambda X: X.astype("float32"),
    "float64": lambda X: X * 1e3,
    "integers": lambda X: (X * 100).astype("int64") + 2**60 + 1,
    "images": lambda X: X.reshape(len(X), 2, 3).astype("float32"),
}


def data(kind="float32", preprocess="none", **changes):
    ds = blobs()
    parts = {f"X_{part}": KINDS[kind](X) for part, (X, _) in ds.splits().items()}
    return fcnet.data.Dataset(
        **(parts | {f"y_{part}": y for part, (_, y) in ds.splits().items()} | changes), preprocess=preprocess
    )


def solver(backend, ds, room, monkeypatch, batch_size=32, net=None, **options):
    net = {"normalization": "batchnorm", "dropout_keep_ratio": 0.8} | (net or {})
    outputs = net.pop("outputs", 3)
    model = fcnet.FullyConnectedNet([8], 6, outputs, device=backend, **net)
    with monkeypatch.context() as patch:
        patch.setattr(type(backend), "has_room", lambda self, nbytes: room(nbytes))
        how = {"update_rule": "sgd", "batch_size": batch_size, "num_epochs": 2, "verbose": False} | options
        return fcnet.Solver(model, ds, **how)


def always(nbytes):
    return True


def never(nbytes):
    return False


def state_of(one):
    to_numpy = one.model.backend.to_numpy
    return to_numpy(one.model.params.flat), to_numpy(one.model.state.flat)


def made_by_one_kernel(one):
    """Whether the device has a kernel of whole steps for this net, whose sums are in another order than a graph's."""
    return any("one kernel of" in line for line in one.how_steps_are_made)


def assert_same(one, other):
    if made_by_one_kernel(one) != made_by_one_kernel(other):  # only data on the device come to that kernel
        np.testing.assert_allclose(one.loss_history, other.loss_history, rtol=1e-4)
        return
    assert one.loss_history == other.loss_history
    for a, b in zip(state_of(one), state_of(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("preprocess", ["none", "standardize"])
@pytest.mark.parametrize("kind", KINDS)
def test_streamed_and_resident_training_give_the_same_bits(kind, preprocess, backend, monkeypatch):
    resident, streamed = (solver(backend, data(kind, preprocess), room, monkeypatch) for room in (always, never))
    assert (resident._parts.train.streamed, streamed._parts.train.streamed) == (False, True)
    resident.train(), streamed.train()
    assert_same(resident, streamed)
    if not made_by_one_kernel(resident):
        assert [row | {"seconds": 0} for row in resident.history] == [row | {"seconds": 0} for row in streamed.history]


def test_numbers_as_targets(backend, monkeypatch):
    ds = blobs()
    numbers = {f"y_{part}": X[:, :2] ** 2 for part, (X, _) in ds.splits().items()}
    ds = data(targets="numbers", **numbers)
    pair = [solver(backend, ds, room, monkeypatch, net={"loss": "mse", "outputs": 2}) for room in (always, never)]
    for one in pair:
        one.train()
    assert_same(*pair)


@pytest.mark.parametrize("room", [always, never])
def test_weights_of_samples(room, backend, monkeypatch):
    """All weights 1 change nothing; others are those of `model.loss`."""
    weights = np.arange(130) % 3
    plain, ones = (
        solver(backend, data(), room, monkeypatch),
        solver(backend, data(sample_weight=np.ones(130)), room, monkeypatch),
    )
    for one in (plain, ones):
        one.train()
    np.testing.assert_allclose(plain.loss_history, ones.loss_history, rtol=1e-5)
    order = np.random.default_rng(0).permutation(130)  # the loss of all samples does not depend on their order
    ds, net = data(), fcnet.FullyConnectedNet([8], 6, 3, device=backend, normalization="batchnorm")
    expected, _ = net.loss(ds.X_train[order], ds.y_train[order], sample_weight=weights[order])
    one = solver(
        backend, data(sample_weight=weights), room, monkeypatch, batch_size=130, net={"dropout_keep_ratio": 1.0}
    )
    one.step()
    np.testing.assert_allclose(one.loss_history[0], expected, rtol=1e-5)


def test_full_batch_methods_weigh_samples(backend, monkeypatch):
    pytest.importorskip("scipy")
    net = {"dropout_keep_ratio": 1.0, "normalization": None, "dtype": "float64"}
    half = np.repeat([1.0, 0.0], [100, 30])
    ds = data("float64", sample_weight=half)
    fewer = data("float64", X_train=ds.X_train[:100], y_train=ds.y_train[:100])
    pair = [solver(backend, d, always, monkeypatch, net=net, batch_size=None, update_rule="lbfgs") for d in (ds, fewer)]
    for one in pair:
        one.train()
    np.testing.assert_allclose(pair[0].loss_history[0] / pair[1].loss_history[0], 100 / 130, rtol=0.05)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(129), r"sample_weight: expected 130 numbers, one for each sample of X_train; got \(129,\)"),
        (np.full(130, -1.0), "sample_weight: expected numbers of 0 or more, not all 0; got -1.0"),
        (np.zeros(130), "not all 0"),
        (np.full(130, np.nan), "sample_weight"),
        (np.array(["a"] * 130), "sample_weight: expected numbers"),
        ([1.0] * 129, r"sample_weight: expected 130 numbers, one for each sample of X_train; got \(129,\)"),
    ],
)
def test_bad_weights_are_refused(weights, message):
    with pytest.raises((ValueError, TypeError), match=message):
        data(sample_weight=weights)


def test_what_has_room_is_resident(backend, monkeypatch):
    asked = []

    def room(nbytes):
        asked.append(nbytes)
        return len(asked) > 1

    one = solver(backend, data(), room, monkeypatch)
    assert (one._parts.train.streamed, one._parts.val.streamed) == (True, False)
    # X in float32, y in int64, and the network four times over: gradients, two moments, what a step takes
    assert asked[0] == 130 * (6 * 4 + 8) + 4 * one.model.params.flat.nbytes


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_goes_on_where_the_original_was(copied, backend, monkeypatch):
    one = solver(backend, data(), never, monkeypatch)
    one.step(), one.step()
    other = copied(one)
    for _ in range(5):  # over the short last batch and the epoch's end
        one.step(), other.step()
    assert_same(one, other)


def test_a_change_that_asks_for_a_new_recording_loses_no_batch(backend, monkeypatch):
    pair = [solver(backend, data(), room, monkeypatch) for room in (always, never)]
    for one in pair:
        one.step(), one.step()
        one.model.reg = 0.1
        one.step(), one.step()
    assert_same(*pair)


def test_full_batch_methods_bring_everything(backend, monkeypatch):
    pytest.importorskip("scipy")
    net = {"dropout_keep_ratio": 1.0, "normalization": None}
    pair = [
        solver(backend, data(), room, monkeypatch, net=net, batch_size=None, update_rule="lbfgs")
        for room in (always, never)
    ]
    for one in pair:
        one.train()
    assert_same(*pair)


def test_the_title_says_so(backend, monkeypatch):
    titles = []

    class Silent:
        def __init__(self, title, *_, **__):
            titles.append(title)
            raise KeyboardInterrupt

    monkeypatch.setattr("fcnet.training.solver.Progress", Silent)
    for room in (always, never):
        with pytest.raises(KeyboardInterrupt):
            solver(backend, data(), room, monkeypatch).train()
    assert titles == [f"data on {backend.name}", f"data, streamed, on {backend.name}"]


def test_a_loss_that_is_not_finite_is_found_within_a_chunk(backend, monkeypatch):
    monkeypatch.setattr("fcnet.training.solver.LOSS_CHUNK", 4)
    one = solver(backend, data(), always, monkeypatch, batch_size=2)
    one.model.params["W1"] = np.full((6, 8), np.nan, "float32")
    with pytest.raises(fcnet.DivergedError, match="step 1"):
        one.train()
    assert one.steps == 4
