"""The commands: one table; a command's module, fcnet.cli.NAME, is imported when the command is asked for.

Such a module has `add(parser)`, which declares its flags, and `run(options)`, which returns the exit code.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module

import fcnet
from fcnet.cli.parser import Parser
from fcnet.errors import unknown

COMMANDS = {
    "train": "Train a network and write a run directory.",
    "resume": "Go on with a training that was cut short, with the same bits; or make a finished one longer.",
    "evaluate": "Accuracy (or error) of a trained network, in all and by class or output.",
    "predict": "Classes or numbers of new samples, as CSV: a row per sample, in their order.",
    "info": "Versions, usable devices (and why others are not), data sets found.",
    "fetch": "Download mnist, fashion-mnist or cifar10, each file checked.",
    "check": "Check a training before it is begun: initial loss, a few samples by heart, gradients, activations.",
    "lr-range": "Try growing learning rates, one step at each, and suggest one.",
    "search": "Search train's options: random, grid or TPE; the best run is kept.",
    "experiment": "The courses' experiments, each a table and a picture.",
    "completion": "Print a script with which bash, zsh or fish completes commands, flags and names.",
    "help": "What a command does and its options, as COMMAND --help.",
}


def parse(arguments: Sequence[str]) -> tuple[Parser, argparse.Namespace]:
    """Return the parser of the command that a command line names, and its options.

    Raises:
        ValueError: an unknown command or flag, a missing or unreadable value.
        SystemExit: help or the version was asked for, and given.
    """
    if not arguments:
        return top(), argparse.Namespace(run=_without_command)
    name = arguments[0]
    if name.startswith("-"):  # the program's own flags, --help and --version
        parser = top()
        parser.parse(arguments)
        parser.error("expected a command")
    parser = parser_of(name)
    return parser, parser.parse(arguments[1:])


def _without_command(options: argparse.Namespace) -> int:
    top().print_help()
    return 2


def top() -> Parser:
    """Return the parser of `fcnet` itself, which shows the commands."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {about}" for name, about in COMMANDS.items()]
    parser = Parser(
        prog="fcnet",
        usage="fcnet COMMAND [options]",
        description="Fully connected neural networks on NumPy (CPU) and CuPy (CUDA GPU).",
        epilog="\n".join(["commands:", *lines, "", "fcnet COMMAND --help shows the options of a command."]),
    )
    parser.add_argument("-V", "--version", action="version", version=f"fcnet {fcnet.__version__}")
    return parser


def parser_of(name: str) -> Parser:
    """Import a command's module and return its parser. Raises ValueError: there is no such command."""
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    module = import_module(f"fcnet.cli.{name.replace('-', '_')}")
    parser = Parser(prog=f"fcnet {name}", description=COMMANDS[name])
    parser.set_defaults(run=module.run)
    module.add(parser)
    return parser
