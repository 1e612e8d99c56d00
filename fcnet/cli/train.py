"""`fcnet train`: from flags or a TOML file to a run directory."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator

from fcnet.build import load_data, make_solver
from fcnet.cli.evaluate import by_output, spelled
from fcnet.cli.flags import add_config, add_flags, given_options
from fcnet.cli.parser import Parser, say
from fcnet.errors import counted
from fcnet.runs.options import TrainOptions
from fcnet.training.solver import Solver


def add(parser: Parser) -> None:
    """Declare a flag for each of `TrainOptions`."""
    add_config(parser, quiet="no progress bar or line per epoch, only the last line")
    add_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    """Train as the command line says; the last line printed holds the test accuracy if there is a test part."""
    options, in_their_words = given_options(arguments)
    with in_their_words:
        return _train(options, quiet=arguments.quiet)


def _train(options: TrainOptions, *, quiet: bool) -> int:
    tell = (lambda _: None) if quiet else say
    dataset = load_data(options)
    solver = make_solver(options, dataset, verbose=not quiet)
    tell(dataset.summary())
    tell(f"{solver.model!r}, {solver.model.backend.describe()}")
    started = time.perf_counter()
    try:
        solver.train()
    except KeyboardInterrupt:
        if not solver.history:
            raise
        _report(solver, time.perf_counter() - started, tell)
        done = int(solver.history[-1]["epoch"])
        raise KeyboardInterrupt(f"after epoch {done} of {solver.num_epochs}") from None
    _report(solver, time.perf_counter() - started, tell)
    splits = dataset.splits()
    part = "test" if "test" in splits else "val"
    if dataset.targets == "numbers":
        X, y = splits[part]
        for line in by_output(solver.model, solver.model.predict(X), y, f"{part} "):
            tell(line)
    if options.loss == "mse":
        for line in _no_better_than_the_mean(solver, part):
            tell(line)
    if part == "test":
        figure = spelled(solver.metric, solver.check_metric(*splits["test"]))
        say(f"test {solver.metric.title} {figure}{_untrained(solver)}")
    else:
        say(_best(solver))
    return 0


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
    assert solver.run is not None  # make_solver gives one
    tell(f"wrote {solver.run.path}: {', '.join(sorted(p.name for p in solver.run.path.iterdir()))}")
    if solver.run.no_picture is not None:
        tell(f"no curves.png: {solver.run.no_picture}")


def _speed(solver: Solver) -> str:
    """ " (12,345 samples/s in training, 5.1 s for first steps, which compile)", or less, or nothing."""
    rate = solver.speed.overall
    told = [f"{rate:,.0f} samples/s in training"] if rate is not None else []
    if solver.speed.first_seconds >= 0.1:
        told.append(f"{solver.speed.first_seconds:.1f} s for first steps, which compile")
    return f" ({', '.join(told)})" if told else ""


def _best(solver: Solver) -> str:
    """ "best validation accuracy 0.9722"; that of the network as it is if no epoch was made."""
    if solver.best_val_metric is None:
        figure = solver.check_metric(*solver.data.splits()["val"])
        return f"validation {solver.metric.title} {spelled(solver.metric, figure)}{_untrained(solver)}"
    if not math.isfinite(solver.best_val_metric):
        return f"validation {solver.metric.title} {solver.best_val_metric} (never finite)"
    return f"best validation {solver.metric.title} {spelled(solver.metric, solver.best_val_metric)}"


def _untrained(solver: Solver) -> str:
    """ " (untrained: bfgs made no iteration)", or nothing."""
    return "" if solver.history else f" (untrained: {solver.update_rule} made no iteration)"


def _no_better_than_the_mean(solver: Solver, part: str) -> Iterator[str]:
    """A line if the outputs' means in the training targets would have predicted this part as well."""
    X, y = solver.data.splits()[part]
    y = y.reshape(len(y), -1).astype("float64")
    y_train = solver.data.y_train.reshape(-1, y.shape[1])
    constant = y_train.mean(axis=0, dtype="float64") + 0 * y
    metric = solver.metric
    plain, mine = metric.figure(float(metric.total(constant, y)), *y.shape), solver.check_metric(X, y)
    if not mine < plain:
        other = "a larger --lr or more --epochs"
        if solver.full_batch:
            other = "more --epochs" if solver.epoch == solver.num_epochs else "another --optimizer"
        yield (
            f"{metric.title} {mine:.4f} is no better than {plain:.4f}, which always predicting the mean of the "
            f"training targets gives; try {other}"
        )
