"""`fcnet check`: sanity checks before a training."""

from __future__ import annotations

import argparse

from fcnet.build import load_data, make_solver
from fcnet.cli.flags import add_config, add_flags, given_options
from fcnet.cli.parser import Parser, number, say
from fcnet.cli.reports import as_flags, check_folder, write_report
from fcnet.errors import counted
from fcnet.runs.options import TRAIN_ALONE
from fcnet.tools.diagnostics import activation_statistics, check
from fcnet.tools.diagnostics.activations import histograms_csv, statistics_csv, table
from fcnet.tools.diagnostics.pictures import activations_png
from fcnet.tools.diagnostics.sanity import few

FILES = ("activations.csv", "histograms.csv", "activations.png")


def add(parser: Parser) -> None:
    """Declare the flags, those of `train` among them."""
    add_config(parser, quiet="no progress bar")
    parser.add_argument(
        "--overfit-steps", type=number(int), default=1000, metavar="N", help="steps to learn 50 samples by heart in"
    )
    parser.add_argument("--out", metavar="FOLDER", help="also write tables and histograms of the activations there")
    parser.add_argument("--force", action="store_true", help="replace those in --out")
    add_flags(parser, without=("out", "force", *TRAIN_ALONE))


def run(arguments: argparse.Namespace) -> int:
    """Print a line per check and one per hidden layer; exit code 1 if a check failed."""
    folder = check_folder(arguments.out, FILES, force=arguments.force)
    arguments.out, arguments.force = None, False  # the Solver made here writes no run
    options, in_their_words = given_options(arguments)
    with in_their_words:
        solver = make_solver(options, load_data(options), verbose=False)
        say(f"{solver.data.summary()}\n{solver.model!r}, {solver.model.backend.describe()}\n")
        with as_flags(steps="overfit-steps"):
            found = check(solver, overfit_steps=arguments.overfit_steps, verbose=not arguments.quiet)
        say(str(found))
        statistics = activation_statistics(solver.model, few(solver, 500)[0])
        if statistics:
            say(f"\nActivations before training\n{table(statistics)}")
    if folder is not None and statistics:
        title = f"Activations of {solver.data.name} before training"
        contents = statistics_csv(statistics), histograms_csv(statistics), lambda: activations_png(statistics, title)
        write_report(folder, "check", dict(zip(FILES, contents, strict=True)))
    elif folder is not None:
        say(f"\nnothing written to {folder}: without hidden layers there are no activations")
    failed = sum(not finding.passed for finding in found.findings)
    say("\nall checks passed" if not failed else f"\n{failed} of {counted(len(found.findings), 'check')} failed")
    return 1 if failed else 0
