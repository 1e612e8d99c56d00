"""`fcnet info`: versions, devices, data sets, and what is missing; with --data, what becomes of a table's columns."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import platform
from pathlib import Path
from typing import Any

import fcnet
from fcnet.backends import Status, get_backend, probe
from fcnet.backends.cpu import loader
from fcnet.cli.flags import add_flags
from fcnet.cli.parser import Parser
from fcnet.data.catalogue import NAMES, SOURCES, candidate_folders, find_files
from fcnet.data.columns import as_text, in_line
from fcnet.data.loading import read_labelled
from fcnet.data.plan import Plan
from fcnet.data.sniffing import SEPARATORS
from fcnet.data.table import SUFFIXES_TOLD, TableChoices, is_table_file
from fcnet.data.targets import find_targets, with_targets
from fcnet.errors import counted, install
from fcnet.runs.options import TrainOptions

_EXTRAS = {"scikit-learn": "sklearn", "matplotlib": "plot", "pooch": "data", "optuna": "search"}


TABLE = ("target", "header", "sep", "decimal", "missing", "drop", "only", "ordinal")


def add(parser: Parser) -> None:
    """Declare --data, and the options of `fcnet train` that say how a table is read."""
    parser.add_argument("--data", metavar="FILE", help="a table: show each column, and what becomes of it in training")
    others = {field.name for field in dataclasses.fields(TrainOptions)} - set(TABLE)
    add_flags(parser, without=others)


def run(options: argparse.Namespace) -> int:
    """Print the information; what is missing is no error."""
    given = {name: value for name, value in vars(options).items() if name in TABLE}
    if options.data is not None:
        return _table(Path(options.data).expanduser(), given.pop("target", None), given)
    if given:
        raise ValueError(f"{next(iter(given))}: expected it with --data, got none; name a table as well")
    print(f"fcnet {fcnet.__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    print("\nDevices")
    cpu = get_backend("cpu")
    total = cpu.memory().total
    print(f"  cpu     usable: {cpu.describe()}{f', {_gib(total)} of memory' if total else ''}")
    if not loader.load().kernels or loader.load().broken:
        print(f"          kernels (Numba) {loader.load().status}")
    found = probe()
    if found.status is Status.OK:
        for index in range(found.device_count):
            backend = get_backend(f"cuda:{index}")
            print(f"  cuda:{index}  usable: {backend.describe()}, {_gib(backend.memory().free)} free")
    else:
        print(f"  cuda    not usable: {found.reason}")
        print(f"          to use it: {found.remedy}")
    print(f"  auto    means {get_backend('auto').name}")
    print("\nData sets")
    for name in NAMES:
        if name not in SOURCES:
            missing = name == "digits" and importlib.util.find_spec("sklearn") is None
            need = f"needs scikit-learn, which is not installed: {install('sklearn')}"
            print(f"  {name:13}  " + (need if missing else "made here, no files needed"))
            continue
        try:
            folder = next(iter(find_files(name).values())).parent
            print(f"  {name:13}  in {folder}")
        except (OSError, ValueError):
            first = candidate_folders(name, None)[0]
            print(f"  {name:13}  not found (first looked in {first}); get it: fcnet fetch {name}")
    print("\nExtras")
    for package, extra in _EXTRAS.items():
        try:
            print(f"  {package:13}  {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            print(f"  {package:13}  not installed: {install(extra)}")
    return 0


def _table(path: Path, target: str | None, given: dict[str, Any]) -> int:
    """Print how a table is read, and what becomes of its columns."""
    if not is_table_file(path):
        raise ValueError(f"data: expected a table: {SUFFIXES_TOLD}; got {str(path)!r}")
    if not path.is_file():
        raise FileNotFoundError(f"data: {str(path)!r} does not exist; name a file")
    choices = TableChoices.of(**given)
    read = read_labelled(path, target, choices, None, numbers=True)
    targets = () if target is None else find_targets(read, target, numbers=True)
    read, left_out = with_targets(read, targets)
    plan = Plan.learn(read, targets=targets, ordinal=choices.ordinal, drop=choices.drop, only=choices.only)
    how = [f"{counted(read.count, 'row')}, {counted(len(read.names), 'column')}"]
    if read.sep is not None:
        how.append(f"separated by {SEPARATORS.get(read.sep, repr(read.sep))}")
    print(f"{path}: {'; '.join(how)}")
    for note in [*read.notes, *left_out, *(line for line in plan.said() if not line.startswith("left out"))]:
        print(note)
    print(f"\n{plan.describe()}")
    for name in targets:
        text = as_text(read[name])
        counts = text.counts()
        order = sorted((at for at in range(len(counts)) if counts[at]), key=lambda at: -counts[at])
        words = ", ".join(f"{in_line(text.words[at])} ({counts[at]})" for at in order[:8])
        more = f", ... ({len(order)} different)" if len(order) > 8 else ""
        print(f"{in_line(name)}: {words}{more}")
    return 0


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
