"""L-BFGS and BFGS: all samples at once, an epoch an iteration, and what contradicts them."""

from __future__ import annotations

import csv
import itertools
import math
import pickle
import re
import sys

import numpy as np
import pytest

import fcnet
from fcnet.training.fullbatch import FullBatch
from tests import oracles
from tests.small import blobs, net, solver

pytest.importorskip("scipy")
RULES = ["lbfgs", "bfgs"]


@pytest.fixture(params=RULES)
def rule(request):
    return request.param


def whole_loss(one):
    """Return the loss over all training samples, of the network as it is."""
    return one.model.loss(one.data.X_train, one.data.y_train)[0]


def test_a_linear_classifier_reaches_the_one_minimum(rule, backend, monkeypatch):
    """Softmax regression with L2 is convex: at its minimum the gradient is zero, checked against the slow oracle."""
    data = blobs(n=40)
    model = net(data, backend, hidden=(), dtype="float64", reg=0.1)
    one = fcnet.Solver(model, data, update_rule=rule, num_epochs=300, optim_config={"tolerance": 1e-7}, verbose=False)
    monkeypatch.setattr(one, "_restore_best", lambda: None)  # look at where it ended
    one.train()
    losses = one.loss_history
    assert one.converged
    assert 5 < len(losses) < 300
    w, b = (one.model.backend.to_numpy(one.model.params[name]) for name in ("W1", "b1"))
    loss, dscores = oracles.softmax_loss(oracles.affine(data.X_train, w, b), data.y_train)
    _, dw, db = oracles.affine_backward(dscores, data.X_train, w)
    value, penalty = oracles.l2(w.ravel(), 0.1)
    assert losses[-1] == pytest.approx(loss + value, rel=1e-10)
    assert max(abs(dw.ravel() + penalty).max(), abs(db).max()) <= 1e-7


def test_each_iteration_is_an_epoch_that_lowers_the_loss(rule, dtype):
    one = solver(blobs(), update_rule=rule, num_epochs=12, net_options={"dtype": dtype, "normalization": "layernorm"})
    one.model.reg = 0.01  # so that the minimum is not reached at once
    before = whole_loss(one)
    rows = one.train()
    assert [row["epoch"] for row in rows] == list(range(1, 13))
    assert [row["step"] for row in rows] == list(range(1, 13))
    losses = [row["loss"] for row in rows]
    assert losses == one.loss_history
    assert before > losses[0]
    assert all(later < earlier for earlier, later in itertools.pairwise(losses))
    assert "learning_rate" not in rows[0]
    assert not one.converged
    assert one.best_val_acc > 0.9
    one.num_epochs = 14
    assert len(one.train()) == 14


def test_it_is_scipys_own_path(rule):
    """The same iterates as SciPy makes on a loss written with model.loss, one parameter after the other."""
    from scipy.optimize import minimize

    data = blobs()
    one, other = (solver(data, update_rule=rule, num_epochs=6, net_options={"dtype": "float64"}) for _ in range(2))
    one.train()
    model = other.model
    sizes = np.cumsum([0, *(math.prod(shape) for shape in model.params.shapes.values())])
    losses = []

    def f(vector):
        for name, start, stop in zip(model.params, sizes, sizes[1:], strict=False):
            model.params[name] = vector[start:stop].reshape(model.params.shapes[name])
        loss, grads = model.loss(data.X_train, data.y_train)
        return loss, np.concatenate([grads[name].ravel() for name in model.params])

    start = np.concatenate([model.params[name].ravel() for name in model.params])
    method = {"lbfgs": "L-BFGS-B", "bfgs": "BFGS"}[rule]
    minimize(f, start, jac=True, method=method, options={"maxiter": 6}, callback=lambda x: losses.append(f(x)[0]))
    np.testing.assert_allclose(one.loss_history, losses, rtol=1e-7)


def test_the_same_seed_is_the_same_run(rule):
    runs = []
    for _ in range(2):
        one = solver(blobs(), update_rule=rule, num_epochs=5)
        one.train()
        runs.append((one.loss_history, one.model.params.flat.tobytes()))
    assert runs[0] == runs[1]


def test_bytes_are_preprocessed():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    X = (rng.integers(0, 80, (60, 10)) + 80 * (y[:, None] == np.arange(10) % 3)).astype(np.uint8)
    runs = []
    for kind in (X, X.astype(np.float64)):
        data = fcnet.data.Dataset(kind, y, kind[:20], y[:20], preprocess="standardize")
        one = solver(data, update_rule="lbfgs", num_epochs=5, net_options={"dtype": "float64"})
        one.train()
        runs.append(one.loss_history)
    np.testing.assert_allclose(runs[0], runs[1], rtol=1e-9)


