"""`fcnet search`: from flags or a TOML file to a study and its best run."""

from __future__ import annotations

import argparse

from fcnet.cli.flags import add_config, add_flags, naming_config, sources
from fcnet.cli.parser import Parser, say
from fcnet.runs.options import TRAIN_ALONE
from fcnet.tools.search import searching
from fcnet.tools.search.plan import SearchOptions, make

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


def add(parser: Parser) -> None:
    """Declare the flags of the search, and those of `train` as fixed values."""
    parser.epilog = _EXAMPLES
    add_config(parser, quiet="no progress bar, no line per trial")
    add_flags(parser, without=("force", *TRAIN_ALONE), table=SearchOptions)


def run(arguments: argparse.Namespace) -> int:
    """Run the search; the last line says the best validation value and where its run is."""
    given, from_file, config = sources(arguments, SearchOptions)
    tell = (lambda text: None) if arguments.quiet else say
    with naming_config(config, from_file.keys() - given.keys()):
        plan = make(from_file | given)
        result = searching.run(plan, shown=not arguments.quiet, tell=tell)
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
