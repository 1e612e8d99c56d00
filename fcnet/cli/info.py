"""`fcnet info`: versions, devices, data sets, and what is missing."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import platform

import fcnet
from fcnet.backends import Status, get_backend, probe
from fcnet.backends.cpu import loader
from fcnet.cli.parser import Parser
from fcnet.data.catalogue import NAMES, SOURCES, candidate_folders, find_files
from fcnet.errors import install

_EXTRAS = {"scikit-learn": "sklearn", "matplotlib": "plot", "pooch": "data", "optuna": "search"}


def add(parser: Parser) -> None:
    """Declare nothing: there are no flags."""


def run(options: argparse.Namespace) -> int:
    """Print it; nothing missing is an error."""
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


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
