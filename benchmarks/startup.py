"""What comes before the first step: import, compilation, disk, beside the peers: `python -m benchmarks.startup`."""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import command
from benchmarks.command import describe
from benchmarks.machine import ROOT, child_environment
from benchmarks.peers import CONTENDERS
from benchmarks.peers.compare_peers import JOB, Row
from benchmarks.peers.pool import Failure, Worker
from benchmarks.report import Record, heading, table
from benchmarks.workloads import workloads_for

IMPORTS = {
    "numpy": "numpy",
    "fcnet": "fcnet.training.solver",  # `import fcnet` alone loads next to nothing
    "torch": "torch",
    "jax": "jax, jax.numpy",
    "sklearn": "sklearn.neural_network",
}
STACKS: dict[str, tuple[str, ...]] = {  # beside fcnet's own files: what has to be installed
    "fcnet": ("numpy", "safetensors", "tqdm"),
    "fcnet[fast]": ("numpy", "safetensors", "tqdm", "numba"),
    "torch": ("torch", "numpy"),
    "jax": ("jax", "jaxlib", "optax"),
    "sklearn": ("scikit-learn",),
}
FIRST_STEPS = ("fcnet", "fcnet-numpy", "torch", "torch-compile", "jax", "sklearn")
CACHES = ("NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
NET = "mnist"


def timed_import(modules: str, repeats: int) -> float | None:
    """Return the median seconds of importing in a fresh process; None if it is not installed."""
    code = f"import time; t = time.perf_counter(); import {modules}; print(time.perf_counter() - t)"
    taken = []
    for _ in range(repeats + 1):  # the first one fills the disk's cache
        done = subprocess.run(
            [sys.executable, "-c", code], env=child_environment(), capture_output=True, text=True, check=False
        )
        if done.returncode:
            return None
        taken.append(float(done.stdout.split()[-1]))
    return round(median(taken[1:]), 4)


def first_step(name: str, threads: int, caches: Mapping[str, str]) -> float:
    """Return the seconds from building the net to the end of its first step, data and imports apart.

    Raises:
        Failure: the contender is not there or failed.
    """
    contender = CONTENDERS[name]
    with Worker(JOB, threads, {**contender.environment, **caches}) as worker:
        worker.ask("load", target=contender.target, device="cpu", packages=(), choice="")
        made = worker.ask("make", workload=workloads_for("cpu")[NET].to_dict())
        return round(made["make_s"] + worker.ask("run", steps=1, warm=0), 4)


def whole_training(caches: Mapping[str, str]) -> float:
    """Return the seconds of `fcnet train` on the digits, from process start to its end.

    Raises:
        Failure: it failed.
    """
    train = [sys.executable, "-m", "fcnet", "train", "--data", "digits", "--epochs", "10"]
    with tempfile.TemporaryDirectory(prefix="fcnet-startup-") as folder:
        start = time.perf_counter()
        done = subprocess.run(
            [*train, "--out", str(Path(folder, "run"))],
            env=child_environment() | dict(caches),
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - start
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise Failure(said[-1][:200] if said else f"exit code {done.returncode}", "failed")
    return round(seconds, 3)


def cold_and_warm(row: Row, repeats: int, seconds: Callable[[Mapping[str, str]], float]) -> Row:
    """Return the row of times for empty and filled caches of compiled code, or why there is none."""
    with tempfile.TemporaryDirectory(prefix="fcnet-startup-") as folder:
        caches = {cache: str(Path(folder, cache)) for cache in CACHES}
        try:
            row["cold_s"] = seconds(caches)
            row["warm_s"] = median(seconds(caches) for _ in range(repeats))
        except Failure as failure:
            row |= {"refused": str(failure), "kind": failure.kind}
    return row


def requirements(names: Iterable[str]) -> dict[str, importlib.metadata.Distribution]:
    """Return these distributions and all they need, as far as they are installed."""
    found: dict[str, importlib.metadata.Distribution] = {}
    todo = list(names)
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # needed on another platform only; or the stack itself is not there
        for text in found[name].requires or []:
            if "extra ==" not in text and (match := re.match(r"[A-Za-z0-9._-]+", text)):
                todo.append(match[0])
    return found


def installed_size(distributions: Iterable[importlib.metadata.Distribution]) -> int:
    """Return the bytes of their files on disk, without compiled Python (it depends on what was run)."""
    total = 0
    for distribution in distributions:
        for file in distribution.files or []:
            path = Path(str(distribution.locate_file(file)))
            if path.suffix != ".pyc" and path.is_file():
                total += path.stat().st_size
    return total


def own_size() -> int:
    """Return the bytes of what a wheel of fcnet installs."""
    files = [file for package in ("fcnet", "backends") for file in (ROOT / package).rglob("*")]
    return sum(file.stat().st_size for file in files if file.suffix in (".py", ".pyi", ".cu", ".typed"))


def sizes() -> list[Row]:
    """Return the MB on disk of each stack that is installed."""
    rows: list[Row] = []
    for stack, names in STACKS.items():
        found = requirements(names)
        missing = [name for name in names if name not in found]
        row: Row = {"what": "disk", "name": stack}
        if missing:
            rows.append(row | {"refused": f"{', '.join(missing)} not installed"})
            continue
        total = installed_size(found.values()) + (own_size() if stack.startswith("fcnet") else 0)
        rows.append(row | {"mb": round(total / 1e6, 1), "distributions": sorted(found)})
    return rows


def measure(threads: int, repeats: int) -> list[Row]:
    """Measure all rows."""
    rows: list[Row] = []
    for name, modules in IMPORTS.items():
        seconds = timed_import(modules, repeats)
        row: Row = {"what": "import", "name": name}
        rows.append(row | ({"refused": "not installed"} if seconds is None else {"seconds": seconds}))
    for name in FIRST_STEPS:
        row = {"what": "first step", "name": name}
        rows.append(cold_and_warm(row, repeats, partial(first_step, name, threads)))
    rows.append(cold_and_warm({"what": "fcnet train", "name": "digits, 10 epochs"}, repeats, whole_training))
    return rows + sizes()


def markdown(record: Record) -> str:
    """Return the three tables."""

    def rows(*kinds: str) -> list[list[str]]:
        return [_cells(row) for row in record["rows"] if row["what"] in kinds]

    lines = [
        *heading(f"Start-up, {record['date']}", record),
        *table(["import in a fresh process", "seconds"], rows("import")),
        "",
        f"Building the net `{NET}` and its first step, imports and data apart; cold: with empty caches of",
        "compiled code. Last line: the whole process.",
        "",
        *table(["first step", "cold, s", "warm, s"], rows("first step", "fcnet train")),
        "",
        *table(["installed, with all it needs", "MB", "distributions"], rows("disk")),
    ]
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> list[str]:
    """Return the cells of a row: its name and what was measured, or why that was not."""
    if row["what"] == "import":
        return [row["name"], row.get("refused") or f"{row['seconds']:.3f}"]
    name = f"`fcnet train`, {row['name']}" if row["what"] == "fcnet train" else row["name"]
    if "refused" in row:
        return [name, row["refused"], ""]
    if row["what"] == "disk":
        return [name, f"{row['mb']:,.0f}", str(len(row["distributions"]))]
    return [name, f"{row['cold_s']:.3f}", f"{row['warm_s']:.3f}"]


def _plan(options: argparse.Namespace) -> Callable[[], Record]:
    return lambda: describe("cpu", options.threads) | {"rows": measure(options.threads, 1 if options.quick else 5)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code, as `command.run` says."""
    return command.run("startup", __doc__, arguments, _plan, markdown)


if __name__ == "__main__":
    sys.exit(main())