def test_patience_ends_it(monkeypatch):
    monkeypatch.setattr("fcnet.training.solver.loss_of", lambda *_, **__: 1.0)  # equals are equal
    one = solver(blobs(), update_rule="lbfgs", num_epochs=100, patience=3)
    one.train()
    assert one.epoch == one.best_epoch + 3
    assert (one.converged, one.message) == (False, None)


def test_a_run_directory_of_it(tmp_path):
    one = solver(blobs(), update_rule="lbfgs", num_epochs=500, out=tmp_path / "run", net_options={"dtype": "float64"})
    one.train()
    assert one.converged
    config = (tmp_path / "run" / "config.toml").read_text()
    assert 'optimizer = "lbfgs"' in config
    assert "interrupted" not in config
    assert "lr" not in one.options()
    with open(tmp_path / "run" / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(one.history)
    assert "learning_rate" not in rows[0]


def test_it_is_copied_and_pickled():
    one = pickle.loads(pickle.dumps(solver(blobs(), update_rule="lbfgs", num_epochs=3)))
    other = solver(blobs(), update_rule="lbfgs", num_epochs=3)
    one.train()
    other.train()
    assert one.loss_history == other.loss_history


def test_a_step_is_refused(rule):
    one = solver(blobs(), update_rule=rule)
    for use in (one.step, lambda: one.optimizer, lambda: one.first_learning_rate):
        with pytest.raises(
            ValueError, match=rf"update_rule: '{rule}' takes all samples at once.*call train\(\), or use"
        ):
            use()
    assert one.loss_history == []


def test_a_loss_that_is_not_finite_is_named():
    data = blobs()
    one = solver(data, update_rule="lbfgs")
    before = one.model.params.flat.copy()
    one.model.params["W1"] = np.full((6, 8), 1e38)
    one._best = one._snapshot()
    with pytest.raises(fcnet.DivergedError, match="before the first step; scale the inputs"):
        one.train()
    assert not np.array_equal(one.model.params.flat, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"batch_size": 32},
            "update_rule and batch_size: 'lbfgs' takes all.*got 32; leave the latter out",
        ),
        ({"lr_decay": 0.9}, "update_rule and lr_decay: .*got 0.9"),
        ({"schedule": "cosine"}, "update_rule and schedule: .*got 'cosine'"),
        ({"clip_norm": 1.0}, "update_rule and clip_norm"),
        ({"clip_value": 1.0}, "update_rule and clip_value"),
        ({"max_norm": 1.0}, "update_rule and max_norm"),
        ({"weight_decay": 0.1}, "update_rule and weight_decay"),
        ({"lr_multipliers": {1: 0.1}}, "update_rule and lr_multipliers"),
        (
            {"net_options": {"dropout_keep_ratio": 0.5}},
            "update_rule and dropout_keep_ratio: .*without dropout, got .*0.5",
        ),
        ({"net_options": {"reg_l1": 0.5}}, "update_rule and reg_l1: .*smooth penalty, got .* 0.5; use"),
        ({"optim_config": {"learning_rate": 0.1}}, "update_rule and learning_rate: .*got 0.1; leave"),
        ({"optim_config": {"histroy": 5}}, "optim_config for lbfgs: expected one of history, tolerance.*'history'"),
        ({"optim_config": {"history": 0}}, "optim_config.'history'.: expected 1 or more, got 0"),
        ({"optim_config": {"tolerance": -1}}, "optim_config.'tolerance'.: expected 0 or more, got -1"),
        ({"optim_config": 3}, "optim_config: expected a dict such as {'tolerance': 1e-5}, got 3"),
        ({"update_rule": "lbfg"}, "update_rule: expected one of sgd, .*lbfgs, bfgs; got 'lbfg'; did you mean 'lbfgs'"),
    ],
)
def test_what_contradicts_it_is_refused_before_training(options, message):
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        solver(blobs(), **{"update_rule": "lbfgs", **options})
    assert "\n" not in str(caught.value)


def test_a_penalty_set_later_is_refused_too():
    one = solver(blobs(), update_rule="lbfgs")
    one.model.reg_l1 = 0.1
    with pytest.raises(ValueError, match="update_rule and reg_l1"):
        one.train()


def test_bfgs_of_a_large_network_is_refused_with_its_memory():
    model = fcnet.FullyConnectedNet([100], 784, 10, device="cpu")  # 79,510 parameters
    with pytest.raises(ValueError, match=r"at most 5,000 of them, got 79,510, which is 50\.6 GB for each matrix; use"):
        FullBatch(model, "bfgs", None)
    FullBatch(model, "lbfgs", None)


