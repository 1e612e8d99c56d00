"""Metrics by name: what a Solver chooses its best epoch by, on every device."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

import fcnet
from fcnet import functional as F
from fcnet.training import judging
from fcnet.training.metrics import NAMES, metric_named, outcome, own_figure
from tests.small import blobs, net, solver
from tests.tolerances import assert_close


def rows(loss, outputs=1, n=90):
    """Return a data set for a loss: noisy, so that no figure is perfect."""
    rng = np.random.default_rng(outputs)
    X = rng.standard_normal((n, 4))
    y = X @ rng.standard_normal((4, outputs)) + rng.standard_normal((n, outputs))
    if loss == "bce":
        y = (y > 0.3).astype(float)
    elif loss in ("softmax", "svm"):
        y = (y[:, 0] > 0.3).astype(int) + (y[:, 0] > 2) * (outputs > 1)
    targets = "numbers" if loss in ("mse", "bce") else "classes"
    parts = {f"{k}_{part}": v[at] for part, at in PARTS.items() for k, v in (("X", X), ("y", y))}
    return fcnet.data.Dataset(**parts, targets=targets)


PARTS = {"train": slice(50), "val": slice(50, 90)}


def by_hand(name, model, X, y):
    """Return the figure from what the network says in public."""
    said = model.predict(X)
    if model.loss_name in ("mse", "bce"):
        columns = zip(*(array.reshape(len(y), -1).T for array in (y, said, model.scores(X))), strict=True)
        judge = {
            "mae": lambda y, said, s: judging.mae(y, said),
            "r2": lambda y, said, s: judging.r2(y, said),
            "f1": lambda y, said, s: judging.f1(y, said),
            "f1_macro": lambda y, said, s: judging.f1_macro(y, said),
            "balanced_accuracy": lambda y, said, s: judging.balanced_accuracy(y, said),
            "roc_auc": lambda y, said, s: judging.roc_auc(y == 1, s),
            "log_loss": lambda y, said, s: np.mean(np.logaddexp(0, s) - y * s),
        }[name]
        return np.mean([judge(*column) for column in columns])
    codes, scores = y.astype(int), model.scores(X).astype("float64")
    return {
        "balanced_accuracy": lambda: judging.balanced_accuracy(codes, said),
        "f1": lambda: judging.f1(codes, said) if model.num_classes == 2 else judging.f1_macro(codes, said),
        "f1_macro": lambda: judging.f1_macro(codes, said),
        "roc_auc": lambda: judging.roc_auc_of_classes(codes, scores),
        "log_loss": lambda: judging.log_loss(codes, F.softmax(scores)),
    }[name]()


CASES = [
    *(("softmax", 1, name) for name in ("balanced_accuracy", "f1", "f1-macro", "ROC AUC", "log_loss")),
    *(("softmax", 2, name) for name in ("f1", "roc_auc", "log_loss")),
    *(("svm", 2, name) for name in ("f1_macro", "auc")),
    *(("bce", outputs, name) for outputs in (1, 3) for name in ("balanced_accuracy", "f1", "roc_auc", "log_loss")),
    ("bce", 1, "f1_macro"),
    *(("mse", outputs, name) for outputs in (1, 2) for name in ("mae", "r2")),
]


@pytest.mark.parametrize("scale", [1e-200, 1e150, 1.0])
def test_r2_of_numbers_of_any_size(scale, monkeypatch):
    """Their squares vanish, or overflow."""
    y, said = scale * np.array([1.0, 2.0, 3.0]), scale * np.array([1.0, 2.0, 2.0])
    for library in (None, pytest.importorskip("sklearn.metrics")):
        monkeypatch.setattr(judging, "_library", library)
        assert judging.r2(y, said) == pytest.approx(0.5)


@pytest.mark.parametrize(("loss", "outputs", "name"), CASES)
def test_the_best_epoch_is_chosen_by_the_metric(loss, outputs, name, guard, references_only):
    check_best_epoch(loss, outputs, name, guard)


def test_the_best_epoch_is_chosen_on_every_device(backend):
    check_best_epoch("softmax", 2, "roc_auc", backend)


def check_best_epoch(loss, outputs, name, backend):
    data = rows(loss, outputs)
    how = {"num_epochs": 6, "update_rule": "adam", "optim_config": {"learning_rate": 0.05}, "batch_size": 20}
    how |= {"num_train_samples": 30}
    one = solver(data, backend, net_options={"loss": loss}, metric=name, **how)
    one.train()
    figure = metric_named(name, one.model.objective)
    assert [row[f"val_{figure.key}"] for row in one.history] == one.val_metric_history
    assert all(map(math.isfinite, one.val_metric_history))
    assert len(set(one.train_metric_history)) > 1
    best = (min if figure.smaller_is_better else max)(one.val_metric_history)
    assert one.best_val_metric == best
    assert one.val_metric_history[one.best_epoch - 1] == best
    for found in (one.check_metric(data.X_val, data.y_val), by_hand(figure.key, one.model, data.X_val, data.y_val)):
        assert_close(np.float32(found), best, "float32", "loss")  # of the parameters that were put back


def test_the_own_metric_is_that_of_the_outcome(backend):
    for loss, outputs in (("softmax", 2), ("bce", 3), ("mse", 2)):
        data = rows(loss, outputs)
        one = solver(data, backend, net_options={"loss": loss}, metric="rmse" if loss == "mse" else "accuracy")
        assert one.metric is one.model.objective.metric
        said = outcome(one.model, data.X_val, data.y_val)
        expected = np.float32(one.check_metric(data.X_val, data.y_val))
        assert_close(expected, own_figure(one.model.objective, said), "float32", "loss")


def test_steps_of_a_solver_with_a_metric_wait_for_nothing(guard):
    one = solver(blobs(), guard, metric="roc_auc", batch_size=32)
    one.step(2)
    with guard.no_waits(), guard.recording() as log:
        one.step(2)
    assert log.uploads == []


def test_refusals_and_what_a_solver_keeps():
    data = blobs()
    with pytest.raises(ValueError, match=r"metric: expected one of accuracy, .*log_loss; got 'f3'"):
        solver(data, metric="f3")
    with pytest.raises(ValueError, match="metric and loss: expected one of rmse, mae, r2 with loss 'mse', got 'f1'"):
        solver(rows("mse"), net_options={"loss": "mse"}, metric="f1")
    with pytest.raises(ValueError, match=r"metric and loss: .*roc_auc with loss 'svm', got 'log_loss'"):
        metric_named("log_loss", net(data, loss="svm").objective)
    with pytest.raises(TypeError, match="metric: expected a name such as 'accuracy', got 3"):
        metric_named(3, net(data).objective)
    one = solver(data, metric="f1", num_epochs=1)
    one.train()
    with pytest.raises(AttributeError, match="best_val_acc: a network with metric 'f1' has none; use best_val_metric"):
        one.best_val_acc  # noqa: B018
    assert pickle.loads(pickle.dumps(one)).metric.title == "f1 (macro)"
    assert one.options()["metric"] == "f1"
    assert set(NAMES) == set(fcnet.runs.options.names_of("metric"))


def test_scores_that_are_not_finite_have_no_figure():
    data = blobs()
    model = net(data)
    model.params["b3"][...] = np.nan
    said = outcome(model, data.X_val, data.y_val)
    for name in ("f1", "roc_auc", "log_loss", "balanced_accuracy"):
        assert math.isnan(metric_named(name, model.objective).measure(said))
