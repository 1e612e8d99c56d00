"""The threshold of two classes: what predictions, metrics and the saved model make of it, and how it is chosen."""

from __future__ import annotations

import numpy as np
import pytest

import fcnet
from fcnet.training import judging
from fcnet.training.metrics import ACCURACY, F1, outcome
from fcnet.training.threshold import choose_threshold
from tests.small import blobs, net, solver


def rare(loss="softmax", n=300):
    """Two classes, one of 10, whose inputs overlap."""
    rng = np.random.default_rng(0)
    y = (np.arange(n) % 10 == 0).astype(int if loss == "softmax" else float)
    X = rng.standard_normal((n, 3)) + 1.2 * y[:, None]
    targets = "classes" if loss == "softmax" else "numbers"
    return fcnet.data.Dataset(X[100:], y[100:], X[:100], y[:100], targets=targets)


@pytest.mark.parametrize("loss", ["softmax", "bce"])
def test_the_second_is_predicted_above_it(loss, backend, tmp_path):
    data = rare(loss)
    one = solver(data, backend, net_options={"loss": loss}, threshold=0.2, num_epochs=3)
    one.train()
    model, X, y = one.model, data.X_val, data.y_val
    p = model.predict_proba(X)[:, -1]
    assert np.sum((p > 0.2) & (p <= 0.5)) > 0
    np.testing.assert_array_equal(model.predict(X), p > 0.2)
    assert one.check_metric(X, y) == np.mean((p > 0.2) == y) == one.best_val_metric
    model.save(tmp_path / "m.safetensors")
    loaded = fcnet.load(tmp_path / "m.safetensors", device=backend)
    assert loaded.threshold == model.copy().threshold == 0.2
    assert "above 0.2" in loaded.describe()
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    model.threshold = None
    np.testing.assert_array_equal(model.predict(X), p > 0.5)


@pytest.mark.parametrize("metric", [None, "f1", "roc_auc", "accuracy"])
def test_it_is_chosen_on_the_validation_part(metric):
    data = rare()
    one = solver(data, metric=metric, threshold="auto", num_epochs=8, optim_config={"learning_rate": 0.03})
    one.train()
    judge = {"f1": judging.f1, "accuracy": judging.accuracy}.get(metric, judging.balanced_accuracy)
    p = one.model.predict_proba(data.X_val)[:, 1]
    best = max(judge(data.y_val, (p > t).astype(int)) for t in np.r_[p, 0.5])
    assert judge(data.y_val, one.model.predict(data.X_val)) == pytest.approx(best)
    chosen = one.model.threshold
    assert metric == "accuracy" or chosen < 0.4
    one.num_epochs += 1
    one.train()  # whose new epoch is judged at 1/2 again
    assert one.model.threshold is not None
    assert one.options()["threshold"] == "auto"


def test_of_equals_that_nearest_to_a_half_is_chosen():
    data = rare()
    model = net(data, hidden=())
    model.params["W1"] = np.zeros((3, 2))
    assert choose_threshold(model, data.X_val, data.y_val, ACCURACY) == 0.5  # all alike: nothing to choose
    model.params["W1"][:, 1] = np.eye(3)[0]
    X, y = np.array([[-2.0, 0, 0], [-1, 0, 0], [3, 0, 0]]), np.array([0, 1, 1])
    s = 1 / (1 + np.exp(-np.array([-2.0, -1])))
    assert choose_threshold(model, X, y, F1) == pytest.approx(s.mean(), rel=1e-6)
    assert judging.f1(y, outcome(model, X, y).predicted) == pytest.approx(2 / 3)  # at 1/2


@pytest.mark.parametrize(
    ("threshold", "options", "message"),
    [
        (0.3, {"loss": "svm"}, "threshold: expected a network with loss 'softmax' of 2 classes or 'bce' of one output"),
        ("auto", {"loss": "svm"}, "threshold: expected a network with loss 'softmax' of 2 classes or 'bce' of one"),
        (1.0, {}, "threshold: expected a probability between 0 and 1, got 1.0"),
        ("best", {}, "threshold: expected a probability between 0 and 1, or 'auto', got 'best'"),
    ],
)
def test_refusals(threshold, options, message):
    with pytest.raises(ValueError, match=message):
        solver(rare(), net_options=options, threshold=threshold)
    with pytest.raises(ValueError, match="got loss 'softmax' of 3; leave threshold out"):
        net(blobs()).threshold = 0.5
