"""A whole training, from the start of the process to its printed accuracy: `python -m benchmarks.end_to_end`.

CIFAR-10's shape in seeded bytes, a batch-normalised net of 3072-3x100-10 trained by Adam with batches of 256: fcnet by
its command line, PyTorch by a script as its users write one (`benchmarks.peers.end_to_end_torch`). What that leaves
out of no other table: imports, compilation, reading the file, the first step, evaluation.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import command, machine
from benchmarks.clock import Clock
from benchmarks.command import describe
from benchmarks.report import Record, digits, heading, table
from fcnet.backends import get_backend

ROWS, TEST, INPUTS, CLASSES = 50_000, 10_000, 3072, 10
EPOCHS, BATCH, HIDDEN = 20, 256, "100,100,100"
ROUNDS = 3
LIMIT_S = 600.0


def make_data(path: Path, rows: int, test: int) -> None:
    """Make bytes about one mean picture per class, and one label in ten at random: learnable, but not fully."""
    rng = np.random.default_rng(0)
    means = rng.integers(96, 160, (CLASSES, INPUTS))
    arrays = {}
    for part, count in (("train", rows), ("val", test), ("test", test)):
        y = rng.integers(0, CLASSES, count)
        noise = rng.integers(-90, 90, (count, INPUTS), dtype=np.int16)
        arrays[f"X_{part}"] = np.clip(means[y] + noise, 0, 255).astype(np.uint8)
        y[rng.random(count) < 0.1] = rng.integers(CLASSES)
        arrays[f"y_{part}"] = y
    np.savez(path, **arrays)


def commands(data: Path, out: Path, device: str, epochs: int) -> dict[str, list[str]]:
    """Return the command of each contender; both end with a line that holds `test accuracy`."""
    torch = [
        sys.executable,
        "-m",
        "benchmarks.peers.end_to_end_torch",
        str(data),
        device,
        str(epochs),
        str(BATCH),
        HIDDEN,
    ]
    ours = [
        *(sys.executable, "-m", "fcnet", "train", "--data", str(data), "--hidden", HIDDEN, "--norm", "batchnorm"),
        *("--optimizer", "adam", "--lr", "0.001", "--batch-size", str(BATCH), "--epochs", str(epochs)),
        *("--device", device, "--out", str(out), "--force"),
    ]
    return {"fcnet": ours, "torch": torch}


def timed(command: list[str], threads: int, limit_s: float = LIMIT_S) -> tuple[float, float]:
    """Return the seconds of a run and the test accuracy that it printed.

    Raises:
        RuntimeError: it failed, or printed none; the message ends with the last line it said.
        TimeoutExpired: it was not done in `limit_s` seconds.
    """
    limits = dict.fromkeys(machine.THREADS, str(threads))
    start = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=machine.ROOT,
        env=os.environ | limits,
        capture_output=True,
        text=True,
        timeout=max(0.1, limit_s),
        check=False,
    )
    seconds = time.perf_counter() - start
    found = re.findall(r"test accuracy ([0-9.]+)", done.stdout)
    if done.returncode or not found:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise RuntimeError(f"exit code {done.returncode}, said: {said[:200]}")
    return seconds, float(found[-1])


def measure(
    device: str,
    threads: int,
    rows: int = ROWS,
    test: int = TEST,
    epochs: int = EPOCHS,
    rounds: int = ROUNDS,
    clock: Clock | None = None,
) -> list[dict[str, Any]]:
    """Return a row for each contender: seconds of each round, in turns, and the accuracy; or why there is none."""
    clock = clock or Clock(math.inf)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.npz"
        make_data(data, rows, test)
        found: dict[str, dict[str, Any]] = {}
        for turn in range(rounds + 1):  # the first warms caches up: files, compiled kernels
            for name, command in commands(data, Path(folder) / "run", device, epochs).items():
                row = found.setdefault(name, {"contender": name, "seconds": []})
                if "refused" in row or "late" in row:
                    continue
                try:
                    seconds, row["accuracy"] = timed(command, threads, min(LIMIT_S, clock.left()))
                except RuntimeError as error:
                    row["refused"] = str(error)
                    continue
                except subprocess.TimeoutExpired as late:
                    row["late"] = f"not done in {late.timeout:.0f} s"
                    continue
                if turn:
                    row["seconds"].append(round(seconds, 3))
                else:
                    row["first"] = round(seconds, 3)
    return list(found.values())


def ratio(rows: Sequence[dict[str, Any]]) -> float | None:
    """Return PyTorch's time over fcnet's, the median of the rounds."""
    taken = {row["contender"]: row["seconds"] for row in rows if "refused" not in row and row["seconds"]}
    if set(taken) != {"fcnet", "torch"}:
        return None
    pairs = [torch / ours for torch, ours in zip(taken["torch"], taken["fcnet"], strict=False)]  # one may be late
    return float(np.median(pairs))


def record(device: str, threads: int, commit: str | None = None, **how: Any) -> dict[str, Any]:
    """Return all of the JSON file; a given `commit` replaces git's answer; `how` as in `measure`."""
    made = describe(device, threads, commit)
    made |= {"rows_of_data": how.get("rows", ROWS), "epochs": how.get("epochs", EPOCHS)}
    made["rounds"] = how.get("rounds", ROUNDS)
    rows = measure(device, threads, **how)
    return made | {"rows": rows, "ratio": ratio(rows)}


def markdown(record: Record) -> str:
    """Return the table."""
    cells = []
    for row in record["rows"]:
        if "refused" in row or "first" not in row:
            cells.append([row["contender"], row.get("refused") or row["late"], "", ""])
        else:
            median = digits(float(np.median(row["seconds"]))) if row["seconds"] else row["late"]
            cells.append([row["contender"], median, digits(row["first"]), f"{row['accuracy']:.4f}"])
    lines = [
        *heading(f"From process start to printed accuracy, {record['date']}, {record['device']}", record),
        f"{record['rows_of_data']} pictures of CIFAR-10's shape, 3072-3x100-10, batch norm, batch {BATCH}, "
        f"{record['epochs']} epochs; medians of {record['rounds']} rounds in turns after a first one, which compiles.",
        "",
        *table(["", "seconds", "first run", "test accuracy"], cells),
    ]
    if record["ratio"] is not None:
        lines += ["", f"torch ÷ fcnet: {record['ratio']:.2f}"]
    return "\n".join(lines) + "\n"


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda or cuda:N")


def is_refused(row: Mapping[str, Any]) -> bool:
    """Return whether a contender could not run at all."""
    return "refused" in row


def _plan(options: argparse.Namespace) -> Callable[[], Record]:
    size: dict[str, Any] = {"rows": 2000, "test": 500, "epochs": 2} if options.quick else {}
    return partial(record, get_backend(options.device).name, options.threads, **size)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; a contender that is not installed is a failure here."""
    return command.run("end_to_end", __doc__, arguments, _plan, markdown, add=_options, failed=is_refused)


if __name__ == "__main__":
    sys.exit(main())
