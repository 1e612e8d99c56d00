"""A whole training, from the start of the process to its printed accuracy: `python -m benchmarks.whole`.

CIFAR-10's shape in seeded bytes, a batch-normalised net of 3072-3x100-10 trained by Adam with batches of 256: fcnet by
its command line, PyTorch by a script as its users write one (`benchmarks.peers.whole_torch`). What that leaves out of
no other table: imports, compilation, reading the file, the first step, evaluation.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine, report
from benchmarks.compare import add_common, check_common, describe
from benchmarks.report import _figure, _line
from benchmarks.run import _Parser, _short
from fcnet.backends import get_backend
from fcnet.files import write_atomically

ROWS, TEST, INPUTS, CLASSES = 50_000, 10_000, 3072, 10
EPOCHS, BATCH, HIDDEN = 20, 256, "100,100,100"
ROUNDS = 3
LIMIT_S = 600.0


def make_data(path: Path, rows: int, test: int) -> None:
    """Bytes about one mean picture per class, and one label in ten at random: learnable, but not wholly."""
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
    """The command of each contender; both end with a line that holds `test accuracy`."""
    torch = [sys.executable, "-m", "benchmarks.peers.whole_torch", str(data), device, str(epochs), str(BATCH), HIDDEN]
    ours = [
        *(sys.executable, "-m", "fcnet", "train", "--data", str(data), "--hidden", HIDDEN, "--norm", "batchnorm"),
        *("--optimizer", "adam", "--lr", "0.001", "--batch-size", str(BATCH), "--epochs", str(epochs)),
        *("--device", device, "--out", str(out), "--force"),
    ]
    return {"fcnet": ours, "torch": torch}


def timed(command: list[str], threads: int) -> tuple[float, float]:
    """Seconds of a run and the test accuracy that it printed.

    Raises:
        RuntimeError: it failed, or printed none; the message ends with the last line it said.
    """
    limits = dict.fromkeys(machine.THREADS, str(threads))
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=machine.ROOT, env=os.environ | limits, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    seconds = time.perf_counter() - start
    found = re.findall(r"test accuracy ([0-9.]+)", done.stdout)
    if done.returncode or not found:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise RuntimeError(f"exit code {done.returncode}, said: {said[:200]}")
    return seconds, float(found[-1])


def measure(
    device: str, threads: int, rows: int = ROWS, test: int = TEST, epochs: int = EPOCHS
) -> list[dict[str, Any]]:
    """A row for each contender: seconds of each round, in turns, and the accuracy; or why there is none."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.npz"
        make_data(data, rows, test)
        found: dict[str, dict[str, Any]] = {}
        for turn in range(ROUNDS + 1):  # the first warms caches up: files, compiled kernels
            for name, command in commands(data, Path(folder) / "run", device, epochs).items():
                row = found.setdefault(name, {"contender": name, "seconds": []})
                if "refused" in row:
                    continue
                try:
                    seconds, row["accuracy"] = timed(command, threads)
                except (RuntimeError, subprocess.TimeoutExpired) as error:
                    row["refused"] = str(error)
                    continue
                if turn:
                    row["seconds"].append(round(seconds, 3))
                else:
                    row["first"] = round(seconds, 3)
    return list(found.values())


def ratio(rows: Sequence[dict[str, Any]]) -> float | None:
    """PyTorch's time over fcnet's, the median of the rounds."""
    taken = {row["contender"]: row["seconds"] for row in rows if "refused" not in row}
    if set(taken) != {"fcnet", "torch"}:
        return None
    return float(np.median(np.divide(taken["torch"], taken["fcnet"])))


def record(device: str, threads: int, commit: str | None = None, **size: int) -> dict[str, Any]:
    """All of the JSON file; `commit`, if given, is taken for git's answer; `size` as in `measure`."""
    rows = measure(device, threads, **size)
    about = {"rows_of_data": size.get("rows", ROWS), "epochs": size.get("epochs", EPOCHS)}
    return describe(device, threads, commit) | about | {"rows": rows, "ratio": ratio(rows)}


def markdown(record: dict[str, Any]) -> str:
    """The table."""
    lines = [
        f"# From process start to printed accuracy, {record['date']}, {record['device']}",
        "",
        f"{report.machine_line(record)}.",
        "",
        f"{record['rows_of_data']} pictures of CIFAR-10's shape, 3072-3x100-10, batch norm, batch {BATCH}, "
        f"{record['epochs']} epochs; medians of {ROUNDS} rounds in turns after a first one, which compiles.",
        "",
        _line(["", "seconds", "first run", "test accuracy"]),
        _line(["---", "--:", "--:", "--:"]),
    ]
    for row in record["rows"]:
        if "refused" in row:
            lines.append(_line([row["contender"], row["refused"], "", ""]))
        else:
            median = _figure(float(np.median(row["seconds"])))
            lines.append(_line([row["contender"], median, _figure(row["first"]), f"{row['accuracy']:.4f}"]))
    if record["ratio"] is not None:
        lines += ["", f"torch ÷ fcnet: {record['ratio']:.2f}"]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 all measured; 1 a contender failed; 2 bad options; 130 interrupted."""
    parser: argparse.ArgumentParser = _Parser(prog="benchmarks.whole", description=__doc__, allow_abbrev=False)
    parser.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda or cuda:N")
    add_common(parser)
    options = parser.parse_args(arguments)
    try:
        check_common(options)
        device = get_backend(options.device).name
    except (ValueError, OSError) as error:
        print(f"benchmarks.whole: {error}", file=sys.stderr)
        return 2
    size = {"rows": 2000, "test": 500, "epochs": 2} if options.quick else {}
    try:
        made = record(device, options.threads, **size)
    except KeyboardInterrupt:
        print("benchmarks.whole: interrupted; nothing written", file=sys.stderr)
        return 130
    table = markdown(made)
    print(table)
    if options.json is not None:
        write_atomically(options.json, report.to_json(made))
        write_atomically(options.json.with_suffix(".md"), table)
        print("wrote", _short(options.json))
    return int(any("refused" in row for row in made["rows"]))


if __name__ == "__main__":
    sys.exit(main())
