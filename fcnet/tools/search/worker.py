"""One process of a search: take a trial, train it, report its result, until none is left."""

from __future__ import annotations

import contextlib
import math
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fcnet.build as build
from fcnet.backends.signals import Deferred
from fcnet.data import Dataset
from fcnet.errors import DivergedError, TrainingWarning
from fcnet.functional import METRICS, Metric
from fcnet.nn.model import load as read_model
from fcnet.runs.options import TrainOptions, flag, in_users_words, merged, of_network
from fcnet.tools.search.optuna_quietly import need_optuna
from fcnet.tools.search.plan import Plan
from fcnet.tools.search.ranges import Choices, Range
from fcnet.tools.search.shared import Shared
from fcnet.training.metrics import Figure
from fcnet.training.solver import Solver

_REFUSALS = (ValueError, TypeError, MemoryError, OverflowError)


class _Hopeless(Exception):
    """Signal that the trial is worse than the others were at this epoch."""


def make(values: dict[str, Any], out: Path, plan: Plan, dataset: Dataset) -> Solver:
    """Return the Solver that `fcnet train` would make of the fixed options and these."""
    return build.make_solver(_options(plan, values | {"out": str(out), "checkpoints": False}), dataset, verbose=False)


def _options(plan: Plan, values: dict[str, Any]) -> TrainOptions:
    """Return the fixed options and these, over those of the network to start from, if there is one."""
    source = (plan.fixed | values).get("from_")
    return merged({} if source is None else of_network(read_model(source).config), plan.fixed, values)


def load(plan: Plan) -> Dataset:
    """Return the data that all trials share; the names of files become their whole paths."""
    if plan.fixed.get("from_") is not None:
        plan.fixed["from_"] = str(Path(plan.fixed["from_"]).expanduser().resolve())
    if plan.dataset is not None:
        return plan.dataset
    options = _options(plan, {})
    losses = plan.space.get("loss")
    if isinstance(losses, Choices):
        options.loss = losses.values[0]  # it says what the targets are
    dataset = build.load_data(options)
    plan.fixed["data"] = options.data
    return dataset


def rehearse(plan: Plan, dataset: Dataset) -> Metric | Figure:
    """Set up trainings, without a step, at the ends of each range and for each choice: mistakes show before the study.

    Returns:
        The metric that trials are compared by.

    Raises:
        ValueError, TypeError: no combination tried is possible, or a value is refused by itself.
    """
    picks = {
        name: [what.low, what.high] if isinstance(what, Range) else list(what.values)
        for name, what in plan.space.items()
    }
    solver = base = refusal = None
    for turn in range(max(map(len, picks.values()))):
        base = {name: values[turn % len(values)] for name, values in picks.items()}
        try:
            solver = make(base, plan.trial_folder(0), plan, dataset)
            break
        except _REFUSALS as error:
            refusal = refusal or error
    if solver is None:
        assert refusal is not None  # each turn made a solver or an error
        raise refusal
    for name, values in picks.items():
        for value in values:
            if base is not None and value != base[name]:
                _check_value(name, base | {name: value}, solver.metric, plan, dataset)
    return solver.metric


def _check_value(name: str, values: dict[str, Any], metric: Metric | Figure, plan: Plan, dataset: Dataset) -> None:
    """Refuse a value that is wrong by itself: the message names its option and no other."""
    try:
        # A loss that wants other targets than these would be refused for the data's sake.
        if name == "loss" and plan.fixed.get("metric") is None:
            other: Metric | Figure = METRICS[values["loss"]]
        else:
            other = make(values, plan.trial_folder(0), plan, dataset).metric
    except _REFUSALS as error:
        parsed = in_users_words(str(error), None, ())
        if parsed.startswith((f"--{flag(name)}: ", f"{name}: ")):
            raise ValueError(f"vary {parsed.removeprefix('--')}") from None
        return
    if other.key != metric.key:
        raise ValueError(
            f"vary {flag(name)}: expected values judged by the same figure, got {metric.title} and {other.title}; "
            "search each in a study of its own"
        )


def work(
    shared: Shared, dataset: Dataset, on_update: Callable[[], None], stopping: Callable[[], bool] = lambda: False
) -> None:
    """Make trials until none is left, or `stopping` says so; `on_update` is called after each epoch and each trial.

    Raises:
        KeyboardInterrupt: passed on; the trial it came in is queued again.
    """
    while not stopping():
        trial = shared.claim()
        if trial is None:
            return
        _run(shared, trial, dataset, on_update, stopping)
        on_update()


def _run(
    shared: Shared, trial: Any, dataset: Dataset, on_update: Callable[[], None], stopping: Callable[[], bool]
) -> None:
    optuna = need_optuna()
    states = optuna.trial.TrialState
    folder = shared.plan.trial_folder(trial.number)
    try:
        outcome, state, kept, best = "finished", states.COMPLETE, {}, None
        values = shared.suggested(trial)
        try:
            solver = make(values, folder, shared.plan, dataset)
            solver.after_epoch = lambda: _report(shared, trial, solver, on_update, stopping)
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore", TrainingWarning)  # reported like a loss that overflows
                solver.train()
            best = solver.best_val_metric
            if best is None or not math.isfinite(best):
                outcome, state, kept, best = "failed", states.FAIL, {"why": _without_figure(solver)}, None
            else:
                kept = {"run": str(folder.resolve())}
        except _Hopeless:
            outcome, state = "pruned", states.PRUNED
        except DivergedError as error:
            outcome, state, kept = "diverged", states.PRUNED, {"why": str(error)}
        except _REFUSALS as error:
            message = in_users_words(str(error) or type(error).__name__, None, ())
            outcome, state, kept = "refused", states.FAIL, {"why": message}
        if "run" not in kept:  # what a trial that was stopped learned is nobody's
            shutil.rmtree(folder, ignore_errors=True)
        with Deferred():
            for key, value in kept.items():
                trial.set_user_attr(key, value)
            trial.set_user_attr("outcome", outcome)
            shared.study.tell(trial, best, state=state)
    except optuna.exceptions.UpdateFinishedTrialError:  # taken for dead by another process, which makes it again
        shutil.rmtree(folder, ignore_errors=True)
    except BaseException:
        with Deferred():
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(Exception):  # if it cannot be reported now, the next process finds this one gone
                shared.void(trial, "interrupted")
        raise


def _without_figure(solver: Solver) -> str:
    """Return why a finished training has no validation figure to be compared by."""
    if solver.best_val_metric is None:
        return f"{solver.update_rule} made no iteration: {solver.message}"
    return f"the validation {solver.metric.title} was not finite in any epoch"


def _report(
    shared: Shared, trial: Any, solver: Solver, on_update: Callable[[], None], stopping: Callable[[], bool]
) -> None:
    """Report the epoch to the study. Raises _Hopeless if that is no good, KeyboardInterrupt if all shall stop."""
    with Deferred():
        trial.report(solver.val_metric_history[-1], solver.epoch)
        trial.set_user_attr("alive", time.time())
    on_update()
    if stopping():
        raise KeyboardInterrupt
    if solver.epoch < solver.num_epochs and trial.should_prune():
        raise _Hopeless
