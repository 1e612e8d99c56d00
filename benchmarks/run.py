"""Measure the kernels and write a table, a picture and a JSON: `python -m benchmarks.run --help`."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine, report
from benchmarks.command import Parser, short, try_writing
from benchmarks.grid import GRIDS, Grid
from benchmarks.problems import PROBLEMS
from benchmarks.session import Interrupted, measure
from benchmarks.variants import VARIANTS
from fcnet.backends import Status, get_backend, probe
from fcnet.errors import MissingExtra
from fcnet.files import write_atomically

HERE = Path(__file__).resolve().parent
NEEDED = (("pytest", "pytest"), ("pytest_benchmark", "pytest-benchmark"), ("matplotlib", "matplotlib"))


def _list(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    def parse(text: str) -> list[Any]:
        try:
            return [kind(part) for part in text.split(",") if part]
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected numbers such as 64,256; got {text!r}") from None

    return parse


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="benchmarks.run", description=__doc__, allow_abbrev=False)
    parser.add_argument("--grid", default="full", metavar="NAME", help=f"{', '.join(GRIDS)} (see grids.toml)")
    parser.add_argument("--quick", action="store_const", dest="grid", const="quick", help="the same as --grid quick")
    parser.add_argument("--devices", type=_list(str), metavar="LIST", help="such as cpu,cuda:0; default: all usable")
    parser.add_argument("--ops", type=_list(str), metavar="LIST", help=f"of {', '.join(PROBLEMS)}")
    parser.add_argument("--widths", type=_list(int), metavar="LIST", help="such as 64,256,1024")
    parser.add_argument("--batches", type=_list(int), metavar="LIST", help="such as 64,1024")
    parser.add_argument("--variants", type=_list(str), metavar="LIST", help=f"of {', '.join(VARIANTS)}")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default: benchmarks/results (with the quick grid: .../results/quick)"
    )
    parser.add_argument("--commit", metavar="HASH", help="what is measured, where git cannot tell")
    return parser


def usable_devices() -> list[str]:
    """Return the CPU and, if CuPy can use it, the first GPU."""
    return ["cpu", "cuda:0"] if probe().status is Status.OK else ["cpu"]


def write(record: report.Record, out: Path, name: str, title: str = "kernels") -> list[Path]:
    """Return the JSON, the table and the picture, each whole or not at all; no picture if nothing was timed."""
    files: dict[str, bytes | str] = {
        f"{name}.json": report.to_json(record),
        f"{title}.md": report.markdown(record),
    }
    if all("refused" in row for row in record["rows"]):
        (out / f"{title}.png").unlink(missing_ok=True)
    else:
        files[f"{title}.png"] = report.picture(record)
    for file, content in files.items():
        write_atomically(out / file, content)
    return [out / file for file in files]


def _plan(options: argparse.Namespace) -> tuple[Grid, Path]:
    """Check what was asked for before anything is measured.

    Raises:
        ValueError, OSError, MissingExtra: it cannot be; one line says why.
    """
    check_needed()
    devices = usable_devices() if options.devices is None else options.devices
    grid = Grid.load(
        options.grid,
        ops=options.ops,
        widths=options.widths,
        batches=options.batches,
        variants=options.variants,
        devices=[get_backend(device).name for device in devices],
    )
    out = options.out or HERE / "results" / ("quick" if options.grid == "quick" else "")
    out.mkdir(parents=True, exist_ok=True)
    try_writing(out / ".writable")
    return grid, out


def check_needed(needed: Sequence[tuple[str, str]] = NEEDED) -> None:
    """Raise MissingExtra for the first package that is not installed; `needed`: modules and their packages."""
    for module, package in needed:
        if importlib.util.find_spec(module) is None:
            raise MissingExtra("the benchmark", package, "dev")


def record(grid: Grid, commit: str | None = None) -> dict[str, Any]:
    """Measure, and say on what: the content of the JSON file. `commit`, if given, is taken for git's answer.

    Raises:
        RuntimeError: the benchmark itself failed. Interrupted: by the user.
    """
    made = machine.head(grid.devices, commit, "benchmarks.run: ") | {"grid": dataclasses.asdict(grid)}
    return made | {"rows": measure(grid)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 all measured; 1 refused or failed in part; 2 bad options; 130 interrupted."""
    options = _parser().parse_args(arguments)
    try:
        grid, out = _plan(options)
    except (ValueError, OSError, MissingExtra) as error:
        print(f"benchmarks.run: {error}", file=sys.stderr)
        return 2
    devices = ", ".join(grid.devices)
    print(f"{len(grid.sizes())} sizes on {devices}; each result is proved before it is timed", flush=True)
    try:
        found = record(grid, options.commit)
    except (Interrupted, KeyboardInterrupt):
        print("benchmarks.run: interrupted; nothing written", file=sys.stderr)
        return 130
    except RuntimeError as error:
        print(f"{error}\nbenchmarks.run: the benchmark itself failed; nothing written", file=sys.stderr)
        return 1
    if not found["rows"]:
        missing = f"{devices} has no variant {' or '.join(grid.variants)} of these kernels"
        print(f"benchmarks.run: {missing}; nothing written", file=sys.stderr)
        return 1
    title = "kernels-training" if options.grid == "training" else "kernels"
    name = "-".join([title, *(device.replace(":", "") for device in grid.devices), found["date"]])
    files = write(found, out, name, title)
    print(report.markdown(found))
    print("wrote", ", ".join(map(short, files)))
    return 1 if any("refused" in row for row in found["rows"]) else 0


if __name__ == "__main__":
    sys.exit(main())
