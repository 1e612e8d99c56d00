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
from fcnet.options import (
    CommaList,
    TrainOptions,
    flag,
    in_users_words,
    merged,
    of_network,
    parse_layers,
    parse_multipliers,
    parse_widths,
    read_toml,
    schedule_of,
    to_list,
    to_save,
)

if TYPE_CHECKING:
    from fcnet.data import Dataset
    from fcnet.model import FullyConnectedNet
    from fcnet.solver import Solver


_METAVARS = {str: "NAME", CommaList: "NAME", int: "N", float: "X", list: "N,N"}


def add(commands: Commands) -> None:
    """Declare the command and a flag for each of `TrainOptions`."""
    parser = commands.add("train", "Train a network and write a run directory.", run)
    parser.add_argument("--config", metavar="FILE.toml", help="options from a file; flags take precedence over it")
    parser.add_argument("--quiet", action="store_true", help="no progress bar, only the last line")
    add_flags(parser)


def add_flags(parser: argparse._ActionsContainer, without: Container[str] = ()) -> None:
    """A flag for each of `TrainOptions` but these; what was not given is not in the result."""
    for field in dataclasses.fields(TrainOptions):
        if field.name in without:
            continue
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
            parser.add_argument(name, type=number(kind) if kind in (int, float) else str, metavar=metavar, **how)


def run(arguments: argparse.Namespace) -> int:
    """Train as the command line says; the last line printed holds the test accuracy if there is a test part."""
    options, in_their_words = told(arguments)
    with in_their_words:
        return _train(options, quiet=arguments.quiet)


def told(arguments: argparse.Namespace) -> tuple[TrainOptions, contextlib.AbstractContextManager[None]]:
    """The options of a command line and of its --config, and a context in which errors name these."""
    from fcnet import load

    names = {field.name for field in dataclasses.fields(TrainOptions)}
    given = {name: value for name, value in vars(arguments).items() if name in names}
    if arguments.config == "":
        raise ValueError("--config: expected a TOML file, got ''; name one, or leave it out")
    config = None if arguments.config is None else os.path.expanduser(arguments.config)
    from_file = read_toml(config) if config else {}
    source = given.get("from_", from_file.get("from_"))
    inherited = {} if source is None else of_network(load(os.path.expanduser(source), device="auto").config)
    options = merged(inherited, from_file, given)
    if options.from_ is not None:
        options.from_ = str(Path(options.from_).expanduser().resolve())
    if options.out:
        options.out = os.path.expanduser(options.out)
    return options, _in_users_words(config, from_file.keys() - given.keys(), options.out)


def load_data(options: TrainOptions) -> Dataset:
    """The data set that the options name; the name of a file becomes its whole path."""
    from fcnet import data
    from fcnet.objective import kind_of_targets

    if data.inputs.is_file(options.data) and Path(options.data).is_file():
        options.data = str(Path(options.data).resolve())  # so that the run can be made again from anywhere
    targets = kind_of_targets(options.loss)
    if targets == "numbers" and not data.inputs.is_file(options.data):
        raise ValueError(
            f"loss and data: expected a .csv or .npz file of numbers to predict with loss {options.loss!r}, "
            f"got {options.data}, which has classes"
        )
    dataset = data.load(options.data, data_dir=options.data_dir, target=options.target, targets=targets)
    if options.loss == "bce":
        data.inputs.check_probabilities(options.data, options.target, (y for _, y in dataset.splits().values()))
    return dataset


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
    if options.loss == "mse":
        for line in _no_better_than_the_mean(solver, "test" if "test" in splits else "val"):
            tell(line)
    if "test" in splits:
        say(f"test {solver.metric.title} {solver.check_metric(*splits['test']):.4f}")
    else:
        say(f"best validation {solver.metric.title} {solver.best_val_metric:.4f}")
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
        widths, pieces = ",".join(map(str, options.hidden)), options.maxout_pieces
        names, of, remedy = "hidden", "", "narrower ones"
        if pieces is not None:
            names, of, remedy = "hidden and maxout_pieces", f" of {pieces} pieces", "narrower ones, or fewer pieces"
        raise ValueError(
            f"{names}: expected layers that fit into memory, got {widths}{of} for {dataset.input_dim} inputs; "
            f"choose fewer or {remedy}"
        ) from None
    if options.from_ is not None:
        start_from(options, model, dataset)
    if options.freeze:
        model.freeze(parse_layers(options.freeze))
    return Solver(
        model,
        dataset,
        update_rule=options.optimizer,
        optim_config=None if options.lr is None else {"learning_rate": options.lr},
        lr_decay=options.lr_decay,
        **schedule_of(options),
        lr_multipliers=None if options.lr_mult is None else parse_multipliers(options.lr_mult),
        weight_decay=options.weight_decay,
        clip_norm=options.clip_norm,
        clip_value=options.clip_value,
        max_norm=options.max_norm,
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
        activation=to_list(options.activation) if "," in options.activation else options.activation,
        maxout_pieces=options.maxout_pieces,
        loss=options.loss,
        label_smoothing=options.label_smoothing,
        normalization=None if options.norm == "none" else options.norm,
        dropout_keep_ratio=options.dropout_keep,
        dropout=options.dropout,
        reg=options.reg,
        reg_l1=options.reg_l1,
        init=options.init,
        weight_scale=options.weight_scale,
        dtype=options.dtype,
        precision=options.precision,
        seed=options.seed,
        device=options.device,
    )


def start_from(options: TrainOptions, model: FullyConnectedNet, dataset: Dataset) -> None:
    """Give the model the layers that it begins with as the run in --from does. Raises ValueError: there are none."""
    from fcnet import copy_layers, load

    if options.preprocess is not None:
        raise ValueError(
            "preprocess and from_: expected one of them, for the run to start from brings its preprocessing, "
            f"got preprocess={options.preprocess!r}; leave it out"
        )
    source = load(str(options.from_), device=model.backend)
    if source.input_dim != dataset.input_dim:
        raise ValueError(
            f"data and from_: expected {source.input_dim} inputs, as the run to start from has, "
            f"got {dataset.input_dim} of {dataset.name}"
        )
    if source.features and dataset.features and source.features != dataset.features:
        raise ValueError(
            f"data and from_: expected the columns of the run to start from, {', '.join(source.features)}, "
            f"got {', '.join(dataset.features)}"
        )
    same = [ours == theirs for ours, theirs in zip(model.hidden_dims, source.hidden_dims, strict=False)]
    count = max(1, [*same, False].index(False))
    copy_layers(source, model, count)
    if options.freeze and any(count < layer <= len(model.hidden) for layer in parse_layers(options.freeze)):
        raise ValueError(
            f"freeze and from_: expected layers taken over from the run to start from, 1 to {count}, got "
            f"{options.freeze}; those above have random weights"
        )


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


def _widths(text: str) -> list[int]:
    try:
        return parse_widths(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _plain(default: Any) -> str:
    return ",".join(map(str, default)) if isinstance(default, list) else f"{default}"
