"""Cross-validation: the options of a training on several folds, and what the networks are worth there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from fcnet.build import make_solver_without_run
from fcnet.data import Dataset
from fcnet.functional import Metric
from fcnet.progress import Bar
from fcnet.runs.options import TrainOptions
from fcnet.training.metrics import Figure, outcome, own_figure
from fcnet.training.solver import Solver

PARTS = 1000  # of a fold, in the bar


@dataclass(frozen=True)
class Scores:
    """Hold the scores of the folds' networks on their test parts.

    metrics: accuracy or rmse, before it the metric that was chosen by name, if it is another. figures: (K, metrics).
    """

    metrics: tuple[Metric | Figure, ...]
    figures: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Return the mean over the folds of each metric."""
        return self.figures.mean(axis=0)

    @property
    def deviation(self) -> np.ndarray:
        """Return the standard deviation over the folds of each metric, with K - 1."""
        return self.figures.std(axis=0, ddof=1)


def cross_validate(
    options: TrainOptions,
    name: str,
    folds: Iterator[Dataset],
    count: int,
    on_fold: Callable[[int, np.ndarray, tuple[Metric | Figure, ...]], None],
    *,
    shown: bool,
) -> Scores:
    """Train on all folds but one, `count` times; each fold is the test part once.

    Args:
        name: of the data. folds: `count` of them, each with its own test part; see `fcnet.data.folds`.
        on_fold: called after each fold with its number from 1, its figures and their metrics.
        shown: a progress bar, on a terminal.

    Raises:
        ValueError, TypeError: as `make_solver`. DivergedError: a training diverged.
    """
    found: list[np.ndarray] = []
    metrics: tuple[Metric | Figure, ...] = ()
    with Bar(f"{name}, {count} folds", count * PARTS, 0, shown=shown) as bar:

        def trained(number: int, solver: Solver) -> None:
            bar.show(int(PARTS * (number - 1 + solver.epoch / solver.num_epochs)))

        for number, fold in enumerate(folds, start=1):
            solver = make_solver_without_run(options, fold)
            solver.after_epoch = partial(trained, number, solver)
            solver.train()
            said = outcome(solver.model, *fold.splits()["test"])
            own = own_figure(solver.model.objective, said)
            chosen = (solver.metric,) if isinstance(solver.metric, Figure) else ()
            metrics = (*chosen, solver.model.objective.metric)
            found.append(np.array([*(figure.measure(said) for figure in chosen), own]))
            bar.clear()
            on_fold(number, found[-1], metrics)
            bar.show(number * PARTS)
    return Scores(metrics, np.array(found))
