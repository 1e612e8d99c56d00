"""The flags of `fcnet train`, which other commands take too, and the options that a command line says with them."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from fcnet.cli.parser import number
from fcnet.runs.options import (
    CommaList,
    TrainOptions,
    flag,
    in_users_words,
    merged,
    of_network,
    parse_widths,
    read_toml,
)

_METAVARS = {str: "NAME", CommaList: "NAME", int: "N", float: "X", list: "N,N"}


def add_flags(parser: argparse._ActionsContainer, without: Container[str] = ()) -> None:
    """A flag for each of `TrainOptions` but these; what was not given is not in the result."""
    for field in dataclasses.fields(TrainOptions):
        if field.name in without:
            continue
        kind, name = field.metadata["kind"], f"--{flag(field.name)}"
        default = [100, 100] if kind is list else field.default
        no_default = default is None or default is False  # 0 is one
        text = field.metadata["help"] + ("" if no_default else f" (default: {_plain(default)})")
        how: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS, "help": text}
        if kind is bool:
            parser.add_argument(name, action="store_true", **how)
        elif kind is list:
            parser.add_argument(name, type=_widths, metavar="N,N", **how)
        else:
            metavar = "FOLDER" if field.name in ("data_dir", "out") else _METAVARS[kind]
            parser.add_argument(name, type=number(kind) if kind in (int, float) else str, metavar=metavar, **how)


def given_options(arguments: argparse.Namespace) -> tuple[TrainOptions, contextlib.AbstractContextManager[None]]:
    """The options of a command line and of its --config, and a context in which errors name these."""
    from fcnet.nn.model import load

    names = {field.name for field in dataclasses.fields(TrainOptions)}
    given = {name: value for name, value in vars(arguments).items() if name in names}
    if arguments.config == "":
        raise ValueError("--config: expected a TOML file, got ''; name one, or leave it out")
    config = None if arguments.config is None else os.path.expanduser(arguments.config)
    from_file = read_toml(config) if config else {}
    source = given.get("from_", from_file.get("from_"))
    inherited = {} if source is None else of_network(load(os.path.expanduser(source), device="auto").config)
    options = merged(inherited, from_file, given)
    if options.from_ is not None:
        options.from_ = str(Path(options.from_).expanduser().resolve())
    if options.out:
        options.out = os.path.expanduser(options.out)
    return options, _in_users_words(config, from_file.keys() - given.keys(), options.out)


@contextlib.contextmanager
def _in_users_words(config: str | None, from_file: Container[str], out: str | None) -> Iterator[None]:
    """Let errors name flags, not the arguments of Python."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        inside = isinstance(error, OSError) and error.filename is not None
        if inside and out and Path(str(error.filename)).is_relative_to(out):  # type: ignore[union-attr]
            error.add_note("--out names the folder")
        elif len(error.args) == 1 and isinstance(error.args[0], str):
            error.args = (in_users_words(error.args[0], config, from_file),)
        raise


def _widths(text: str) -> list[int]:
    try:
        return parse_widths(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _plain(default: Any) -> str:
    return ",".join(map(str, default)) if isinstance(default, list) else f"{default}"
