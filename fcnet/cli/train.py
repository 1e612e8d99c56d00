"""`fcnet train`: from flags or a TOML file to a run directory."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from fcnet.build import data_of, load_rows, make_solver
from fcnet.cli.figures import by_output, in_short, spelled
from fcnet.cli.flags import add_config, add_flags, given_options
from fcnet.cli.parser import Parser, say
from fcnet.cli.report import check_report, write_report
from fcnet.data.folds import folds
from fcnet.errors import counted
from fcnet.functional import Metric
from fcnet.runs.checkpoints import FOLDER
from fcnet.runs.options import TrainOptions
from fcnet.tools.crossvalidation import cross_validate
from fcnet.training.metrics import Figure, Outcome, outcome, own_figure
from fcnet.training.solver import Solver
from fcnet.training.threshold import figure_for_threshold


def add(parser: Parser) -> None:
    """Declare a flag for each of `TrainOptions`."""
    add_config(parser, quiet="no progress bar or line per epoch, only the figures at the end")
    add_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    """Train as the command line says; the last line has the test accuracy if there is a test part."""
    options, in_their_words = given_options(arguments)
    with in_their_words:
        return _train(options, quiet=arguments.quiet)


def _train(options: TrainOptions, *, quiet: bool) -> int:
    tell = (lambda _: None) if quiet else say
    if options.report:
        check_report()
    rows = load_rows(options)
    parts = None if options.cv is None else folds(rows, options.cv)  # checks the options before all else
    dataset = data_of(options, rows)
    solver = make_solver(options, dataset, verbose=not quiet)
    tell(dataset.summary())
    tell(f"{solver.model!r}, {solver.model.backend.describe()}")
    scores = None
    if parts is not None and options.cv is not None:
        of_fold = partial(_tell_fold, options.cv, tell)
        scores = cross_validate(options, dataset.name, parts, options.cv, of_fold, shown=not quiet)
        tell(f"all {counted(len(dataset.X_train) + len(dataset.X_val), 'row')}: the network that is kept")
    carry_out(solver, tell)
    if scores is None:
        judge(solver, tell)
    else:
        for metric, mean, deviation in zip(scores.metrics, scores.mean, scores.deviation, strict=True):
            text = in_short(metric, mean, "test ")
            places = len(text.rpartition(".")[2])
            say(f"{text} ± {deviation:.{places}f} (mean ± standard deviation of {options.cv} folds)")
    write_report(solver, scores, asked=options.report, quiet=quiet)
    return 0


def carry_out(solver: Solver, tell: Callable[[str], None]) -> None:
    """Train, and print the results."""
    started = time.perf_counter()
    try:
        solver.train()
    except KeyboardInterrupt:
        if not solver.history:
            raise
        _report(solver, time.perf_counter() - started, tell)
        done = int(solver.history[-1]["epoch"])
        run = solver.run
        hint = f"; fcnet resume {run.path} goes on" if run is not None and run.checkpoints.steps() else ""
        raise KeyboardInterrupt(f"after epoch {done} of {solver.num_epochs}{hint}") from None
    _report(solver, time.perf_counter() - started, tell)


def _tell_fold(
    count: int, tell: Callable[[str], None], number: int, figures: np.ndarray, metrics: tuple[Metric | Figure, ...]
) -> None:
    """Print a fold's figures: "fold 1 of 5: test f1 0.9, test accuracy 0.95"."""
    texts = [in_short(metric, figure, "test ") for metric, figure in zip(metrics, figures, strict=True)]
    tell(f"fold {number} of {count}: {', '.join(texts)}")


def judge(solver: Solver, tell: Callable[[str], None]) -> None:
    """Print the network's figures; the last line has the test accuracy or rmse if there is a test part."""
    splits, model, own = solver.data.splits(), solver.model, solver.model.objective.metric
    part = "test" if "test" in splits else "val"
    said = outcome(model, *splits[part])
    chosen = solver.metric if isinstance(solver.metric, Figure) else None
    is_shown = part == "test" or chosen is not None  # else the last line is of the history
    figure = own_figure(model.objective, said) if is_shown else solver.check_metric(*splits[part])
    if model.objective.numeric:
        for line in by_output(model, said, f"{part} "):
            tell(line)
    if model.objective.of_values:
        for line in _no_better_than_the_mean(solver, said, figure):
            tell(line)
    if part == "test":
        if chosen is not None:
            say(in_short(chosen, chosen.measure(said), "test "))
        say(f"{in_short(own, figure, 'test ')}{_untrained(solver)}")
    else:
        say(_best(solver))
        if chosen is not None:
            say(in_short(own, figure, "validation "))


