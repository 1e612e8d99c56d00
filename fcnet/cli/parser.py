"""The parser of a command: argparse, whose errors are one line that names the nearest valid spelling."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import fcnet.errors as errors
from fcnet.runs.options import ARGUMENTS


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Show defaults, unless they are empty, and list the options in their groups but not in the usage."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)  # one with lines of its own

    def add_usage(self, usage: str | None, actions: Iterable[argparse.Action], *others: Any, **named: Any) -> None:
        """Add the program, [options], and what has no flag."""
        if usage is None:
            places = [action for action in actions if not action.option_strings]
            words = [f"[{place.metavar}]" if place.nargs == "?" else str(place.metavar) for place in places]
            usage = " ".join(["%(prog)s", "[options]", *words])
        super().add_usage(usage, actions, *others, **named)


class Parser(argparse.ArgumentParser):
    """Parse as argparse does, but raise ValueError with one line instead of printing its usage and exiting."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Help, **options)
        self.names: dict[str, tuple[str, ...]] = {}  # of an option, by dest: what a shell completes it to

    def error(self, message: str) -> NoReturn:
        lacking = re.fullmatch(r"argument (\S+): expected one argument", message)
        if lacking is not None:
            message = f"{lacking[1]}: expected a value after it, got none"
        raise ValueError(f"{message}; see {self.prog} --help")

    def actions(self) -> list[argparse.Action]:
        """Return all options and arguments, in their order."""
        return list(self._actions)

    def flags(self) -> list[str]:
        """Return all long flags."""
        return [flag for action in self._actions for flag in action.option_strings if flag.startswith("--")]

    def known(self) -> set[str]:
        """Return the names of all options, as the namespace has them."""
        return {action.dest for action in self._actions if action.option_strings}

    def groups(self) -> list[tuple[str, list[argparse.Action]]]:
        """Return title and options of each group that --help shows."""
        return [(str(group.title), group._group_actions) for group in self._action_groups]

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Return the options of a command line.

        Raises:
            ValueError: an unknown flag, a missing or unreadable value.
        """
        options, unknown = self.parse_known_args(self._joined(arguments))
        if unknown:
            word = unknown[0].split("=")[0] if unknown[0].startswith("-") else unknown[0]
            raise ValueError(f"{self.prog}: unknown argument {word}; {self._instead_of(word)}")
        return options

    def _instead_of(self, word: str) -> str:
        """Return the flag that an unknown word may mean: a similar one, or one that takes the word as its value."""
        flags = self.flags()
        meant = ARGUMENTS.get(word.lstrip("-").replace("-", "_"), word)
        near = errors.alike(meant, flags) if word.startswith("-") else []
        owners = [dest for dest, names in self.names.items() if word.lstrip("-") in names]
        if near:
            return f"did you mean {errors.either(near)}?"
        if owners and (flag := f"--{owners[0].rstrip('_').replace('_', '-')}") in flags:
            return f"did you mean {flag} {word.lstrip('-')}?"
        if "--data" in flags and os.path.exists(word):
            return f"did you mean --data {shlex.quote(word)}?"
        if "--hidden" in flags and word.strip(",").isdecimal():
            return "several values are joined by commas, without blanks: --hidden 100,100"
        return f"see {self.prog} --help"

    def _joined(self, arguments: Sequence[str]) -> list[str]:
        """Return the arguments; values such as -5s, which argparse takes for flags, are joined to theirs: --x=-5s."""
        takes_a_value = {flag for action in self._actions if action.nargs is None for flag in action.option_strings}
        joined: list[str] = []
        for argument in arguments:
            if joined and joined[-1] in takes_a_value and re.match(r"-[\d.]", argument):
                joined[-1] += f"={argument}"
            else:
                joined.append(argument)
        return joined


def number(kind: type) -> Callable[[str], Any]:
    """Return an argparse type for int or float whose errors say what was expected and what was given."""
    word = {int: "an integer", float: "a number"}[kind]

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected {word}, got {errors.shown(text)}") from None
        if kind is int and abs(value) >= 2**64:
            raise argparse.ArgumentTypeError(f"expected {word} of at most 64 bits, got {errors.shown(text)}")
        return value

    return parse


def say(text: str) -> None:
    """Print lines; if their reader has gone, as `head` does, continue silently."""
    try:
        print(errors.printable(text), flush=True)
    except BrokenPipeError:
        mute()
    except OSError as error:
        mute()
        raise OSError(error.errno, error.strerror, "standard output") from None


def mute() -> None:
    """Discard standard output from now on, including what is still buffered."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    finally:
        os.close(nowhere)
