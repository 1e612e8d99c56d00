"""`fcnet fetch`: download a data set."""

from __future__ import annotations

import argparse

from fcnet.cli.parser import Parser
from fcnet.data import fetch
from fcnet.data.catalogue import SOURCES


def add(parser: Parser) -> None:
    """Declare the arguments and flags."""
    parser.add_argument("name", metavar="NAME", help="mnist, fashion-mnist or cifar10")
    parser.names["name"] = tuple(SOURCES)
    parser.add_argument("--data-dir", metavar="FOLDER", help="where to (default: $FCNET_DATA, then the user cache)")
    parser.add_argument("--mirror", metavar="URL", help="a server that has the same files")


def run(options: argparse.Namespace) -> int:
    """Download the files that are missing."""
    folder = fetch(options.name, data_dir=options.data_dir, mirror=options.mirror)
    if options.name in SOURCES:
        print(f"{options.name} is in {folder}")
    return 0
