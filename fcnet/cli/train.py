"""`fcnet train`: from flags or a TOML file to a run directory."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from fcnet.cli.evaluate import by_output, spelled
from fcnet.cli.flags import add_flags, given_options
from fcnet.cli.parser import Commands, say
from fcnet.runs.options import TrainOptions

if TYPE_CHECKING:
    from fcnet.training.solver import Solver


def add(commands: Commands) -> None:
    """Declare the command and a flag for each of `TrainOptions`."""
    parser = commands.add("train", "Train a network and write a run directory.", run)
    parser.add_argument("--config", metavar="FILE.toml", help="options from a file; flags take precedence over it")
    parser.add_argument("--quiet", action="store_true", help="no progress bar, only the last line")
    add_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    """Train as the command line says; the last line printed holds the test accuracy if there is a test part."""
    options, in_their_words = given_options(arguments)
    with in_their_words:
        return _train(options, quiet=arguments.quiet)


def _train(options: TrainOptions, *, quiet: bool) -> int:
    from fcnet.build import load_data, make_solver

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
        say(f"test {solver.metric.title} {spelled(solver.metric, solver.check_metric(*splits['test']))}")
    else:
        assert solver.best_val_metric is not None  # an epoch is over
        say(f"best validation {solver.metric.title} {spelled(solver.metric, solver.best_val_metric)}")
    return 0


def _report(solver: Solver, seconds: float, tell: Callable[[str], None]) -> None:
    epochs = int(solver.history[-1]["epoch"])  # solver.epoch also counts one cut short in its evaluation
    samples = len(solver.data.X_train) * epochs
    tell(
        f"{epochs} epochs, {solver.steps} steps in {seconds:.1f} s ({samples / seconds:,.0f} samples/s); "
        f"best validation {solver.metric.title} {solver.best_val_metric:.4f} at epoch {solver.best_epoch}"
    )
    assert solver.run is not None  # make_solver gives one
    tell(f"wrote {solver.run.path}: {', '.join(sorted(p.name for p in solver.run.path.iterdir()))}")
    if solver.run.no_picture is not None:
        tell(f"no curves.png: {solver.run.no_picture}")


def _no_better_than_the_mean(solver: Solver, part: str) -> Iterator[str]:
    """A line if the outputs' means in the training targets would have predicted this part as well."""
    X, y = solver.data.splits()[part]
    y = y.reshape(len(y), -1).astype("float64")
    y_train = solver.data.y_train.reshape(-1, y.shape[1])
    constant = y_train.mean(axis=0, dtype="float64") + 0 * y
    metric = solver.metric
    plain, mine = metric.figure(float(metric.total(constant, y)), *y.shape), solver.check_metric(X, y)
    if not mine < plain:
        yield (
            f"{metric.title} {mine:.4f} is no better than {plain:.4f}, which always predicting the mean of the "
            "training targets gives; scale the targets to a standard deviation of about 1, or try a larger --lr or "
            "more --epochs"
        )
