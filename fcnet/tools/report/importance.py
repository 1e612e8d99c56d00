"""Permutation importance: how much worse a network predicts when one column of its table is shuffled."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fcnet.backends import Purpose, host_generator
from fcnet.nn.model import FullyConnectedNet
from fcnet.training.metrics import Outcome, outcome

REPEATS = 5
MOST_ROWS, LEAST_ROWS = 2000, 100


@dataclass(frozen=True)
class Importance:
    """Hold a column's name, and the mean and standard deviation of the metric's loss over the repeats."""

    column: str
    loss: float
    deviation: float


def columns_of_inputs(model: FullyConnectedNet) -> dict[str, np.ndarray]:
    """Return the inputs (places in X) that each column of the table became, by its name; empty: no names."""
    if model.plan is None:
        return {name: np.array([at]) for at, name in enumerate(model.features or ())}
    found, at = {}, 0
    for column in model.plan.used:
        width = len(column.outputs)
        found[column.name] = np.arange(at, at + width)
        at += width
    return found


def importances(
    model: FullyConnectedNet,
    X: np.ndarray,
    y: np.ndarray,
    figure: Callable[[Outcome], float],
    *,
    smaller_is_better: bool,
    seconds: float,
    seed: int,
) -> list[Importance] | None:
    """Return the importance of each column of the table, the most important first; None if there is no time for it.

    A column's inputs are shuffled together, over the rows, up to `REPEATS` times; the loss is how much worse `figure`
    becomes. Source: Breiman, "Random Forests", 2001; Fisher et al., 2019.

    Args:
        X: (N, D) rows that the network was not trained on. y: their targets.
        figure: what the network is judged by. seconds: about what it may take.
    """
    columns = columns_of_inputs(model)
    generator = host_generator(seed, Purpose.DATA)
    rows = generator.permutation(len(X))[:MOST_ROWS]
    outcome(model, X[rows], y[rows])  # the first call may compile
    started = time.perf_counter()
    outcome(model, X[rows], y[rows])
    each = time.perf_counter() - started
    if each * len(columns) > seconds:  # with fewer rows a round may fit
        rows = rows[: max(LEAST_ROWS, int(len(rows) * seconds / (each * len(columns))))]
        each *= len(rows) / min(len(X), MOST_ROWS)
    if not columns or each * len(columns) > 2 * seconds:
        return None
    rows.sort()
    X, y = np.array(X[rows]), y[rows]
    base = figure(outcome(model, X, y))
    end = started + seconds
    losses: list[list[float]] = []
    while len(losses) < REPEATS and (not losses or time.perf_counter() + each * len(columns) < end):
        losses.append([])
        order = generator.permutation(len(X))
        for inputs in columns.values():
            own = X[:, inputs]
            X[:, inputs] = own[order]
            shuffled = figure(outcome(model, X, y))
            X[:, inputs] = own
            losses[-1].append(shuffled - base if smaller_is_better else base - shuffled)
    means, deviations = np.mean(losses, axis=0), np.std(losses, axis=0)
    found = [Importance(*of) for of in zip(columns, means.tolist(), deviations.tolist(), strict=True)]
    return sorted(found, key=lambda one: -one.loss)
