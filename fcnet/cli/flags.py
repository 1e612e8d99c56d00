"""The flags of `fcnet train`, which other commands take, too, and the options that a command line gives by them."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from fcnet.cli.parser import Parser, number
from fcnet.nn.model import load
from fcnet.runs.options import (
    COMMON,
    GROUPS,
    TrainOptions,
    flag,
    in_users_words,
    merged,
    of_network,
    parse_widths,
    read_toml,
)


def add_flags(parser: Parser, without: Container[str] = (), table: type[TrainOptions] = TrainOptions) -> None:
    """Add flags for the options of `table` except `without`, in groups; the result has only those that were given."""
    fields = [field for field in dataclasses.fields(table) if field.name not in without]
    fields.sort(key=lambda field: field.name not in table.__annotations__)  # before those that it has by inheritance
    for title in GROUPS:
        group = parser if title == COMMON else parser.add_argument_group(title)
        for field in fields:
            if field.metadata["group"] == title:
                _add_flag(group, field)
    parser.names |= {field.name: field.metadata["names"] for field in fields if field.metadata["names"]}


def _add_flag(group: argparse._ActionsContainer, field: dataclasses.Field[Any]) -> None:
    kind, name, text = field.metadata["kind"], f"--{flag(field.name)}", field.metadata["help"]
    default = field.default_factory() if callable(field.default_factory) else field.default
    how: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS}
    if kind is bool and default is True:
        text += f" (default: on; --no-{flag(field.name)} turns it off)"
        group.add_argument(name, action=argparse.BooleanOptionalAction, help=text, **how)
    elif kind is bool:
        group.add_argument(name, action="store_true", help=text, **how)
    elif kind is tuple:
        group.add_argument(name, action="append", metavar=field.metadata["metavar"], help=text, **how)
    else:
        text += "" if default is None else f" (default: {_plain(default)})"
        reader = {int: number(int), float: number(float), list: _widths}.get(kind, str)
        group.add_argument(name, type=reader, metavar=field.metadata["metavar"], help=text, **how)


def add_config(parser: Parser, quiet: str) -> None:
    """Add --config and --quiet, the flags of all commands that train; `quiet`: help text of the latter."""
    parser.add_argument("--config", metavar="FILE.toml", help="options from a file; flags take precedence over it")
    parser.add_argument("--quiet", action="store_true", help=quiet)


def given_options(arguments: argparse.Namespace) -> tuple[TrainOptions, contextlib.AbstractContextManager[None]]:
    """Return the options of a command line and its --config, and a context in which errors name their origin."""
    given, from_file, config = sources(arguments, TrainOptions)
    source = given.get("from_", from_file.get("from_"))
    inherited = {} if source is None else of_network(load(os.path.expanduser(source), device="auto").config)
    options = merged(inherited, from_file, given)
    if options.from_ is not None:
        options.from_ = str(Path(options.from_).expanduser().resolve())
    if options.out:
        options.out = os.path.expanduser(options.out)
    return options, naming_config(config, from_file.keys() - given.keys(), options.out)


def sources(
    arguments: argparse.Namespace, table: type[TrainOptions]
) -> tuple[dict[str, Any], dict[str, Any], str | None]:
    """Return the options of `table` from the command line, those from its --config, and that file.

    Raises:
        FileNotFoundError, ValueError: no such file, or none that can be read.
    """
    names = {field.name for field in dataclasses.fields(table)}
    given = {name: value for name, value in vars(arguments).items() if name in names}
    if arguments.config == "":
        raise ValueError("--config: expected a TOML file, got ''; name one, or leave it out")
    config = None if arguments.config is None else os.path.expanduser(arguments.config)
    return given, read_toml(config, table) if config else {}, config


@contextlib.contextmanager
def naming_config(config: str | None, from_file: Container[str], out: str | None = None) -> Iterator[None]:
    """Make errors name the file an option came from, and say whose folder `out` is."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        named = error.filename if isinstance(error, OSError) else None
        if named is not None and out and Path(str(named)).is_relative_to(out):
            error.add_note("--out names the folder")
        elif config is not None and len(error.args) == 1 and isinstance(error.args[0], str):
            error.args = (in_users_words(error.args[0], config, from_file, known=from_file),)
        raise


def _widths(text: str) -> list[int]:
    try:
        return parse_widths(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _plain(default: Any) -> str:
    return ",".join(map(str, default)) if isinstance(default, list) else f"{default}"
