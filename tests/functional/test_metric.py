"""Metrics: figures of how good predictions are."""

import numpy as np
import pytest

from fcnet import functional as F


def test_metrics(device, host, dtype):
    scores = np.array([[1.0, 2.0, 0.0], [3.0, -1.0, 0.5], [-1.0, 0.0, 3.0]])
    metric = F.METRICS["softmax"]
    for y in (np.array([1, 2, 2]), np.array([[0, 1.0, 0], [0, 0, 1], [0, 0, 1]])):
        total = float(host(metric.total(device(scores, dtype), device(y))))
        assert metric.figure(total, 3, 3) == pytest.approx(2 / 3)
    scores = scores[:2]
    labels = np.array([[1.0, 0, 1], [1, 0, 0]])  # on where the score is above 0: three of six are right
    metric = F.METRICS["bce"]
    assert metric.figure(float(host(metric.total(device(scores, dtype), device(labels, dtype)))), 2, 3) == 0.5
    metric = F.METRICS["mse"]
    total = float(host(metric.total(device(scores, dtype), device(scores + np.eye(2, 3), dtype))))
    assert metric.figure(total, 2, 3) == pytest.approx((2 / 6) ** 0.5)
    assert metric.better(0.1, than=0.2)
    assert F.METRICS["svm"].better(0.2, than=0.1)


@pytest.mark.parametrize("kind", ["int64", "uint8", "strided", "one-hot"])
def test_right_classes_takes_labels_of_every_kind(kind, rng, device, host, dtype, xp):
    scores, y = rng.standard_normal((70, 5)), rng.integers(5, size=70)
    right = sum(int(label) == max(range(5), key=list(row).__getitem__) for row, label in zip(scores, y, strict=True))
    given = {"strided": lambda: np.repeat(y, 2), "one-hot": lambda: np.eye(5)[y]}.get(kind, lambda: y.astype(kind))()
    labels = device(given)[::2] if kind == "strided" else device(given)
    assert int(host(F.right_classes(device(scores, dtype), labels))) == right
    count = xp.empty((), dtype="int64")
    assert F.right_classes(device(scores, dtype), labels, count=count) is count
    assert int(host(count)) == right


def test_errors_whose_squares_overflow_have_a_norm(device, host, dtype):
    large = {"float32": 2.0**100, "float64": 2.0**900}[dtype]
    metric = F.METRICS["mse"]
    scores = np.array([[3.0], [4.0], [0.0], [12.0]]) * large
    parts = [metric.total(device(part, dtype), device(0 * part, dtype)) for part in (scores[:3], scores[3:])]
    total = float(host(metric.join(*parts)))
    assert metric.figure(total, 4, 1) / large == pytest.approx(6.5)
    zero = metric.total(device(scores, dtype), device(scores, dtype))
    assert metric.figure(float(host(zero)), 4, 1) == 0
    with np.errstate(over="ignore"):
        endless = metric.total(device([[np.inf], [1.0]], dtype), device([[0.0], [0.0]], dtype))
    assert float(host(endless)) == np.inf
