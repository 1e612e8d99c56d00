"""`fcnet search`: from flags or a TOML file to a study and its best run."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
from typing import Any

from fcnet.cli.flags import add_flags
from fcnet.cli.parser import Commands, number, say
from fcnet.runs.options import TrainOptions, flag, in_users_words, read_toml

_EXAMPLES = """
what to vary, once for each option:
  --vary lr=1e-4:1e-2:log                 a number, evenly on a logarithmic scale
  --vary dropout-keep=0.5:1               a number, evenly
  --vary batch-size=32:256:log            an integer, because the option is one
  --vary 'hidden=100,100|200,100|none'    choices (quoted, for the shell)
  --vary lr=1e-4:1e-2:log:5               with the number of points, for --sampler grid
in a TOML file: vary = ["lr=1e-4:1e-2:log", "hidden=100,100|200,100"]

coarse to fine: --trials 30 --refine 2 makes three stages of 10 trials; the second searches half of each range (on its
  own scale), around the median of the best quarter of the trials (three at least); the third, half of that again.
  Choices stay as they are.
several processes or machines: start the same command again with the same --storage and --study, or give --jobs N.
  A killed or interrupted search goes on when it is started again; --trials is the total.

examples:
  fcnet search --data digits --vary lr=1e-4:1e-1:log --vary reg=1e-6:1e-2:log --trials 20 --epochs 10
  fcnet search --config examples/search-cifar10.toml && fcnet evaluate runs/cifar10-search/best
"""


def add(commands: Commands) -> None:
    """Declare the command: the flags of `train`, as fixed values, and those of the search."""
    parser = commands.add("search", "Search train's options: random, grid or TPE; the best run is kept.", run)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    parser.add_argument("--config", metavar="FILE.toml", help="options from a file; flags take precedence over it")
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no line per trial")
    from fcnet.tools.search.plan import SearchOptions

    train = {field.name for field in dataclasses.fields(TrainOptions)}
    for field in dataclasses.fields(SearchOptions):
        if field.name in train:
            continue
        kind, text = field.metadata["kind"], field.metadata["help"]
        name = f"--{flag(field.name)}"
        if field.name == "vary":
            parser.add_argument(
                name, action="append", metavar="NAME=RANGE", default=argparse.SUPPRESS, help="see below"
            )
        elif kind is bool:
            help = text + f" (default: on; --no-{flag(field.name)} turns it off)"
            action = argparse.BooleanOptionalAction
            parser.add_argument(name, action=action, default=argparse.SUPPRESS, help=help)
        else:
            default = "" if field.default is None else f" (default: {field.default})"
            metavar = "N" if kind is int else "NAME"
            how: dict[str, Any] = {"type": number(kind)} if kind is int else {}
            parser.add_argument(name, metavar=metavar, default=argparse.SUPPRESS, help=text + default, **how)
    parser.add_argument("--out", metavar="FOLDER", default=argparse.SUPPRESS, help="its folder (default: runs/STUDY)")
    add_flags(parser.add_argument_group("options of every trial, as in fcnet train"), without=("out", "force"))


def run(arguments: argparse.Namespace) -> int:
    """Search; the last line says the best validation value and where its run is."""
    from fcnet.tools.search import searching
    from fcnet.tools.search.plan import SearchOptions, make

    if arguments.config == "":
        raise ValueError("--config: expected a TOML file, got ''; name one, or leave it out")
    names = {field.name for field in dataclasses.fields(SearchOptions)}
    given = {name: value for name, value in vars(arguments).items() if name in names}
    config = None if arguments.config is None else os.path.expanduser(arguments.config)
    from_file = read_toml(config, SearchOptions) if config else {}
    tell = (lambda text: None) if arguments.quiet else say
    try:
        plan = make(from_file | given)
        result = searching.run(plan, shown=not arguments.quiet, tell=tell)
    except (ValueError, TypeError) as error:
        if len(error.args) == 1 and isinstance(error.args[0], str):
            told = in_users_words(error.args[0], config, from_file.keys() - given.keys())
            mine = re.match(r"(\w+)[^:]*: ", told)
            error.args = (f"--{told}" if mine and mine[1] in names else told,)
        raise
    say(result.table())
    say(f"wrote {plan.out}: {', '.join(sorted(p.name for p in plan.out.iterdir() if not p.name.startswith('.')))}")
    if result.no_picture is not None:
        say(f"no {searching.PICTURE}: {result.no_picture}")
    best = result.best
    if best is None:
        say("no trial finished; widen the ranges, or see trials.csv for the reasons")
        return 1
    say(f"best validation {result.metric} {best.value:.4f}: fcnet evaluate {plan.out / searching.BEST}")
    return 0
