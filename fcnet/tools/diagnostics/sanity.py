"""Sanity checks before a long training: the loss at the start, a small set learned by heart, gradients.

Source: CS231n, "Before learning: sanity checks tips/tricks".
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fcnet.backends import Purpose, host_generator
from fcnet.data import Dataset
from fcnet.errors import DivergedError, TrainingWarning, counted
from fcnet.nn.model import FullyConnectedNet
from fcnet.progress import Progress
from fcnet.tools.diagnostics.copies import UNREGULARISED, copy_of, quietly
from fcnet.tools.gradcheck import gradcheck
from fcnet.training.solver import Solver
from fcnet.validation import positive_int

Array = Any

SMALL = 1e-3  # standard deviation of "small" weights
CLOSE = 0.01  # relative difference from an expected loss that is still "equal": small weights are not zero
LARGE = 3  # how many times its expected value the loss may be as a network is initialised
ALMOST = 0.99  # of the variance of a few targets, as good as all of it
GRADIENT_ERROR = 1e-4  # between what kinks of ReLU cause (1e-5) and mistakes (1e-3 to 1)

#: The loss of equal scores in closed form, by name; that of any other loss is computed from scores of 0.
AT_CHANCE = {
    "softmax": ("ln C", lambda classes: math.log(classes)),
    "svm": ("C - 1", lambda classes: classes - 1.0),
    "bce": ("ln 2", lambda classes: math.log(2)),
}


@dataclass(frozen=True)
class Finding:
    """Report a check in a line: what was checked, found and expected; `cause` says what a failure comes from."""

    check: str
    measured: str
    expected: str
    passed: bool
    cause: str


@dataclass(frozen=True)
class InitialLoss:
    """Compare losses of a network before training with what they should be, in float64.

    small: with small weights, so that all scores are nearly equal. expected: its value at chance,
    `formula` in words. reg: an L2 strength; with_reg: the losses, of the network as it is initialised, at 0, reg and
    2 reg. penalty: 0.5 reg Σ W².
    """

    small: float
    expected: float
    formula: str
    reg: float
    with_reg: tuple[float, float, float]
    penalty: float

    @property
    def findings(self) -> list[Finding]:
        """Return a line each for small weights, as initialised (where chance has a closed form) and regularisation."""
        small = Finding(
            "initial loss, small weights",
            f"{self.small:.4f}",
            f"{self.expected:.4f} ({self.formula})",
            abs(self.small - self.expected) <= CLOSE * abs(self.expected),
            "inputs that are not scaled (--preprocess), or a loss that does not fit the labels",
        )
        start = Finding(
            "initial loss, as initialised",
            f"{self.with_reg[0]:.4f}",
            f"below {LARGE * self.expected:.4f}",
            self.with_reg[0] <= LARGE * self.expected,
            "initial weights too large (--init, --weight-scale), or inputs that are not scaled (--preprocess)",
        )
        grown = [loss - self.with_reg[0] for loss in self.with_reg[1:]]
        growth = Finding(
            f"  grows with reg {self.reg:.2g}, {2 * self.reg:.2g}",
            ", ".join(f"+{value:.4f}" for value in grown),
            ", ".join(f"+{times * self.penalty:.4f}" for times in (1, 2)),
            all(abs(value - times * self.penalty) <= CLOSE * self.penalty for times, value in enumerate(grown, 1)),
            "a regularisation term that is missing from the loss, or counted twice",
        )
        judged = any(self.formula == formula for formula, _ in AT_CHANCE.values())
        return [small, *([start] if judged else []), growth]

    @property
    def passed(self) -> bool:
        """Return whether all of it is as expected."""
        return all(finding.passed for finding in self.findings)


@dataclass(frozen=True)
class Overfit:
    """Report how well a few samples are learned by heart.

    samples: how many. score: at the end, of those samples, the share of right classes or labels; of numbers (mse) the
    share of their variance (of their squares, if all are equal) that is explained, R². target: the score to reach.
    loss: the last. steps: made. ended: how a method on all samples at once ended, in SciPy's words, or why it did.
    """

    samples: int
    score: float
    target: float
    loss: float
    steps: int
    ended: str | None = None

    @property
    def passed(self) -> bool:
        """Return whether the samples are known by heart."""
        return self.score >= self.target

    @property
    def findings(self) -> list[Finding]:
        """Return one line."""
        step = "a learning rate too low or too high (see fcnet lr-range)"
        if self.ended is not None:
            step = f"a method that found no further step ({self.ended})"
        elif not math.isfinite(self.loss):
            step = "a learning rate that is too high (see fcnet lr-range)"
        cause = step
        if math.isfinite(self.loss):
            cause += (
                ", units that are all dead or all start equal (--init zeros), too few hidden units, or equal inputs "
                "with different labels"
            )
        return [
            Finding(
                f"overfits {counted(self.samples, 'sample')}",
                f"{100 * self.score:.1f} % after {counted(self.steps, 'step')}, loss {self.loss:.2g}",
                f"{100 * self.target:g} %",
                self.passed,
                cause,
            )
        ]


@dataclass(frozen=True)
class Gradients:
    """Report relative errors of the analytic gradients against numerical ones, by parameter; see `fcnet.gradcheck`."""

    errors: Mapping[str, float]

    @property
    def passed(self) -> bool:
        """Return whether every error is small."""
        return all(finding.passed for finding in self.findings)

    @property
    def findings(self) -> list[Finding]:
        """Return a line per parameter."""
        cause = "a backward pass that does not belong to its forward pass"
        return [
            Finding(f"gradient of {name}", f"{error:.1e}", f"below {GRADIENT_ERROR:g}", error <= GRADIENT_ERROR, cause)
            for name, error in self.errors.items()
        ]


@dataclass(frozen=True)
class Sanity:
    """Report all three checks; printed, it is a table."""

    initial_loss: InitialLoss
    overfit: Overfit
    gradients: Gradients

    @property
    def findings(self) -> list[Finding]:
        """Return the lines of all checks."""
        return [*self.initial_loss.findings, *self.overfit.findings, *self.gradients.findings]

    @property
    def passed(self) -> bool:
        """Return whether nothing failed."""
        return all(finding.passed for finding in self.findings)

    def __str__(self) -> str:
        rows = [("check", "measured", "expected"), *((f.check, f.measured, f.expected) for f in self.findings)]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        verdicts = ["", *("ok" if finding.passed else "FAILED" for finding in self.findings)]
        lines = [
            "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=True)), verdict]).rstrip()
            for row, verdict in zip(rows, verdicts, strict=True)
        ]
        causes: dict[str, list[str]] = {}
        for finding in self.findings:
            if not finding.passed:
                causes.setdefault(finding.cause, []).append(finding.check.strip())
        lines += [f"{', '.join(checks)}: usually {cause}" for cause, checks in causes.items()]
        return "\n".join(lines)


def check_initial_loss(model: FullyConnectedNet, X: Array, y: Array) -> InitialLoss:
    """Return the loss before training, against what it must be.

    With small weights all scores are about equal, so every class has a chance of 1/C: the softmax loss is then ln C,
    the hinge loss C - 1, as each of the C - 1 wrong classes misses its margin by 1; the binary cross-entropy is ln 2,
    whatever the labels. The L2 term adds 0.5 reg Σ W².

    Args:
        model: not yet trained; it is left as it is.
        X, y: some hundred samples, as for `model.loss`.

    Raises:
        ValueError, TypeError: as `model.loss`.
    """
    double = copy_of(model, dtype="float64")
    double.reg = double.reg_l1 = 0.0
    bare, _ = double.loss(X, y)
    squares = sum(float((double.backend.to_numpy(w) ** 2).sum()) for w in double.params.values() if w.ndim > 1)
    # A strength that makes the term about as large as the loss: neither is lost in the other's rounding.
    reg = 2 * max(abs(bare), 1e-3) / squares if squares and math.isfinite(bare) else 1.0
    with_reg = [bare]
    for strength in (reg, 2 * reg):
        double.reg = strength
        with_reg.append(double.loss(X, y)[0])
    double.reg = 0.0
    last = double.output.index
    double.params[f"b{last}"][...] = 0
    for name, shape in double.params.shapes.items():
        if len(shape) > 1:
            weights = double.backend.to_numpy(double.params[name])
            double.params[name] = weights * min(1.0, SMALL / max(float(weights.std()), 1e-300))
    small, _ = double.loss(X, y)
    if model.config["loss"] in AT_CHANCE:
        formula, value = AT_CHANCE[model.config["loss"]]
        expected = value(model.num_classes)
    else:
        formula = "scores of 0"
        double.params[f"W{last}"][...] = 0
        expected, _ = double.loss(X, y)
    return InitialLoss(small, expected, formula, reg, (with_reg[0], with_reg[1], with_reg[2]), 0.5 * reg * squares)


def check_overfit(solver: Solver, *, samples: int = 50, steps: int = 1000, verbose: bool = False) -> Overfit:
    """Learn a few training samples by heart; a network that cannot do that learns nothing larger.

    A copy of the solver's network, without dropout and penalties, is trained on them in full batches, with the solver's
    update rule and first learning rate, until it classifies all of them right (with the loss "mse": explains 99 % of
    their variance).

    Args:
        solver: left as it is. samples: taken from its training data, as many of each class as there are.
        steps: at which to give up. verbose: show a progress bar (on a terminal only).

    Raises:
        ValueError, TypeError: numbers below 1, or not a Solver.
    """
    _check_solver(solver)
    samples, steps = positive_int("samples", samples), positive_int("steps", steps)
    X, y = few(solver, samples)
    data = dataclasses.replace(solver.data, X_train=X, y_train=y, X_val=X, y_val=y, X_test=None, y_test=None)
    trial = _small_solver(solver, data, steps)
    numbers = trial.model.objective.of_values
    target = ALMOST if numbers else 1.0
    score, loss = 0.0, math.inf
    title = f"overfitting {counted(len(X), 'sample')}"
    with quietly(), Progress(title, steps, 0, shown=verbose) as progress:
        if trial.full_batch is not None:
            loss, ended = _minimized(trial, progress)
            return Overfit(len(X), _score(trial.model, X, y), target, loss, trial.steps, ended)
        while trial.steps < steps and score < target:
            trial.step()
            progress.advance(len(X), lambda: trial.loss_history[-1])
            if trial.steps % 10 == 0 or trial.steps == steps:  # a look waits for the device
                loss = trial.loss_history[-1]
                if not math.isfinite(loss):
                    break
                score = _score(trial.model, X, y)
    return Overfit(len(X), score, target, loss, trial.steps)


def _minimized(trial: Solver, progress: Progress) -> tuple[float, str]:
    """Train by a method on all samples at once; the last loss, and how the training ended."""
    X, y = trial.data.X_train, trial.data.y_train
    trial.after_epoch = lambda: progress.advance(len(X), lambda: trial.loss_history[-1])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TrainingWarning)  # the finding says it
            trial.train()
    except DivergedError as error:
        return math.inf, str(error)
    loss = trial.loss_history[-1] if trial.steps else trial.model.loss(X, y)[0]
    return loss, trial.message or "its figure no longer improved"


def _small_solver(solver: Solver, data: Dataset, steps: int) -> Solver:
    """Return a solver of the same rule for a copy of the network on all samples of `data` at once."""
    net = copy_of(solver.model, **UNREGULARISED)
    how: dict[str, Any] = {"update_rule": solver.update_rule, "num_epochs": steps, "seed": solver.seed}
    if solver.full_batch is not None:
        config = dict(solver.full_batch.config)
        return Solver(net, data, optim_config=config, patience=20, verbose=False, **how)
    config = dict(solver.optimizer.config) | {"learning_rate": solver.first_learning_rate}
    how |= {"batch_size": len(data.X_train), "schedule": "constant"}
    return Solver(net, data, optim_config=config, verbose=False, **how)


def _score(model: FullyConnectedNet, X: np.ndarray, y: np.ndarray) -> float:
    """Return `Overfit.score` of these samples."""
    predicted, loss = model.predict(X), model.config["loss"]
    if model.objective.of_values:
        y = y.reshape(predicted.shape).astype(np.float64)
        squares = float((y**2).sum())
        varied = float(((y - y.mean(axis=0)) ** 2).sum())
        # Equal targets vary by rounding alone: what is explained is then a share of their size.
        whole = varied if varied > 1e-12 * squares else squares or y.size
        return float(1 - ((predicted - y) ** 2).sum() / whole)
    if loss == "bce":
        return float((predicted.reshape(y.shape) == (y > 0.5)).mean())
    return float((predicted == (y.argmax(axis=1) if y.ndim == 2 else y)).mean())


def check_gradients(model: FullyConnectedNet, X: Array, y: Array) -> Gradients:
    """Compare numerical and analytic gradients in float64, frozen layers included, at two distances of differences.

    A ReLU that changes its side within one distance seldom does within the smaller one, and a gradient of nearly 0 is
    measured better at the larger; a wrong gradient is wrong at both.

    Args:
        model: left as it is. X, y: a few samples, as for `model.loss`.

    Raises:
        ValueError, TypeError: as `model.loss`.
    """
    double = copy_of(model, dtype="float64")  # in which no layer is frozen
    errors = gradcheck(double, X, y, samples=20)
    if max(errors.values()) > GRADIENT_ERROR:
        closer = gradcheck(double, X, y, samples=20, h=1e-6)
        errors = {name: min(error, closer[name]) for name, error in errors.items()}
    return Gradients(errors)


def check(solver: Solver, *, overfit_steps: int = 1000, verbose: bool = False) -> Sanity:
    """Return the three checks of a training that is about to begin; the solver and its network are left as they are.

    Args:
        overfit_steps: see `check_overfit`. verbose: show a progress bar (on a terminal only).

    Returns:
        The results: `passed`, `findings`, and a table when printed.

    Raises:
        ValueError, TypeError: not a Solver, or a number below 1.
    """
    _check_solver(solver)
    return Sanity(
        check_initial_loss(solver.model, *few(solver, 500)),
        check_overfit(solver, steps=overfit_steps, verbose=verbose),
        check_gradients(solver.model, *few(solver, 10)),
    )


def few(solver: Solver, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `count` training samples (or all, if fewer), the same at every call; the classes take turns."""
    X, y = solver.data.X_train, solver.data.y_train
    order = host_generator(solver.seed, Purpose.DATA).permutation(len(X))
    if y.ndim == 1 and y.dtype.kind in "iu":
        labels = y[order]
        by_class = np.argsort(labels, kind="stable")
        starts = np.searchsorted(labels[by_class], labels[by_class])
        turn = np.empty(len(X), dtype=np.int64)
        turn[by_class] = np.arange(len(X)) - starts  # how many of the same class come before
        order = order[np.argsort(turn, kind="stable")]
    rows = order[:count]
    return X[rows], y[rows]


def _check_solver(solver: Any) -> None:
    if not isinstance(solver, Solver):
        raise TypeError(f"solver: expected a Solver, got {type(solver).__name__}; it brings the data and the rule")
