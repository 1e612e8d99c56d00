"""`fcnet help`: a command's help, as --help prints it."""

from __future__ import annotations

import argparse

from fcnet.cli.commands import COMMANDS, parser_of, top
from fcnet.cli.parser import Parser


def add(parser: Parser) -> None:
    """Declare the arguments."""
    parser.add_argument("command", metavar="COMMAND", nargs="?", help="which; without one, all commands are listed")
    parser.names["command"] = tuple(COMMANDS)


def run(options: argparse.Namespace) -> int:
    """Print what --help prints."""
    (top() if options.command is None else parser_of(options.command)).print_help()
    return 0
