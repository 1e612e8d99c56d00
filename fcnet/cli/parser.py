"""The parser of the command line: argparse, with errors of one line that name the nearest valid spelling."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from fcnet import errors


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Adds defaults, but for those that say nothing."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """argparse that raises ValueError with one line instead of printing its usage and exiting."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Help, **options)

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see {self.prog} --help")

    def flags(self) -> list[str]:
        """All the long flags."""
        return [flag for action in self._actions for flag in action.option_strings if flag.startswith("--")]


class Commands:
    """The command `fcnet` and its subcommands."""

    def __init__(self) -> None:
        import fcnet

        self.top = Parser(
            prog="fcnet", description="Fully connected neural networks on NumPy (CPU) and CuPy (CUDA GPU)."
        )
        self.top.add_argument("--version", action="version", version=f"fcnet {fcnet.__version__}")
        self._subparsers = self.top.add_subparsers(metavar="COMMAND", parser_class=Parser)
        self._by_name: dict[str, Parser] = {}

    def add(self, name: str, help: str, run: Callable[[argparse.Namespace], int]) -> Parser:
        """A subcommand; its parser is returned for its arguments."""
        parser = self._subparsers.add_parser(name, help=help, description=help)
        parser.set_defaults(run=run)
        self._by_name[name] = parser
        return parser

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The options of a command line, `run` among them.

        Raises:
            ValueError: an unknown command or flag, a missing or unreadable value.
        """
        if not arguments:
            self.top.print_help()
            return argparse.Namespace(run=lambda options: 2)
        name = arguments[0]
        if not name.startswith("-") and name not in self._by_name:
            raise errors.unknown("command", name, self._by_name)
        options, unknown = self.top.parse_known_args(arguments)
        if unknown:
            flag, parser = unknown[0].split("=")[0], self._by_name.get(name, self.top)
            near = get_close_matches(flag, parser.flags(), n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"see {parser.prog} --help"
            raise ValueError(f"{parser.prog}: unknown argument {flag}; {hint}")
        if not hasattr(options, "run"):  # only flags of the top
            self.top.error("expected a command")
        return options


def number(kind: type) -> Callable[[str], Any]:
    """An argparse type for int or float that says what was expected and what came."""
    word = {int: "an integer", float: "a number"}[kind]

    def parse(text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected {word}, got {text!r}") from None

    return parse


def say(text: str) -> None:
    """Print a line; when its reader has gone, as `head` does, go on without."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        mute()
    except OSError as error:
        mute()
        raise OSError(error.errno, error.strerror, "standard output") from None


def mute() -> None:
    """Send standard output nowhere from now on, what it has not yet written included."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    finally:
        os.close(nowhere)