def test_without_scipy_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(fcnet.MissingExtra, match=r"update_rule='lbfgs' needs SciPy.*pip install .*\[scipy\]'"):
        solver(blobs(), update_rule="lbfgs")


def test_the_network_is_where_scipy_says_not_where_it_last_looked(monkeypatch):
    from scipy.optimize import OptimizeResult

    def minimize(f, start, *, callback, **_):
        f(start + 1)
        callback(intermediate_result=OptimizeResult(x=start + 2, fun=0.5))
        f(start + 3)
        return OptimizeResult(x=start + 4, nit=1, nfev=3, success=True, message="done")

    monkeypatch.setattr("scipy.optimize.minimize", minimize)
    one = solver(blobs(), update_rule="lbfgs")
    start, seen = one.model.params["b2"].copy(), []

    def report(loss):
        seen.append((loss, one.model.params["b2"][0] - start[0]))
        return False

    parts = [(one._parts.train.X, one._parts.train.y, None)]
    assert one.full_batch.minimize(lambda: parts, 5, report) == (True, "done", 3)
    assert seen == [(0.5, 2)]
    np.testing.assert_array_equal(one.model.params["b2"], start + 4)


def numbers(size, scaled=True, **options):
    """Return a Solver for targets of this size, which a random network has nothing to do with."""
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((60, 3)), size * (1 + 0.5 * rng.standard_normal(60))
    data = fcnet.data.Dataset(X, y, X[:20], y[:20], targets="numbers")
    net = fcnet.FullyConnectedNet([20], 3, 1, loss="mse", normalization="batchnorm", device="cpu")
    if not scaled:
        net.set_target_scaling([0], [1])
    return fcnet.Solver(net, data, num_epochs=5, **({"verbose": False} | options))


def test_targets_of_any_size_are_learned_alike(rule):
    one, other = numbers(1, update_rule=rule), numbers(2.0**30, update_rule=rule)
    losses = [row["loss"] for row in one.train()]
    assert losses == [row["loss"] for row in other.train()]
    assert losses[-1] < losses[0]


def test_targets_too_large_for_a_step_end_in_words(tmp_path, capsys):
    one = numbers(1e8, scaled=False, update_rule="bfgs", out=tmp_path / "run", verbose=True)
    before = one._snapshot()
    for _ in range(2):  # `train` again tries again
        assert one.train() == []
        assert re.match("fcnet: bfgs made no iteration.*scale the inputs and targets to a st", capsys.readouterr().err)
    assert (one.converged, one.steps, one.best_val_metric, one.loss_history) == (False, 0, None, [])
    assert "precision loss" in one.message
    for now, then in zip(one._snapshot(), before, strict=True):  # running statistics, too
        np.testing.assert_array_equal(now, then)
    assert (tmp_path / "run/history.csv").read_text() == "epoch,step,loss,train_rmse,val_rmse,seconds\n"
    assert (tmp_path / "run/config.toml").read_text().startswith(f"# bfgs: {one.message}\n")
    assert (tmp_path / "run/model.safetensors").is_file()


def test_a_start_without_gradient_is_scipys_success(rule, capsys):
    one = solver(blobs(n=30), update_rule=rule, verbose=True, net_options={"init": "zeros"})  # as many of each class
    assert one.train() == []
    assert re.match(f"fcnet: {rule} made no iteration.*start from other weights", capsys.readouterr().err)
    assert one.converged
    assert one.record().interrupted is None
    found = fcnet.check(one).overfit
    assert not found.passed
    assert found.ended in found.findings[0].cause
    assert "lr-range" not in found.findings[0].cause


def test_a_method_that_gives_up_has_not_converged_and_is_not_asked_again(monkeypatch, tmp_path):
    from scipy.optimize import OptimizeResult

    asked = []

    def minimize(f, start, *, callback, **_):
        asked.append(start)
        f(start + 1e30)  # a step far too long
        for _ in range(2):
            callback(intermediate_result=OptimizeResult(x=start, fun=f(start)[0]))
        return OptimizeResult(x=start, nit=2, nfev=3, success=False, message="ABNORMAL: ")

    monkeypatch.setattr("scipy.optimize.minimize", minimize)
    one = solver(
        blobs(), update_rule="lbfgs", num_epochs=9, out=tmp_path / "run", net_options={"normalization": "batchnorm"}
    )
    with np.errstate(all="ignore"):
        one.train()
    assert (len(asked), len(one.history), one.converged, one.message) == (1, 2, False, "ABNORMAL: ")
    assert np.isfinite(one.model.state.flat).all()
    config = (tmp_path / "run/config.toml").read_text()
    assert config.startswith("# lbfgs: ABNORMAL:\n")
    assert "interrupted" not in config
