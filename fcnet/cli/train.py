"""`fcnet train`: from flags or a TOML file to a run directory."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcnet.cli.parser import Commands, number
from fcnet.options import TrainOptions, flag, merged, parse_widths, read_toml, to_save

if TYPE_CHECKING:
    from fcnet.data import Dataset
    from fcnet.solver import Solver


def add(commands: Commands) -> None:
    """Declare the command and a flag for each of `TrainOptions`."""
    parser = commands.add("train", "Train a network and write a run directory.", run)
    parser.add_argument("--config", metavar="FILE.toml", help="options from a file; flags go before it")
    parser.add_argument("--quiet", action="store_true", help="no progress bar, only the last line")
    for field in dataclasses.fields(TrainOptions):
        kind, name = field.metadata["kind"], f"--{flag(field.name)}"
        default = [100, 100] if kind is list else field.default
        text = field.metadata["help"] + ("" if default in (None, False) else f" (default: {_plain(default)})")
        how: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS, "help": text}
        if kind is bool:
            parser.add_argument(name, action="store_true", **how)
        elif kind is list:
            parser.add_argument(name, type=_widths, metavar="N,N", **how)
        else:
            parser.add_argument(name, type=str if kind is str else number(kind), metavar=kind.__name__.upper(), **how)


def run(arguments: argparse.Namespace) -> int:
    """Train as the command line says; the last line printed holds the test accuracy if there is a test part."""
    names = {field.name for field in dataclasses.fields(TrainOptions)}
    given = {name: value for name, value in vars(arguments).items() if name in names}
    from_file = read_toml(arguments.config) if arguments.config else {}
    options = merged(from_file, given)
    say = (lambda *_: None) if arguments.quiet else print
    from fcnet import data

    if data.inputs.is_file(options.data) and Path(options.data).is_file():
        options.data = str(Path(options.data).resolve())  # so that the run can be made again from anywhere
    dataset = data.load(options.data, data_dir=options.data_dir, target=options.target)
    solver = make_solver(options, dataset, verbose=not arguments.quiet)
    say(dataset.summary())
    say(f"{solver.model!r}, {solver.model.backend.describe()}")
    started = time.perf_counter()
    try:
        solver.train()
    except KeyboardInterrupt:
        if solver.history:
            _report(solver, time.perf_counter() - started, print)
        raise
    _report(solver, time.perf_counter() - started, say)
    splits = dataset.splits()
    if "test" in splits:
        print(f"test accuracy {solver.check_accuracy(*splits['test']):.4f}")
    else:
        print(f"best validation accuracy {solver.best_val_acc:.4f}")
    return 0


def make_solver(options: TrainOptions, dataset: Dataset, *, verbose: bool) -> Solver:
    """The network and Solver that the options ask for. Raises ValueError or TypeError naming the option."""
    from fcnet.model import FullyConnectedNet
    from fcnet.rundir import RunDirectory
    from fcnet.solver import Solver

    directory = (
        RunDirectory.numbered(dataset.name) if options.out is None else RunDirectory(options.out, force=options.force)
    )
    directory.config = to_save(options)
    model = FullyConnectedNet(
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


def _report(solver: Solver, seconds: float, say: Any) -> None:
    samples = len(solver.data.X_train) * solver.epoch
    say(
        f"{solver.epoch} epochs, {solver.steps} steps in {seconds:.1f} s ({samples / seconds:,.0f} samples/s); "
        f"best validation accuracy {solver.best_val_acc:.4f} at epoch {solver.best_epoch}"
    )
    assert solver.run is not None  # make_solver gives one
    say(f"wrote {solver.run.path}: {', '.join(sorted(p.name for p in solver.run.path.iterdir()))}")
    if not (solver.run.path / "curves.png").exists():
        print("no curves.png: it needs matplotlib, pip install 'fcnet[plot]'", file=sys.stderr)


def _widths(text: str) -> list[int]:
    try:
        return parse_widths(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _plain(default: Any) -> str:
    return ",".join(map(str, default)) if isinstance(default, list) else f"{default}"
