"""All the commands."""

from __future__ import annotations

from fcnet.cli import check, evaluate, experiment, fetch, info, lr_range, predict, search, train
from fcnet.cli.parser import Commands


def build() -> Commands:
    """Return the whole command line."""
    commands = Commands()
    for module in (train, evaluate, predict, info, fetch, check, lr_range, search, experiment):
        module.add(commands)
    return commands
