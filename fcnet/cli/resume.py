"""`fcnet resume`: continue a training that was interrupted."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

from fcnet.build import load_data, make_solver
from fcnet.cli.parser import Parser, number, say
from fcnet.cli.report import write_report
from fcnet.cli.train import carry_out, judge
from fcnet.data import Dataset
from fcnet.errors import counted
from fcnet.runs.checkpoint import FILE_NAME
from fcnet.runs.options import IN_PYTHON, merged, names_of, read_toml
from fcnet.runs.rundir import CONFIG, RunDirectory
from fcnet.tools.report import NAME
from fcnet.training.resuming import standing
from fcnet.training.solver import Solver


def add(parser: Parser) -> None:
    """Declare the arguments and flags."""
    parser.add_argument("run_", metavar="RUN", help="a run directory")
    parser.add_argument("--extend", type=number(int), metavar="EPOCHS", help="so many epochs more than it was to have")
    parser.add_argument("--device", metavar="NAME", help="where to go on: cpu, cuda or cuda:N (default: where it was)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no line per epoch")
    parser.names["device"] = names_of("device")


def run(options: argparse.Namespace) -> int:
    """Continue the training; the last line has the test accuracy if there is a test part. A finished run says so."""
    path, extend = Path(options.run_).expanduser(), options.extend
    if extend is not None and extend < 1:
        raise ValueError(f"--extend: expected 1 or more epochs, got {extend}")
    tell = (lambda _: None) if options.quiet else say
    found = standing(path)
    if found.finished and extend is None:
        done = counted(found.values["epoch"], "epoch") if found.values else "all epochs"
        say(f"{path}: finished, {done}; fcnet resume {path} --extend EPOCHS makes it longer, fcnet evaluate judges it")
        if found.step is not None and not (path / NAME).exists() and importlib.util.find_spec("matplotlib"):
            _report_late(path, options)
        return 0
    if found.step is None:
        return _from_configuration(path, options, finished=found.finished)
    data = _data(path)
    solver = Solver.resume(path, data, extend=extend or 0, device=options.device, verbose=not options.quiet)
    tell(f"{path} goes on after step {solver.steps}, in epoch {solver.epoch + 1} of {solver.num_epochs}")
    return _carry_out(solver, tell, quiet=options.quiet)


def _report_late(path: Path, options: argparse.Namespace) -> None:
    """Write the report of a finished run that has none: it was killed before that, or trained from Python."""
    try:
        data = _data(path)
        if data is None:
            return
        solver = Solver.resume(path, data, device=options.device, verbose=False)
    except (OSError, ValueError, TypeError, ImportError) as error:  # its data are elsewhere now, or changed
        if not options.quiet:
            print(f"fcnet: no {NAME}: {error}", file=sys.stderr)
        return
    solver.train()  # no step is left: the best parameters are restored
    write_report(solver, None, asked=bool(solver.options().get("report")), quiet=options.quiet)
    if not options.quiet and (path / NAME).exists():
        say(f"wrote {path / NAME}, which was missing")


def _data(path: Path) -> Dataset | None:
    """Return the data that the run's options name; None for a training that was set up in Python."""
    config = path / CONFIG
    return load_data(merged(read_toml(config))) if config.is_file() and IN_PYTHON not in config.read_text() else None


def _carry_out(solver: Solver, tell: Callable[[str], None], *, quiet: bool) -> int:
    tell(f"{solver.model!r}, {solver.model.backend.describe()}")
    carry_out(solver, tell)
    judge(solver, tell)
    write_report(solver, None, asked=bool(solver.options().get("report")), quiet=quiet)
    return 0


def _from_configuration(path: Path, options: argparse.Namespace, *, finished: bool) -> int:
    """Start a training again that was killed before its first checkpoint."""
    tell = (lambda _: None) if options.quiet else say
    if options.extend is not None:
        raise ValueError(
            f"--extend: expected a run with a checkpoint, {path} has none; train anew with more --epochs: "
            f"fcnet train --config {path / CONFIG}"
        )
    directory = RunDirectory.to_go_on(path)
    try:
        if finished or (directory.work / FILE_NAME).exists():
            raise ValueError(
                f"{path}: expected a checkpoint, found none beside the model of a training that was cut short; "
                f"train anew: fcnet train --config {path / CONFIG}"
            )
        trained = merged(read_toml(directory.work / CONFIG))
        if options.device is not None:
            trained.device = options.device
        dataset = load_data(trained)
        solver = make_solver(trained, dataset, verbose=not options.quiet, directory=directory)
    except BaseException:
        directory.release()
        raise
    tell(f"{path}: cut short before its first checkpoint, so it begins again, as {CONFIG} says")
    return _carry_out(solver, tell, quiet=options.quiet)
