"""`fcnet train`: from flags or a TOML file to a run directory."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import re
import time
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcnet.cli.parser import Commands, number, say
from fcnet.errors import unknown
from fcnet.options import TrainOptions, flag, in_users_words, merged, parse_widths, read_toml, to_save

if TYPE_CHECKING:
    from fcnet.data import Dataset
    from fcnet.model import FullyConnectedNet
    from fcnet.solver import Solver


_METAVARS = {str: "NAME", int: "N", float: "X", list: "N,N"}


def add(commands: Commands) -> None:
    """Declare the command and a flag for each of `TrainOptions`."""
    parser = commands.add("train", "Train a network and write a run directory.", run)
    parser.add_argument("--config", metavar="FILE.toml", help="options from a file; flags take precedence over it")
    parser.add_argument("--quiet", action="store_true", help="no progress bar, only the last line")
    for field in dataclasses.fields(TrainOptions):
        kind, name = field.metadata["kind"], f"--{flag(field.name)}"
        default = [100, 100] if kind is list else field.default
        no_default = default is None or default is False  # 0 is one
        text = field.metadata["help"] + ("" if no_default else f" (default: {_plain(default)})")
        how: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS, "help": text}
        if kind is bool:
            parser.add_argument(name, action="store_true", **how)
        elif kind is list:
            parser.add_argument(name, type=_widths, metavar="N,N", **how)
        else:
            metavar = "FOLDER" if field.name in ("data_dir", "out") else _METAVARS[kind]
            parser.add_argument(name, type=str if kind is str else number(kind), metavar=metavar, **how)


def run(arguments: argparse.Namespace) -> int:
    """Train as the command line says; the last line printed holds the test accuracy if there is a test part."""
    names = {field.name for field in dataclasses.fields(TrainOptions)}
    given = {name: value for name, value in vars(arguments).items() if name in names}
    if arguments.config == "":
        raise ValueError("--config: expected a TOML file, got ''; name one, or leave it out")
    config = None if arguments.config is None else os.path.expanduser(arguments.config)
    from_file = read_toml(config) if config else {}
    options = merged(from_file, given)
    if options.out:
        options.out = os.path.expanduser(options.out)
    with _in_users_words(config, from_file.keys() - given.keys(), options.out):
        return _train(options, quiet=arguments.quiet)


def _train(options: TrainOptions, *, quiet: bool) -> int:
    from fcnet import data

    tell = (lambda _: None) if quiet else say
    if data.inputs.is_file(options.data) and Path(options.data).is_file():
        options.data = str(Path(options.data).resolve())  # so that the run can be made again from anywhere
    dataset = data.load(options.data, data_dir=options.data_dir, target=options.target)
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
    if "test" in splits:
        say(f"test accuracy {solver.check_accuracy(*splits['test']):.4f}")
    else:
        say(f"best validation accuracy {solver.best_val_acc:.4f}")
    return 0


@contextlib.contextmanager
def _in_users_words(config: str | None, from_file: Container[str], out: str | None) -> Iterator[None]:
    """Let errors name flags, not the arguments of Python."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        inside = isinstance(error, OSError) and error.filename is not None
        if inside and out and Path(str(error.filename)).is_relative_to(out):  # type: ignore[union-attr]
            error.add_note("--out names the folder")
        elif len(error.args) == 1 and isinstance(error.args[0], str):
            error.args = (in_users_words(error.args[0], config, from_file),)
        raise


def make_solver(options: TrainOptions, dataset: Dataset, *, verbose: bool) -> Solver:
    """The network and Solver that the options ask for. Raises ValueError or TypeError naming the option."""
    from fcnet.model import NORMALIZATIONS
    from fcnet.rundir import RunDirectory
    from fcnet.solver import Solver

    directory = (
        RunDirectory.numbered(dataset.name) if options.out is None else RunDirectory(options.out, force=options.force)
    )
    directory.config = to_save(options)
    if options.norm not in ("none", *NORMALIZATIONS):
        raise unknown("norm", options.norm, ("none", *NORMALIZATIONS))
    try:
        model = _model(options, dataset)
    except (MemoryError, OverflowError, ValueError) as error:
        if isinstance(error, ValueError) and not re.search("Maximum allowed|too (big|large)", str(error)):
            raise
        widths = ",".join(map(str, options.hidden))
        raise ValueError(
            f"hidden: expected layers that fit into memory, got {widths} for {dataset.input_dim} inputs; "
            "choose fewer or narrower ones"
        ) from None
    return Solver(
        model,
        dataset,
        update_rule=options.optimizer,
        optim_config=None if options.lr is None else {"learning_rate": options.lr},
        lr_decay=options.lr_decay,
        batch_size=options.batch_size,
        num_epochs=options.epochs,
        patience=options.patience,
        preprocess=options.preprocess,
        seed=options.seed,
        verbose=verbose,
        out=directory,
    )


def _model(options: TrainOptions, dataset: Dataset) -> FullyConnectedNet:
    from fcnet.model import FullyConnectedNet

    return FullyConnectedNet(
        options.hidden,
        dataset.input_dim,
        dataset.num_classes,
        activation=options.activation,
        loss=options.loss,
        normalization=None if options.norm == "none" else options.norm,
        dropout_keep_ratio=options.dropout_keep,
        reg=options.reg,
        init=options.init,
        weight_scale=options.weight_scale,
        dtype=options.dtype,
        seed=options.seed,
        device=options.device,
    )


def _report(solver: Solver, seconds: float, tell: Callable[[str], None]) -> None:
    epochs = int(solver.history[-1]["epoch"])  # solver.epoch also counts one cut short in its evaluation
    samples = len(solver.data.X_train) * epochs
    tell(
        f"{epochs} epochs, {solver.steps} steps in {seconds:.1f} s ({samples / seconds:,.0f} samples/s); "
        f"best validation accuracy {solver.best_val_acc:.4f} at epoch {solver.best_epoch}"
    )
    assert solver.run is not None  # make_solver gives one
    tell(f"wrote {solver.run.path}: {', '.join(sorted(p.name for p in solver.run.path.iterdir()))}")
    if solver.run.no_picture is not None:
        tell(f"no curves.png: {solver.run.no_picture}")


def _widths(text: str) -> list[int]:
    try:
        return parse_widths(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _plain(default: Any) -> str:
    return ",".join(map(str, default)) if isinstance(default, list) else f"{default}"
