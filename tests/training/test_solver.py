"""Solver: every sample once, the same run twice, the best parameters kept, no waits, clear refusals."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import pickle
import re

import numpy as np
import pytest

import fcnet
from fcnet import backends
from fcnet import functional as F
from fcnet.optim import RULES
from tests.small import blobs, net, solver


def test_an_epoch_sees_every_sample_once_in_a_new_order_each_time(backend, monkeypatch):
    data = blobs(n=25)
    X = np.zeros(data.X_train.shape, np.uint8)  # bytes, so that each batch is preprocessed by itself
    X[:, 0] = np.arange(25)
    data = fcnet.data.Dataset(X, data.y_train, X[:9], data.y_train[:9], preprocess="none")
    seen: list[list[int]] = []
    one = solver(data, backend, batch_size=10)
    model_prepare = one.model.prepare
    buffers = []

    def prepare(run, x):
        buffers.append(x)
        return model_prepare(run, x)

    monkeypatch.setattr(one.model, "prepare", prepare)
    for _ in range(9):
        one.step()
        batch = buffers[0] if len(seen) % 3 != 2 else buffers[1]  # programs of 10 rows and of 5
        seen.append(backend.to_numpy(batch)[:, 0].astype(int).tolist())
    epochs = [[row for batch in seen[i : i + 3] for row in batch] for i in (0, 3, 6)]
    assert [len(batch) for batch in seen] == [10, 10, 5] * 3
    assert all(sorted(epoch) == list(range(25)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert len(buffers) == 2  # recorded once for each batch size
    assert one.epoch == 3


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("normalization", "keep", "reg"), [(None, 1, 0), ("batchnorm", 0.7, 0.01), ("layernorm", 0.7, 0)]
)
def test_a_recorded_step_is_the_step_by_hand(rule, normalization, keep, reg):
    """The program of a Solver against the same steps made through model.loss and the rule, batch by batch."""
    data = blobs(n=23)
    options = {"normalization": normalization, "dropout_keep_ratio": keep, "reg": reg, "dtype": "float64"}
    fast = solver(data, net_options=options, update_rule=rule, batch_size=8, lr_decay=0.5, seed=7)
    slow = net(data, **options)
    optimizer = fcnet.Optimizer(rule, slow.params)
    expected = []
    for step in range(10):
        epoch, place = divmod(step, 3)
        order = backends.host_generator(7, backends.Purpose.SHUFFLE, step=epoch).permutation(23)
        rows = order[place * 8 : place * 8 + 8]
        loss, grads = slow.loss(data.X_train[rows], data.y_train[rows], step=step)
        expected.append(loss)
        buffer = slow.params.like()
        for name, grad in grads.items():
            buffer[name] = grad
        optimizer.learning_rate = RULES[rule].defaults["learning_rate"] * 0.5**epoch
        optimizer.update(buffer)
        fast.step()
    np.testing.assert_array_equal(fast.loss_history, expected)
    for name in slow.params:
        np.testing.assert_array_equal(fast.model.params[name], slow.params[name])
    for name in slow.state:
        np.testing.assert_array_equal(fast.model.state[name], slow.state[name])


@pytest.mark.parametrize(("rule", "dtype"), list(itertools.product(RULES, ["float32", "float64"])))
def test_the_same_seed_is_the_same_run(backend, rule, dtype):
    data = blobs()
    runs = []
    for seed in (0, 0, 1):
        options = {"normalization": "batchnorm", "dropout_keep_ratio": 0.7, "dtype": dtype, "seed": seed}
        one = solver(data, backend, net_options=options, update_rule=rule, batch_size=16, num_epochs=3, seed=seed)
        one.train()
        runs.append((one.loss_history, one.val_acc_history, backend.to_numpy(one.model.params.flat).tobytes()))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_training_learns(backend):
    data = blobs()
    one = solver(data, backend, update_rule="adam", optim_config={"learning_rate": 1e-2}, num_epochs=20)
    rows = one.train()
    assert one.best_val_acc >= 0.95
    assert one.check_accuracy(data.X_test, data.y_test) >= 0.9
    assert len(rows) == 20
    assert len(one.loss_history) == 40
    assert rows[-1]["loss"] == pytest.approx(np.average(one.loss_history[-2:], weights=[100, 30]))  # over the samples
    assert one.train_acc_history == [row["train_acc"] for row in rows]


def test_the_best_parameters_come_back(backend):
    data = blobs()
    one = solver(data, backend, num_epochs=1, batch_size=20)
    accuracies = iter([0.2, 0.9, 0.9, 0.4])
    kept = []

    def accuracy(model, X, y, batch_size=4096, prepared=False):
        if len(X) != 40:  # the training sample
            return 0.5
        kept.append(backend.to_numpy(model.params.flat).copy())
        return next(accuracies)

    one.num_epochs = 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fcnet.training.solver.measure", accuracy)
        patch.setattr("fcnet.training.solver.loss_of", lambda *_, **__: 1.0)
        one.train()
    assert (one.best_val_acc, one.best_epoch) == (0.9, 2)  # the first of two equals, with equal losses
    np.testing.assert_array_equal(backend.to_numpy(one.model.params.flat), kept[1])
    assert not np.array_equal(kept[1], kept[3])


def test_patience_stops_early():
    data = blobs()
    one = solver(data, num_epochs=50, patience=3, optim_config={"learning_rate": 0.0})
    one.train()
    assert one.epoch == 4  # the first is the best, three more without a better one


def test_the_learning_rate_decays_each_epoch(backend):
    data = blobs(n=20)
    one = solver(data, backend, batch_size=10, lr_decay=0.5, optim_config={"learning_rate": 0.8}, num_epochs=3)
    one.train()
    assert [row["learning_rate"] for row in one.history] == [0.8, 0.4, 0.2]  # that it was made with
    assert one.optimizer.learning_rate == 0.1


def test_steps_can_be_taken_by_hand_then_trained_on():
    data = blobs()
    whole, parts = solver(data, num_epochs=3, batch_size=50), solver(data, num_epochs=3, batch_size=50)
    whole.train()
    for _ in range(4):
        parts.step()
    parts.train()
    assert whole.loss_history == parts.loss_history


def test_more_losses_than_the_device_buffer_holds(backend, monkeypatch):
    monkeypatch.setattr("fcnet.training.solver.LOSS_CHUNK", 4)
    data = blobs(n=30)
    one = solver(data, backend, batch_size=10)
    for _ in range(11):
        one.step()
    first = list(one.loss_history)
    for _ in range(3):
        one.step()
    assert len(first) == 11
    assert one.loss_history[:11] == first
    monkeypatch.setattr("fcnet.training.solver.LOSS_CHUNK", 1024)
    other = solver(data, backend, batch_size=10)
    for _ in range(14):
        other.step()
    assert one.loss_history == other.loss_history


def test_reg_changed_between_steps_counts_from_then_on():
    data = blobs()
    one, other = solver(data), solver(data)
    for changing in (one, other):
        changing.step()
    one.model.reg = 5.0
    one.step()
    other.step()
    weights = one.model.params.matrices
    assert one.loss_history[1] > other.loss_history[1] + 0.5 * float(np.mean(weights**2))


def test_bytes_are_preprocessed_like_floats(backend):
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    X = (rng.integers(0, 80, (60, 10)) + 80 * (y[:, None] == np.arange(10) % 3)).astype(np.uint8)
    runs = []
    for kind in (X, X.astype(np.float64)):
        data = fcnet.data.Dataset(kind, y, kind[:20], y[:20], preprocess="standardize")
        prep = fcnet.data.learn("standardize", X)
        model = fcnet.FullyConnectedNet([8], 10, 3, device=backend, dtype="float64")
        model.set_preprocessing(prep.shift, prep.scale)
        one = fcnet.Solver(model, data, verbose=False, num_epochs=2, batch_size=20)
        one.train()
        runs.append(one.loss_history)
        np.testing.assert_allclose(model.scores(X), model.astype("float64").scores(X.astype(np.float64)), rtol=1e-12)
    assert runs[0] == runs[1]


def test_preprocessing_is_learned_from_the_training_split_alone():
    data = blobs()
    other = fcnet.data.Dataset(data.X_train, data.y_train, data.X_val * 100 + 7, data.y_val)
    one, two = solver(data, preprocess="standardize"), solver(other, preprocess="standardize")
    for mine, others in zip(one.model.preprocessing, two.model.preprocessing, strict=True):
        np.testing.assert_array_equal(mine, others)
    x = one.model.prepare(fcnet.backends.step.direct, data.X_train)
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(x.std(axis=0), 1, rtol=1e-5)


def test_repr_says_where_the_training_stands():
    one = solver(blobs(), num_epochs=2)
    assert repr(one) == "<Solver sgd, epoch 0 of 2>"
    one.train()
    best = f"{one.best_val_acc:.4g} at epoch {one.best_epoch}"
    assert repr(one) == f"<Solver sgd, epoch 2 of 2, best validation accuracy {best}>"


def test_a_model_keeps_the_preprocessing_it_has():
    data = blobs()
    model = net(data)
    model.set_preprocessing(np.full(6, 3.0), np.ones(6))
    fcnet.Solver(model, data, preprocess="standardize", verbose=False)
    np.testing.assert_array_equal(model.preprocessing[0], np.full(6, 3.0))


def test_a_dictionary_of_arrays_will_do():
    data = blobs()
    arrays = {name: getattr(data, name) for name in ("X_train", "y_train", "X_val", "y_val")}
    fcnet.Solver(net(data), arrays, verbose=False, num_epochs=1).train()
    with pytest.raises(ValueError, match=re.escape("data: expected one of X_train") + ".*did you mean 'X_train'"):
        fcnet.Solver(net(data), arrays | {"X_trian": data.X_train}, verbose=False)
    with pytest.raises(ValueError, match="got no X_val, y_val"):
        fcnet.Solver(net(data), {"X_train": data.X_train, "y_train": data.y_train})


def test_one_hot_targets_train_the_same():
    data = blobs()
    one_hot = {f"y_{part}": np.eye(3)[y] for part, (_, y) in data.splits().items()}
    hot = dataclasses.replace(data, **one_hot)
    one, two = (solver(d, num_epochs=2, net_options={"dtype": "float64"}) for d in (data, hot))
    one.train()
    two.train()
    np.testing.assert_allclose(one.loss_history, two.loss_history, rtol=1e-12)
    assert one.val_acc_history == two.val_acc_history


def test_two_solvers_side_by_side_do_not_meet():
    data = blobs()
    alone = solver(data, net_options={"dropout_keep_ratio": 0.5})
    for _ in range(6):
        alone.step()
    one, two = (solver(data, net_options={"dropout_keep_ratio": 0.5}) for _ in range(2))
    for _ in range(6):
        one.step()
        two.step()
    assert one.loss_history == two.loss_history == alone.loss_history


def test_batch_larger_than_the_data():
    data = blobs(n=20)
    one = solver(data, batch_size=1000, num_epochs=2)
    one.train()
    assert len(one.loss_history) == 2


def test_divergence_is_noticed_and_named():
    data = blobs()
    one = solver(data, optim_config={"learning_rate": 1e30}, num_epochs=50)
    with pytest.raises(fcnet.DivergedError, match=r"at step \d+.*learning_rate=1e\+30; lower"):
        one.train()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"update_rule": "adma"}, "update_rule: .*did you mean 'adam'"),
        ({"optim_config": {"lr": 1}}, "optim_config for sgd: expected one of learning_rate; got 'lr'"),
        ({"optim_config": {"learning_rate": "fast"}}, "expected a number, got 'fast'"),
        ({"optim_config": {"learning_rate": -1}}, "expected 0 or more, got -1"),
        ({"update_rule": "adam", "optim_config": {"beta1": 1.0}}, "expected 0 <= beta1 < 1, got 1.0"),
        ({"optim_config": 0.1}, "optim_config: expected a dict"),
        ({"batch_size": 0}, "batch_size: expected 1 or more, got 0"),
        ({"num_epochs": 1.5}, "num_epochs: expected an integer, got 1.5"),
        ({"lr_decay": 1.5}, "lr_decay: expected 0 < lr_decay <= 1"),
        ({"patience": 0}, "patience: expected 1 or more"),
        ({"seed": "x"}, "seed: expected an integer"),
        ({"preprocess": "centre"}, "preprocess: .*did you mean 'center'"),
    ],
)
def test_bad_options(options, message):
    data = blobs()
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        solver(data, **options)
    assert "\n" not in str(caught.value)


def test_data_that_do_not_fit_the_model():
    data = blobs()
    with pytest.raises(ValueError, match="X_train: expected 7 features per sample, got 6"):
        fcnet.Solver(fcnet.FullyConnectedNet([5], 7, 3, device="cpu"), data)
    with pytest.raises(ValueError, match="y_train: expected labels 0 to 1, got 2"):
        fcnet.Solver(fcnet.FullyConnectedNet([5], 6, 2, device="cpu"), data)
    with pytest.raises(TypeError, match="data: expected a Dataset or a dictionary"):
        fcnet.Solver(net(data), data.X_train)


def test_the_step_is_made_of_accelerated_functions_only(references_only):
    """Whatever a recorded step calls can be replaced by a kernel: nothing else is in the program."""
    data = blobs()
    one = solver(data, net_options={"normalization": "batchnorm", "dropout_keep_ratio": 0.5, "reg": 0.1})
    one.step()
    names = {call.name for call in one._compiled_steps[100].calls}
    assert names <= set(backends.REGISTRY)
    assert F.batchnorm_activation_dropout_forward.__name__ in names


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))], ids=["deepcopy", "pickle"])
def test_a_copy_goes_on_as_the_original_would(copied):
    data = blobs(n=25)
    one = solver(data, update_rule="adam", batch_size=10, net_options={"dropout_keep_ratio": 0.7})
    for _ in range(4):
        one.step()
    other = copied(one)
    for _ in range(8):
        one.step()
    assert len(other.loss_history) == 4
    for _ in range(8):
        other.step()
    assert other.loss_history == one.loss_history
    np.testing.assert_array_equal(other.model.params.flat, one.model.params.flat)


def test_a_rate_set_by_hand_is_decayed_from_there():
    data = blobs(n=20)
    one = solver(data, batch_size=10, lr_decay=0.5, optim_config={"learning_rate": 0.8})
    one.optimizer.learning_rate = 0.1
    one.step()
    one.step()
    assert one.optimizer.learning_rate == 0.05


@pytest.mark.parametrize("kind", ["standardize", "center"])
def test_large_offsets_are_taken_off_before_rounding(kind):
    """Seconds since 1970 differ in digits that float32 does not have."""
    rng = np.random.default_rng(0)
    y = np.arange(300) % 3
    X = 1.7e9 + 3 * y[:, None] + 0.5 * rng.standard_normal((300, 1))
    data = fcnet.data.Dataset(X[:200], y[:200], X[200:], y[200:], preprocess=kind)
    one = solver(data, update_rule="adam", optim_config={"learning_rate": 0.05}, num_epochs=40)
    one.train()
    assert one.best_val_acc > 0.95
    assert one.check_accuracy(data.X_val, data.y_val) == one.best_val_acc


def test_values_that_float32_cannot_hold_are_refused():
    data = blobs()
    X = data.X_train.copy()
    X[3, 1] = 1e39
    with pytest.raises(ValueError, match=r"X_train: expected values that float32 can hold, got one of size 1e\+39"):
        fcnet.Solver(net(data), {"X_train": X, "y_train": data.y_train, "X_val": X[:50], "y_val": data.y_train[:50]})


def test_a_training_that_fails_at_once_gives_the_first_weights_back():
    data = blobs()
    one = solver(data, optim_config={"learning_rate": 1e30})
    before = one.model.params.flat.copy()
    with pytest.raises(fcnet.DivergedError):
        one.train()
    np.testing.assert_array_equal(one.model.params.flat, before)


def test_histories_are_copies():
    one = solver(blobs())
    one.step()
    one.loss_history.append(99)
    assert len(one.loss_history) == 1


@pytest.mark.parametrize("model", [None, "x"])
def test_no_model(model):
    with pytest.raises(TypeError, match="model: expected a FullyConnectedNet"):
        fcnet.Solver(model, blobs())
