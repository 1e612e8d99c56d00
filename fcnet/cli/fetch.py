"""`fcnet fetch`: download a data set."""

from __future__ import annotations

import argparse

from fcnet.cli.parser import Commands
from fcnet.cli.reports import as_flags


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add("fetch", "Download mnist, fashion-mnist or cifar10, each file checked.", run)
    parser.add_argument("name", metavar="NAME", help="mnist, fashion-mnist or cifar10")
    parser.add_argument("--data-dir", help="where to (default: $FCNET_DATA, then the user cache)")
    parser.add_argument("--mirror", metavar="URL", help="a server that has the same files")


def run(options: argparse.Namespace) -> int:
    """Download what is not there yet."""
    from fcnet.data import fetch
    from fcnet.data.catalogue import SOURCES

    with as_flags(data_dir="data-dir"):
        folder = fetch(options.name, data_dir=options.data_dir, mirror=options.mirror)
    if options.name in SOURCES:
        print(f"{options.name} is in {folder}")
    return 0