def _report(solver: Solver, seconds: float, tell: Callable[[str], None]) -> None:
    epochs = int(solver.history[-1]["epoch"]) if solver.history else 0  # solver.epoch counts one cut short, too
    tell(
        f"{counted(epochs, 'epoch')}, {counted(solver.steps, 'step')} in {seconds:.1f} s{_speed(solver)}; "
        f"{_best(solver)}{f' at epoch {solver.best_epoch}' if solver.history else ''}"
    )
    for line in solver.how_steps_are_made:
        tell(f"steps: {line}")
    if solver.message is not None:
        how = "" if solver.converged or epochs == solver.num_epochs else "without success "
        tell(
            f"{solver.update_rule} ended {how}after {epochs} of {counted(solver.num_epochs, 'epoch')}: {solver.message}"
        )
    if solver.threshold == "auto" and solver.model.threshold is not None:
        tell(_threshold(solver, solver.model.threshold))
    assert solver.run is not None  # make_solver gives one
    tell(f"wrote {solver.run.path}: {', '.join(sorted(p.name for p in solver.run.path.iterdir() if p.name != FOLDER))}")
    if solver.run.no_picture is not None:
        tell(f"no curves.png: {solver.run.no_picture}")


def _threshold(solver: Solver, threshold: float) -> str:
    """Return the threshold as text: "threshold 0.2 of yes, chosen on the validation part: validation f1 0.8"."""
    names = solver.model.classes or ("1",)
    figure = figure_for_threshold(solver.metric, by_name=solver.metric_name is not None)
    said = figure.measure(outcome(solver.model, *solver.data.splits()["val"]))
    return f"threshold {threshold:.4g} of {names[-1]}, chosen by {in_short(figure, said, 'validation ')}"


def _speed(solver: Solver) -> str:
    """Return the speed, if known: " (12,345 samples/s in training, 5.1 s for first steps, which compile)"."""
    rate = solver.speed.overall
    notes = [f"{rate:,.0f} samples/s in training"] if rate is not None else []
    if solver.speed.first_seconds >= 0.1:
        notes.append(f"{solver.speed.first_seconds:.1f} s for first steps, which compile")
    return f" ({', '.join(notes)})" if notes else ""


def _best(solver: Solver) -> str:
    """Return "best validation accuracy 0.9722", or the network's present figure if no epoch was made."""
    if solver.best_val_metric is None:
        figure = solver.check_metric(*solver.data.splits()["val"])
        return f"validation {solver.metric.title} {spelled(solver.metric, figure)}{_untrained(solver)}"
    if not math.isfinite(solver.best_val_metric):
        return f"validation {solver.metric.title} {solver.best_val_metric} (never finite)"
    return f"best validation {solver.metric.title} {spelled(solver.metric, solver.best_val_metric)}"


def _untrained(solver: Solver) -> str:
    """Return " (untrained: bfgs made no iteration)" if so, else nothing."""
    return "" if solver.history else f" (untrained: {solver.update_rule} made no iteration)"


def _no_better_than_the_mean(solver: Solver, said: Outcome, mine: float) -> Iterator[str]:
    """Yield a line if the outputs' means in the training targets would have predicted this part as well."""
    y = said.y
    y_train = solver.data.y_train.reshape(-1, y.shape[1])
    constant = y_train.mean(axis=0, dtype="float64") + 0 * y
    metric = solver.model.objective.metric
    theirs = own_figure(solver.model.objective, said._replace(predicted=constant))
    if not mine < theirs:
        other = "a larger --lr or more --epochs"
        if solver.full_batch:
            other = "more --epochs" if solver.epoch == solver.num_epochs else "another --optimizer"
        yield (
            f"{metric.title} {mine:.4f} is no better than {theirs:.4f}, which always predicting the mean of the "
            f"training targets gives; try {other}"
        )
