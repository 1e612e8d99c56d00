"""All that needs a GPU, in one command, `make gpu-check COMMIT=<hash>`: tests, parity, benchmarks -> one JSON.

Runs with the system's python3 and what is installed there: no network, no git, no install.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fcnet
from backends import Status, get_backend, probe
from benchmarks import machine, report
from benchmarks.grid import Grid
from benchmarks.run import HERE, record
from fcnet.files import write_atomically
from fcnet.optim import RULES

STEPS = 50


def run_tests(arguments: Sequence[str] = ()) -> dict[str, Any]:
    """The whole test suite in a process of its own: how many ran, failed, were skipped, and which failed."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "junit.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={result}", *arguments]
        started = time.perf_counter()
        done = subprocess.run(command, cwd=machine.ROOT, check=False)
        seconds = round(time.perf_counter() - started, 1)
        if not result.exists():
            return {
                "run": 0,
                "failed": 1,
                "skipped": 0,
                "seconds": seconds,
                "failures": [f"pytest exited {done.returncode}"],
            }
        cases = list(ElementTree.parse(result).iter("testcase"))
    bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    return {
        "run": len(cases) - len(skipped),
        "failed": len(bad),
        "skipped": len(skipped),
        "seconds": seconds,
        "failures": [f"{case.get('classname')}::{case.get('name')}" for case in bad],
    }


def parity(device: str) -> list[dict[str, Any]]:
    """The largest relative difference of the digits net's losses from the CPU's over the first steps, by rule."""
    digits = fcnet.data.load("digits")
    rows = []
    for dtype in ("float64", "float32"):
        for rule in RULES:
            losses = []
            for where in ("cpu", device):
                model = fcnet.FullyConnectedNet(
                    [100, 100], 64, 10, normalization="batchnorm", dropout_keep_ratio=0.8, dtype=dtype, device=where
                )
                solver = fcnet.Solver(model, digits, update_rule=rule, verbose=False)
                for _ in range(STEPS):
                    solver.step()
                losses.append(np.array(solver.loss_history))
            difference = float(np.max(np.abs(losses[1] / losses[0] - 1)))
            rows.append({"dtype": dtype, "rule": rule, "steps": STEPS, "max_relative_difference": difference})
    return rows


def check(device: str, commit: str | None, grid: str) -> dict[str, Any]:
    """The content of the JSON file."""
    found = machine.describe(["cpu", device])
    print("tests", flush=True)
    tests = run_tests()
    print("parity", flush=True)
    losses = parity(device)
    print("kernels", flush=True)
    kernels = record(Grid.load(grid, devices=["cpu", device]), commit)
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit or kernels["commit"],
        "gpu": {
            "name": found["gpu"][0],
            "driver": found["driver"],
            "cuda": found["cuda"],
            "cupy": found["cupy"],
        },
        "machine": found,
        "tests": tests,
        "parity": losses,
        "kernels": kernels,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 all well; 1 a test failed; 2 no GPU can be used."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu_check", description=__doc__)
    parser.add_argument("--commit", help="what is checked, where git cannot tell")
    parser.add_argument("--grid", default="full", help="of the kernel benchmark (see grids.toml)")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="where the JSON goes")
    options = parser.parse_args(arguments)
    found = probe()
    if found.status is not Status.OK:
        print(f"gpu-check: no GPU can be used: {found.reason}; {found.remedy}", file=sys.stderr)
        return 2
    device = get_backend("cuda").name
    content = check(device, options.commit or None, options.grid)
    path = options.out / f"gpu-check-{content['date']}.json"
    write_atomically(path, json.dumps(content, indent=1) + "\n")
    print(report.markdown(content["kernels"]))
    for row in content["parity"]:
        print(f"parity {row['dtype']} {row['rule']}: {row['max_relative_difference']:.2e} over {STEPS} steps")
    tests = content["tests"]
    print(f"tests: {tests['run']} run, {tests['failed']} failed, {tests['skipped']} skipped, {tests['seconds']} s")
    print(f"wrote {path.name}")
    return 1 if tests["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
