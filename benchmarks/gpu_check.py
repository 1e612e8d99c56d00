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
import traceback
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fcnet
from backends import Status, get_backend, probe
from benchmarks import compare, machine, report
from benchmarks import whole as training
from benchmarks.grid import Grid
from benchmarks.peers import CONTENDERS, PEERS, table
from benchmarks.peers.duel import Effort
from benchmarks.run import HERE, record
from benchmarks.workloads import workloads_for
from fcnet.files import write_atomically
from fcnet.optim import RULES

STEPS = 50
PARTS = ("tests", "parity", "steps", "kernels", "training")  # in this order
EFFORT = Effort(rounds=5, scale=0.5, pause=0.1)


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


def steps(device: str, effort: Effort) -> dict[str, Any]:
    """What `python -m benchmarks.compare --device cuda` writes: whole steps beside PyTorch's and JAX's, the ceiling."""
    threads = compare.cores()
    workloads = list(workloads_for(device).values())
    contenders = compare.contenders_for(device, [name for name in PEERS if "cuda" in CONTENDERS[name].devices])
    return compare.record(device, workloads, contenders, threads=threads, effort=effort, say=say)


def say(text: str) -> None:
    """Progress, at once."""
    print(text, flush=True)


def check(
    device: str, commit: str | None, parts: Mapping[str, Callable[[], Any]], keep: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """The content of the JSON file; `keep` gets what there is after each part, so that a time limit loses one part.

    A part that raises is told of in its place, and the others go on.
    """
    found = machine.describe(["cpu", device])
    head = machine.commit()[0]
    content = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit or head,
        "gpu": {"name": found.get("gpu", [None])[0]} | {name: found.get(name) for name in ("driver", "cuda", "cupy")},
        "machine": found,
        "seconds": {},
    }
    for name, part in parts.items():
        say(f"== {name}")
        start = time.perf_counter()
        try:
            content[name] = part()
        except Exception as error:  # whatever it is: the machine is lent for minutes, the other parts count
            traceback.print_exc()
            content[name] = {"error": f"{type(error).__name__}: {error}"}
        content["seconds"][name] = round(time.perf_counter() - start, 1)
        keep(content)
    return content


def tables(content: Mapping[str, Any]) -> str:
    """What was found, for people."""
    lines = []
    for name in (part for part in PARTS if "error" in content.get(part, {})):
        lines.append(f"{name} failed: {content[name]['error']}")
    whole = {name: content[name] for name in PARTS if name in content and "error" not in content[name]}
    if "kernels" in whole:
        lines.append(report.markdown(whole["kernels"]))
    if "steps" in whole:
        lines.append(table.markdown(whole["steps"]))
    if "training" in whole:
        lines.append(training.markdown(whole["training"]))
    for row in whole.get("parity", {}).get("rows", []):
        lines.append(f"parity {row['dtype']} {row['rule']}: {row['max_relative_difference']:.2e} over {STEPS} steps")
    if "tests" in whole:
        tests = whole["tests"]
        lines.append(
            f"tests: {tests['run']} run, {tests['failed']} failed, {tests['skipped']} skipped, {tests['seconds']} s"
        )
        lines += tests["failures"]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 all well; 1 a test or a part failed; 2 no GPU can be used."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu_check", description=__doc__)
    parser.add_argument("--commit", help="what is checked, where git cannot tell")
    parser.add_argument("--grid", default="gpu", help="of the kernel benchmark (see grids.toml)")
    parser.add_argument("--parts", type=compare.names, default=list(PARTS), help=f"default: {','.join(PARTS)}")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="where the JSON goes")
    options = parser.parse_args(arguments)
    try:
        chosen = compare.chosen("--parts", options.parts, PARTS)
    except ValueError as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return 2
    found = probe()
    if found.status is not Status.OK:
        print(f"gpu-check: no GPU can be used: {found.reason}; {found.remedy}", file=sys.stderr)
        return 2
    device = get_backend("cuda").name
    commit = options.commit or None
    every: dict[str, Callable[[], Any]] = {
        "tests": lambda: run_tests(["-m", "gpu"]),
        "parity": lambda: {"rows": parity(device)},
        "steps": lambda: steps(device, EFFORT),
        "kernels": lambda: record(Grid.load(options.grid, devices=[device]), commit),
        "training": lambda: training.record(device, compare.cores()),
    }
    path = options.out / f"gpu-check-{datetime.datetime.now(datetime.UTC).date().isoformat()}.json"

    def keep(content: dict[str, Any]) -> None:
        write_atomically(path, json.dumps(content, indent=1) + "\n")

    content = check(device, commit, {name: every[name] for name in PARTS if name in chosen}, keep)
    text = tables(content)
    write_atomically(path.with_suffix(".md"), text + "\n")
    print(text)
    if "error" not in content.get("steps", {"error": ""}):
        write_atomically(path.with_suffix(".png"), table.bars(content["steps"]))
    print(f"wrote {path.name}")
    failed = any("error" in content[name] for name in chosen)
    return int(failed or bool(content.get("tests", {}).get("failed")))


if __name__ == "__main__":
    sys.exit(main())
