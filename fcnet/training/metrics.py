"""How good a network is: metrics by name, and what they make of many samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

import fcnet.functional as F
from fcnet.backends import Array, backend_of
from fcnet.backends.step import direct
from fcnet.errors import unknown
from fcnet.nn.model import FullyConnectedNet
from fcnet.nn.objective import Objective
from fcnet.training import judging


class Outcome(NamedTuple):
    """Hold the targets of N samples and what a network predicts for them, on the host.

    y, predicted: class codes (N,), labels of 0 and 1 (N, C) or numbers (N, C). scores: (N, C) float64, None for
    numbers.
    """

    y: np.ndarray
    predicted: np.ndarray
    scores: np.ndarray | None

    def outputs(self) -> list[Outcome]:
        """Return an outcome with y (N,) for each output: of labels each as two classes; of classes just this one."""
        if self.y.ndim == 1:
            return [self]
        columns = [None] * self.y.shape[1] if self.scores is None else self.scores.T
        return [
            Outcome(y, predicted, None if s is None else np.stack([np.zeros_like(s), s], axis=1))
            for y, predicted, s in zip(self.y.T, self.predicted.T, columns, strict=True)
        ]


class Figure(NamedTuple):
    """Compute a metric that needs all samples at once: on the host, not added up batch by batch on the device.

    key: in the history, train_KEY and val_KEY. title: for people. of: what it makes of an `Outcome` with y (N,).
    smaller_is_better: which of two models is the better one. decides: whether it looks at the decisions, which a
    threshold moves, not at scores alone.
    """

    key: str
    title: str
    of: Callable[[Any], float]
    smaller_is_better: bool = False
    decides: bool = True

    def better(self, value: float, than: float) -> bool:
        """Return whether `value` is better than the figure `than`."""
        return value < than if self.smaller_is_better else value > than

    def measure(self, outcome: Outcome) -> float:
        """Return the figure; of several outputs the mean over those that have one; NaN if scores are not finite."""
        if not np.isfinite(outcome.predicted if outcome.scores is None else outcome.scores).all():
            return math.nan
        values = [value for value in map(self.of, outcome.outputs()) if not math.isnan(value)]
        return float(np.mean(values)) if values else math.nan


ROC_AUC = Figure("roc_auc", "roc auc", lambda one: judging.roc_auc_of_classes(one.y, one.scores), decides=False)
F1 = Figure("f1", "f1", lambda one: judging.f1(one.y, one.predicted))
F1_MACRO = Figure("f1_macro", "f1 (macro)", lambda one: judging.f1_macro(one.y, one.predicted))
BALANCED_ACCURACY = Figure(
    "balanced_accuracy", "balanced accuracy", lambda one: judging.balanced_accuracy(one.y, one.predicted)
)
LOG_LOSS = Figure("log_loss", "log loss", lambda one: judging.log_loss(one.y, F.softmax(one.scores)), True, False)
ACCURACY = Figure("accuracy", "accuracy", lambda one: judging.accuracy(one.y, one.predicted))
RMSE = Figure("rmse", "rmse", lambda one: judging.rmse(one.y, one.predicted), True)
MAE = Figure("mae", "mae", lambda one: judging.mae(one.y, one.predicted), True)
R2 = Figure("r2", "r2", lambda one: judging.r2(one.y, one.predicted))

#: The metrics of classes and labels, and those of numbers, beside accuracy and rmse.
OF_CLASSES = {figure.key: figure for figure in (BALANCED_ACCURACY, F1, F1_MACRO, ROC_AUC, LOG_LOSS)}
OF_NUMBERS = {figure.key: figure for figure in (MAE, R2)}
#: Every name that `metric_named` takes, but for other spellings.
NAMES = ("accuracy", *OF_CLASSES, "rmse", *OF_NUMBERS)


def figures_of(objective: Objective) -> dict[str, Figure]:
    """Return the metrics by name that suit a network, beside its own (accuracy, rmse)."""
    if objective.of_values:
        return dict(OF_NUMBERS)
    found = dict(OF_CLASSES)
    if objective.loss == "bce" and objective.outputs > 1:
        found["f1_macro"] = F1_MACRO._replace(of=F1.of)  # the mean over labels of what is right where one is on
    if objective.loss != "bce" and objective.outputs > 2:
        found["f1"] = F1_MACRO._replace(key="f1")
    if objective.loss == "svm":  # whose scores say nothing of probabilities
        del found["log_loss"]
    return found


def different_figures(objective: Objective) -> list[Figure]:
    """Return the metrics of `figures_of`, each once: with more than two classes f1 and f1_macro are the same."""
    return list({figure.title: figure for figure in figures_of(objective).values()}.values())


def metric_named(name: str | None, objective: Objective) -> F.Metric | Figure:
    """Return the metric of this name for a network; None means its own.

    Other spellings are accepted, such as balanced-accuracy, "roc auc", MAE and AUC.

    Raises:
        ValueError: no such metric, or one of other targets than the network's. TypeError: no name.
    """
    if name is None:
        return objective.metric
    if not isinstance(name, str):
        raise TypeError(f"metric: expected a name such as {NAMES[0]!r}, got {name!r}")
    key = name.strip().lower().replace("-", "_").replace(" ", "_")
    key = {"auc": "roc_auc", "label_accuracy": "accuracy"}.get(key, key)
    own = "rmse" if objective.of_values else "accuracy"
    suited = figures_of(objective)
    if key == own:
        return objective.metric
    if key not in NAMES:
        raise unknown("metric", name, [own, *suited])
    if key not in suited:
        raise ValueError(
            f"metric and loss: expected one of {', '.join([own, *suited])} with loss {objective.loss!r}, got {name!r}"
        )
    judging.use_library()
    return suited[key]


def own_figure(objective: Objective, outcome: Outcome) -> float:
    """Return `objective.metric` of an outcome: accuracy, label accuracy or rmse, over all outputs together."""
    if objective.of_values:
        return judging.rmse(outcome.y.ravel(), outcome.predicted.ravel())
    return judging.accuracy(outcome.y, outcome.predicted)


def measure(model: FullyConnectedNet, X: Array, y: Array, batch_size: int = 4096, *, prepared: bool = False) -> float:
    """Return `model.objective.metric` of the samples X (N, ...) and targets y: accuracy 0 to 1, rmse, ...

    y are as the loss takes them, as `model.objective.to_device` returns them. `prepared` says that X has been through
    `model.prepare`.
    """
    backend, objective = model.backend, model.objective

    def of_batch(scores: Array, targets: Array) -> Array:
        return objective.metric.total(*objective.judged(backend, scores, targets))

    totals = [total for total, _ in _of_batches(model, X, y, batch_size, prepared, of_batch)]
    return objective.metric.figure(float(reduce(objective.metric.join, totals)), len(X), objective.outputs)


def loss_of(model: FullyConnectedNet, X: Array, y: Array, batch_size: int = 4096, *, prepared: bool = False) -> float:
    """Return the mean loss of the samples in evaluation mode, without penalties; the arguments are as in `measure`."""

    def of_batch(scores: Array, targets: Array) -> Array:
        return model.objective.loss_and_gradient(direct, scores, targets)[0]

    means = _of_batches(model, X, y, batch_size, prepared, of_batch)
    return sum(float(mean) * rows for mean, rows in means) / len(X)


def _of_batches(
    model: FullyConnectedNet,
    X: Array,
    y: Array,
    batch_size: int,
    prepared: bool,
    of_batch: Callable[[Array, Array], Array],
) -> list[tuple[np.ndarray, int]]:
    """Return `of_batch(scores, targets)` and the number of rows of each batch; read from the device at the end."""
    backend = model.backend
    backend.use()
    evaluate = model.evaluate_prepared if prepared else model.evaluate
    found = []
    with backend.allocating():
        for start in range(0, len(X), batch_size):
            part = slice(start, start + batch_size)
            here = of_batch(evaluate(backend.asarray(X[part])), backend.asarray(y[part]))
            found.append((here, len(X[part])))
    return [(backend.to_numpy(here), rows) for here, rows in found]


def outcome(model: FullyConnectedNet, X: Array, y: Array, batch_size: int = 4096, *, prepared: bool = False) -> Outcome:
    """Return what the network predicts for the samples X (N, ...) with targets y; the result is on the host.

    `prepared` as in `measure`. Each batch's scores are read from the device.
    """
    backend, objective = model.backend, model.objective
    backend.use()
    evaluate = model.evaluate_prepared if prepared else model.evaluate
    scores, predicted = [], []
    with backend.allocating():
        for start in range(0, len(X), batch_size):
            here = backend.to_numpy(evaluate(backend.asarray(X[start : start + batch_size])))
            predicted.append(objective.predictions(backend_of(here), here))
            if not objective.of_values:
                scores.append(here.astype("float64"))
    y = y if isinstance(y, np.ndarray) else backend.to_numpy(y)
    return _outcome(objective, y, np.concatenate(predicted), np.concatenate(scores) if scores else None)


def _outcome(objective: Objective, y: np.ndarray, predicted: np.ndarray, scores: np.ndarray | None) -> Outcome:
    if not objective.numeric:
        return Outcome(y.argmax(axis=1) if y.ndim == 2 else y, predicted, scores)
    y, predicted = (array.reshape(len(y), objective.outputs).astype("float64") for array in (y, predicted))
    if objective.loss == "bce":
        y, predicted = (y > 0.5).astype("int64"), predicted.astype("int64")
    return Outcome(y, predicted, scores)
