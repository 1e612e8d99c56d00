"""Metrics on the host: worked by hand, and the same from scikit-learn and from our own lines."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fcnet import functional as F
from fcnet.training import judging
from tests.tolerances import assert_close


@pytest.fixture(params=["scikit-learn", "own"])
def library(request, monkeypatch):
    """Both ways to compute a metric."""
    if request.param == "own":
        monkeypatch.setattr(judging, "_library", None)
    else:
        monkeypatch.setattr(judging, "_library", pytest.importorskip("sklearn.metrics"))
    return request.param


Y = np.array([0, 0, 0, 1, 1, 2])
SAID = np.array([0, 0, 1, 1, 0, 1])  # 2 of 3, 1 of 2, 0 of 1 right


def test_by_hand(library):
    assert judging.confusion_matrix(Y, SAID, 3).tolist() == [[2, 1, 0], [1, 1, 0], [0, 1, 0]]
    assert judging.accuracy(Y, SAID) == 0.5
    assert judging.balanced_accuracy(Y, SAID) == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert judging.f1(Y, SAID) == pytest.approx(2 / 5)  # TP 1, FP 2, FN 1
    assert judging.f1(Y, SAID, positive=2) == 0
    assert judging.f1_macro(Y, SAID) == pytest.approx((4 / 6 + 2 / 5 + 0) / 3)
    assert judging.roc_auc(Y == 1, np.array([1.0, 2, 3, 3, 2, 0])) == pytest.approx((3.5 + 2.5) / 8)
    assert judging.log_loss(np.array([0, 1]), np.array([[0.5, 0.5], [0.75, 0.25]])) == pytest.approx(math.log(8) / 2)
    y, said = np.array([1.0, 2, 3]), np.array([1.0, 2, 5])
    assert judging.rmse(y, said) == pytest.approx(math.sqrt(4 / 3))
    assert judging.mae(y, said) == pytest.approx(2 / 3)
    assert judging.r2(y, said) == pytest.approx(1 - 4 / 2)


def test_what_is_not_defined_is_nan_and_no_warning(library):
    nan = float("nan")
    assert math.isnan(judging.roc_auc(np.array([True, True]), np.array([1.0, 2])))
    assert math.isnan(judging.roc_auc(np.array([True, False]), np.array([1.0, nan])))
    assert math.isnan(judging.log_loss(np.array([0, 1]), np.array([[nan, 0.5], [0.5, 0.5]])))
    assert math.isnan(judging.r2(np.array([3.0, 3]), np.array([1.0, 2])))
    assert math.isnan(judging.r2(np.array([3.0, 4]), np.array([nan, 2])))
    assert judging.log_loss(np.array([1, 1]), np.array([[1.0, 0], [1, 0]])) == pytest.approx(-math.log(judging.TINY))


@pytest.mark.parametrize("classes", [2, 4])
def test_both_ways_agree(classes, monkeypatch):
    """On rows with ties, a class that is never predicted and one that is not in y."""
    monkeypatch.setattr(judging, "_library", pytest.importorskip("sklearn.metrics"))
    rng = np.random.default_rng(classes)
    y = rng.integers(0, max(2, classes - 1), 300)
    scores = rng.standard_normal((300, classes)).round(1) + 2 * (y[:, None] == np.arange(classes))
    scores[:, 0] -= 9 * (classes > 2)
    said = scores.argmax(axis=1)
    numbers = rng.standard_normal((2, 300))

    def figures():
        return [
            judging.balanced_accuracy(y, said),
            judging.f1(y, said),
            judging.f1_macro(y, said),
            judging.roc_auc_of_classes(y, scores),
            judging.log_loss(y, F.softmax(scores)),
            judging.r2(*numbers),
        ]

    theirs = figures()
    monkeypatch.setattr(judging, "_library", None)
    ours = figures()
    assert all(figure > 0 for figure in ours[:5])
    assert_close(np.array(ours), theirs, "float64", "norm")


def test_scikit_learn_is_used_once_it_was_asked_for(monkeypatch):
    metrics = pytest.importorskip("sklearn.metrics")
    monkeypatch.setattr(judging, "_library", None)
    judging.use_library()
    monkeypatch.setattr(metrics, "f1_score", lambda *_, **__: 0.123)
    assert judging.f1(Y, SAID) == 0.123
