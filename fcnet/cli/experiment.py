"""`fcnet experiment`: the courses' experiments, each a table and a picture."""

from __future__ import annotations

import argparse
import os
import time

from fcnet.cli.parser import Parser, number, say
from fcnet.errors import no_picture, unknown
from fcnet.experiments import EXPERIMENTS, Settings, results_folder, write_results
from fcnet.runs.options import names_of


def add(parser: Parser) -> None:
    """Declare the arguments and flags."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="which one; without a name they are listed")
    parser.names |= {"name": tuple(EXPERIMENTS), "device": names_of("device")}
    parser.add_argument("--out", metavar="FOLDER", help="where the results go (default: a fresh runs/NAME-0001)")
    parser.add_argument("--force", action="store_true", help="replace this experiment's results in --out")
    parser.add_argument("--device", metavar="NAME", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--seed", metavar="N", type=number(int), default=0, help="of weights, batches and masks")
    parser.add_argument(
        "--data-dir", metavar="FOLDER", help="where the data files are (default: $FCNET_DATA, then the user cache)"
    )
    parser.add_argument("--quick", action="store_true", help="made-up data and few steps, to see that it works")
    parser.add_argument("--quiet", action="store_true", help="no progress bar, only the last line")


def run(options: argparse.Namespace) -> int:
    """Run an experiment and write NAME.csv and NAME.png, or list all experiments."""
    if options.name is None:
        width = max(map(len, EXPERIMENTS))
        for name, experiment in EXPERIMENTS.items():
            print(f"{name:<{width}}  {experiment.about}")
        return 0
    if options.name not in EXPERIMENTS:
        raise unknown("experiment", options.name, EXPERIMENTS)
    experiment, verbose = EXPERIMENTS[options.name], not options.quiet
    settings = Settings(
        device=options.device,
        seed=options.seed,
        data_dir=options.data_dir,
        quick=options.quick,
        verbose=verbose,
        title=options.name,
    )
    out = os.path.expanduser(options.out) if options.out else options.out
    with results_folder(options.name, out, force=options.force) as folder:
        started = time.perf_counter()
        table = experiment.run(settings)
        seconds = time.perf_counter() - started
        written = write_results(options.name, experiment, table, folder)
    if verbose:
        for finding in table.findings:
            say(finding)
        say(f"{seconds:.1f} s on {settings.backend.describe()}")
        if len(written) == 1:
            say(f"no picture: {no_picture()}")
    say(f"wrote {folder}: {', '.join(path.name for path in written)}")
    return 0
