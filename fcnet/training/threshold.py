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
    """Give the model a threshold, none yet for "auto"; what was given.

    Raises:
        ValueError, TypeError: as `FullyConnectedNet.threshold`, also for "auto" where there is nothing to choose.
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
    """What a threshold is chosen by: the metric, if it was asked for by name and looks at decisions; else balanced
    accuracy, as accuracy would have a rare class passed over.
    """
    if isinstance(metric, Figure):
        return metric if metric.decides else BALANCED_ACCURACY
    return ACCURACY if by_name else BALANCED_ACCURACY


def choose_threshold(model: FullyConnectedNet, X: Array, y: Array, figure: Figure) -> float:
    """The threshold with the best figure on these samples; of equals that nearest to 1/2.

    Tried are 1/2 and the middles between neighbouring probabilities, up to `MOST` of them; 0 and 1 are neighbours, too.
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
    """The outcome with the decisions that another threshold makes."""
    above = scores > math.log(threshold) - math.log1p(-threshold)
    return said._replace(predicted=above.astype(np.int64).reshape(said.predicted.shape))
