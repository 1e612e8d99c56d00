"""What the commands of this folder share: options, how they are checked, the files written, how a command ends."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from benchmarks import machine, report
from benchmarks.peers.pool import stopped_cleanly
from fcnet.errors import MissingExtra, unknown
from fcnet.files import write_atomically

FAILED = ("failed", "crashed", "wrong")  # kinds of refusal that make the exit code 1


class Parser(argparse.ArgumentParser):
    """Say what is wrong in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def run(
    name: str,
    about: str | None,
    arguments: Sequence[str] | None,
    plan: Callable[[argparse.Namespace], Callable[[], report.Record]],
    markdown: Callable[[report.Record], str],
    *,
    picture: Callable[[report.Record], bytes] | None = None,
    add: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
    failed: Callable[[report.Row], bool] = lambda row: row.get("kind") in FAILED,
    threads: int | None = None,
    last: Callable[[report.Record], str] | None = None,
) -> int:
    """Read the options, measure, print the table and write the files that `--json` asks for.

    Args:
        plan: checks the options and returns what measures; a ValueError or an OSError in it is a bad option. A
            KeyboardInterrupt of what measures may say what was written.
        add: the command's own options, before those that all share.
        failed: whether a row of the record lets the command fail.
        threads: of each contender, by default; None: all cores. last: what the last line says, if there is to be one.

    Returns:
        The exit code: 0 all measured (but what is not installed); 1 something was refused, failed or crashed; 2 bad
        options; 130 interrupted, with nothing written, or what a record that has "interrupted" holds.
    """
    parser = Parser(prog=f"benchmarks.{name}", description=about, allow_abbrev=False)
    add(parser)
    add_common(parser, threads)
    options = parser.parse_args(arguments)
    try:
        check_common(options)
        measure = plan(options)
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    try:
        with stopped_cleanly():
            record = measure()
    except KeyboardInterrupt as error:
        print(f"{parser.prog}: interrupted; {error if error.args else 'nothing written'}", file=sys.stderr)
        return 130
    table = markdown(record)
    print(table)
    if options.json is not None:
        print("wrote", ", ".join(map(short, write(record, options.json, table, picture))))
    if record.get("interrupted"):
        print(f"{parser.prog}: interrupted; what was measured by then is kept", file=sys.stderr)
        return 130
    if last is not None:
        print(last(record))
    return int(any(map(failed, record["rows"])))


def add_common(parser: argparse.ArgumentParser, threads: int | None = None) -> None:
    """Add the options that all commands over `run` have; `threads` None: all cores."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record there; table and picture beside it")
    parser.add_argument(
        "--threads",
        type=int,
        default=threads or machine.cores(),
        metavar="T",
        help="of each contender; default: %(default)s",
    )
    parser.add_argument("--quick", action="store_true", help="short rounds: does it work, not how fast is it")


def check_common(options: argparse.Namespace) -> None:
    """Check the common options before anything is measured.

    Raises:
        ValueError, OSError: an option cannot be; one line says why.
    """
    if not 1 <= options.threads <= machine.cores():
        raise ValueError(f"--threads: expected 1 to {machine.cores()}, got {options.threads}")
    if options.json is not None:
        if options.json.is_dir():
            raise ValueError(f"--json: expected a file, got the folder {short(options.json)}")
        try_writing(options.json.with_name(f".{options.json.name}.writable"))


def try_writing(path: Path) -> None:
    """Write an empty file and remove it.

    Raises:
        OSError: nothing can be written there.
    """
    write_atomically(path, "")
    path.unlink()


def names(text: str) -> list[str]:
    """Return a list as the options take it: "torch,jax" -> its parts, each once."""
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def chosen(option: str, given: Sequence[str], valid: Sequence[str]) -> list[str]:
    """Return the names given, checked.

    Raises:
        ValueError: none, or one that is not valid.
    """
    if not given:
        raise ValueError(f"{option}: expected some of {', '.join(valid)}; got none")
    for name in given:
        if name not in valid:
            raise unknown(option, name, valid)
    return list(given)


def describe(device: str, threads: int, commit: str | None = None) -> dict[str, Any]:
    """Return how a record begins: date, commit, machine, device, threads; `commit` as in `machine.head`."""
    head = machine.head([device], commit)
    head["machine"]["blas_threads"] = threads  # of the contenders; this process has its own
    return head | {"device": device, "threads": threads}


def say(text: str) -> None:
    """Print progress at once, and apart from the table."""
    print(text, file=sys.stderr, flush=True)


def short(path: Path) -> str:
    """Return a path relative to the working directory, if it is below it."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def write(
    record: report.Record, path: Path, table: str, picture: Callable[[report.Record], bytes] | None
) -> list[Path]:
    """Write the record, its table and its picture beside each other, each whole or not at all."""
    write_atomically(path, report.to_json(record))
    write_atomically(path.with_suffix(".md"), table)
    files = [path, path.with_suffix(".md")]
    return files if picture is None else files + write_picture(record, path.with_suffix(".png"), picture)


def write_picture(record: report.Record, path: Path, picture: Callable[[report.Record], bytes]) -> list[Path]:
    """Draw the picture and return its file; without matplotlib none, which is said."""
    try:
        write_atomically(path, picture(record))
    except MissingExtra as error:
        print(f"no picture: {error}", file=sys.stderr)
        return []
    return [path]
