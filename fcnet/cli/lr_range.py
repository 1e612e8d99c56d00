"""`fcnet lr-range`: sweep the learning rate and draw the loss against it."""

from __future__ import annotations

import argparse

from fcnet.build import load_data, make_solver
from fcnet.cli.flags import add_config, add_flags, given_options
from fcnet.cli.parser import Parser, number, say
from fcnet.cli.reports import as_flags, check_folder, write_report
from fcnet.errors import counted
from fcnet.runs.options import TRAIN_ALONE
from fcnet.tools.diagnostics import lr_range
from fcnet.tools.diagnostics.pictures import lr_range_png

FILES = ("lr-range.csv", "lr-range.png")


def add(parser: Parser) -> None:
    """Declare the flags, those of `train` among them."""
    add_config(parser, quiet="no progress bar")
    parser.add_argument("--lowest", type=number(float), default=1e-6, metavar="X", help="first learning rate")
    parser.add_argument("--highest", type=number(float), default=10.0, metavar="X", help="last learning rate")
    parser.add_argument("--sweep-steps", type=number(int), default=200, metavar="N", help="learning rates to try")
    parser.add_argument("--out", metavar="FOLDER", help="for table and picture (default: a fresh runs/lr-range-0001)")
    parser.add_argument("--force", action="store_true", help="replace those in --out")
    add_flags(parser, without=("out", "force", *TRAIN_ALONE))


def run(arguments: argparse.Namespace) -> int:
    """Print the suggestion, write the curve."""
    folder = check_folder(arguments.out, FILES, force=arguments.force)
    if folder is None:
        check_folder("runs", (), force=False)
    arguments.out, arguments.force = None, False  # the Solver made here writes no run
    options, in_their_words = given_options(arguments)
    with in_their_words:
        solver = make_solver(options, load_data(options), verbose=False)
        say(f"{solver.data.summary()}\n{solver.model!r}, {solver.model.backend.describe()}")
        with as_flags(lowest="lowest", highest="highest", steps="sweep-steps"):
            found = lr_range(
                solver,
                lowest=arguments.lowest,
                highest=arguments.highest,
                steps=arguments.sweep_steps,
                verbose=not arguments.quiet,
            )
    try:
        if found.rates:
            end = f"the loss diverged at {found.rates[-1]:.2g}" if found.diverged else "the loss did not diverge"
            say(f"{counted(len(found.rates), 'step')}, {found.rates[0]:.2g} to {found.rates[-1]:.2g}; {end}")
            title = f"Learning-rate range of {solver.optimizer.rule} on {solver.data.name}"
            contents = found.csv(), lambda: lr_range_png(found, title)
            write_report(folder, "lr-range", dict(zip(FILES, contents, strict=True)))
    finally:  # on a full disk, too
        if found.suggestion is None:
            say(f"no suggestion: {found.reason}")
        else:
            say(f"suggested learning rate {found.suggestion:.2g}: {found.reason}")
    return 0
