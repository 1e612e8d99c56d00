"""`python -m fcnet.compat.COURSE script.py`: a script of a course, with `install()` ahead of it."""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Callable
from pathlib import Path


def parser_of_scripts(package: str, course: str) -> argparse.ArgumentParser:
    """Return the parser of `python -m PACKAGE script.py ...`; options of a course's own can be added."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {package}",
        description=f"Run a script of {course} unmodified: its modules are fcnet's.",
        allow_abbrev=False,
    )
    parser.add_argument("script", help="the script, a Python file")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="what the script finds in sys.argv")
    return parser


def run_script(parser: argparse.ArgumentParser, options: argparse.Namespace, install: Callable[[], None]) -> None:
    """Run `options.script` as Python would, its folder first in `sys.path`, after `install()`.

    What the script raises is its own; a script that is not there, or is a notebook, ends with a line and status 2.
    """
    script = Path(options.script)
    if script.suffix == ".ipynb":
        parser.error(
            f"{script}: expected a Python script, got a notebook; open it in Jupyter, with a first cell "
            f"`import {install.__module__} as course; course.install()`"
        )
    if not script.is_file():
        parser.error(f"{script}: expected a Python script, found no such file; give the path of one")
    sys.argv = [options.script, *options.arguments]
    if not sys.flags.safe_path:  # else Python has put nothing there to be replaced
        sys.path[0] = str(script.resolve().parent)
    install()
    runpy.run_path(str(script.absolute()), run_name="__main__")  # as __file__ is, beside which scripts look for files
