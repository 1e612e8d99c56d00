"""The probability above which the second of two classes is predicted: given, or chosen on the validation part."""

from __future__ import annotations

import math

import numpy as np

from fcnet.backends import Array
from fcnet.functional import Metric
from fcnet.nn.model import FullyConnectedNet
from fcnet.training.metrics import ACCURACY, BALANCED_ACCURACY, Figure, Outcome, outcome

MOST = 100  # probabilities that are tried


def with_threshold(model: FullyConnectedNet, threshold: float | str | None) -> float | str | None:
    """Set the threshold of a model, None for now if it is "auto"; return the argument.

    Raises:
        ValueError, TypeError: as `FullyConnectedNet.threshold`; "auto" needs a network that can have a threshold.
    """
    if threshold == "auto":
        model.threshold = 0.5  # refused if it suits nothing
        model.threshold = None
    elif isinstance(threshold, str):
        raise ValueError(f"threshold: expected a probability between 0 and 1, or 'auto', got {threshold!r}")
    elif threshold is not None:
        model.threshold = threshold
    return threshold


def figure_for_threshold(metric: Metric | Figure, *, by_name: bool) -> Figure:
    """Return the figure by which a threshold is chosen.

    It is the metric, if that was asked for by name and depends on decisions; else the balanced accuracy, because the
    best plain accuracy is often that of never predicting a rare class.
    """
    if isinstance(metric, Figure):
        return metric if metric.decides else BALANCED_ACCURACY
    return ACCURACY if by_name else BALANCED_ACCURACY


def choose_threshold(model: FullyConnectedNet, X: Array, y: Array, figure: Figure) -> float:
    """Return the threshold with the best figure on these samples; of equals that nearest to 1/2.

    The candidates are 1/2 and the midpoints between neighbouring predicted probabilities, with 0 and 1 added to these;
    at most `MOST` midpoints.
    """
    said = outcome(model, X, y)
    assert said.scores is not None  # of classes and labels there are
    scores = said.scores[:, -1] - (said.scores[:, 0] if said.scores.shape[1] == 2 else 0)
    p = np.unique(np.r_[0, 1 / (1 + np.exp(-scores)), 1])
    middles = (p[:-1] + p[1:]) / 2
    tried = np.r_[0.5, middles[np.unique(np.linspace(0, len(middles) - 1, MOST).astype(int))]]
    tried = tried[np.argsort(np.abs(tried - 0.5), kind="stable")]
    best, best_figure = 0.5, math.nan
    for threshold in tried.tolist():
        here = figure.measure(_decided(said, scores, threshold))
        if math.isnan(best_figure) or figure.better(here, best_figure):
            best, best_figure = threshold, here
    return best


def _decided(said: Outcome, scores: np.ndarray, threshold: float) -> Outcome:
    """Return the outcome with the decisions of this threshold: p > t if and only if score > log(t / (1 - t))."""
    above = scores > math.log(threshold) - math.log1p(-threshold)
    return said._replace(predicted=above.astype(np.int64).reshape(said.predicted.shape))
