"""All that needs a GPU, in one command, `make gpu-check COMMIT=<hash>`: tests, parity, benchmarks -> one JSON.

Runs with the system's python3 and what is installed there: no network, no git, no install.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
import traceback
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fcnet
from benchmarks import command, compare, machine, report
from benchmarks import whole as training
from benchmarks.grid import Grid
from benchmarks.peers import CONTENDERS, PEERS, table
from benchmarks.peers.duel import Effort
from benchmarks.peers.pool import stopped_cleanly
from benchmarks.run import HERE, record
from benchmarks.workloads import workloads_for
from fcnet.backends import Status, get_backend, probe
from fcnet.files import write_atomically
from fcnet.optim import RULES

STEPS = 50
PARTS = ("steps", "training", "kernels", "parity", "tests")  # in this order: the dearest to know first
EFFORT = Effort(rounds=5, scale=0.5, pause=0.1, limit_s=120)
MINUTES = 7.5
SHARE = 0.6  # of the time for whole steps: no workload is begun later
GROUPS = (
    "tests/kernels",
    "tests/backends",
    "tests/functional",
    "tests/optim",
    "tests",
)  # of the tests, kept one by one
Keep = Callable[[Any], None]


class Clock:
    """The time that is left."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes

    def left(self) -> float:
        """Seconds; below 0 when it is over."""
        return self._end - time.monotonic()


def run_tests(arguments: Sequence[str] = (), limit_s: float | None = None) -> dict[str, Any]:
    """Tests in a process of its own: how many ran, failed, were skipped, and which failed."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "junit.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={result}", *arguments]
        started = time.perf_counter()
        try:
            code = subprocess.run(command, cwd=machine.ROOT, check=False, timeout=limit_s).returncode
            ended = f"pytest exited {code}"
            sound = code in (0, 1, 5)  # passed, failed, none there
        except subprocess.TimeoutExpired:
            ended, sound = f"not done in {limit_s:.0f} s", False
        found = {
            "run": 0,
            "failed": 0,
            "skipped": 0,
            "seconds": round(time.perf_counter() - started, 1),
            "failures": [],
        }
        if not result.exists():
            return found | {"failed": 1, "failures": [ended]}
        cases = list(ElementTree.parse(result).iter("testcase"))
    bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    failures = [f"{case.get('classname')}::{case.get('name')}" for case in bad] + ([] if sound else [ended])
    counts = {"run": len(cases) - len(skipped), "failed": len(failures), "skipped": len(skipped)}
    return found | counts | {"failures": failures}


def tests(clock: Clock, keep: Keep) -> dict[str, Any]:
    """All tests that need a GPU, group after group, by several processes where pytest-xdist is installed."""
    many = importlib.util.find_spec("xdist") is not None
    hands = ["-n", str(min(8, machine.cores())), "--dist", "worksteal", "-p", "no:benchmark"] if many else []
    total: dict[str, Any] = {"run": 0, "failed": 0, "skipped": 0, "seconds": 0.0, "failures": [], "left_out": []}
    for i, group in enumerate(GROUPS):
        if clock.left() < 5:
            total["left_out"].append(group)
            continue
        others = [f"--ignore={done}" for done in GROUPS[:i] if done.startswith(f"{group}/")]
        found = run_tests(["-m", "gpu and not slow", *hands, group, *others], clock.left())
        total = {name: value + found.get(name, type(value)()) for name, value in total.items()}
        keep(total)
    return total


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


def steps(
    device: str, effort: Effort, commit: str | None, only: Sequence[str], clock: Clock, keep: Keep
) -> dict[str, Any]:
    """What `python -m benchmarks.compare --device cuda` writes: whole steps beside PyTorch's and JAX's, the ceiling."""
    known = workloads_for(device)
    workloads = [known[name] for name in command.chosen("--workloads", only or list(known), list(known))]
    contenders = compare.contenders_for(device, [name for name in PEERS if "cuda" in CONTENDERS[name].devices])
    end = clock.left() * (1 - SHARE)

    def kept(made: dict[str, Any]) -> bool:
        keep(made)
        return clock.left() > end

    return compare.record(
        device, workloads, contenders, threads=machine.cores(), effort=effort, say=say, commit=commit, keep=kept
    )


def say(text: str) -> None:
    """Progress, at once."""
    print(text, flush=True)


def head(device: str, commit: str | None) -> dict[str, Any]:
    """The head of the JSON file."""
    found = machine.describe(["cpu", device])
    return {
        "date": machine.today(),
        "commit": commit or machine.git_commit()[0],
        "gpu": {"name": found.get("gpu", [None])[0]} | {name: found.get(name) for name in ("driver", "cuda", "cupy")},
        "machine": found,
        "seconds": {},
        "errors": {},
    }


def earlier(content: Mapping[str, Any], files: Iterable[Path]) -> dict[str, Any]:
    """What another command found of the same commit on the same GPU, to be added to; else what is given."""
    for file in files:
        try:
            found = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError):
            continue
        if content["commit"] and all(found.get(name) == content[name] for name in ("commit", "gpu")):
            return found
    return dict(content)


def merged(before: Any, found: Any) -> Any:
    """A part with what an earlier command found of other workloads; any other part is the new one alone."""
    if not isinstance(before, dict) or not isinstance(found, dict) or "left_out" not in found or "ratios" not in found:
        return found
    done = {workload["name"] for workload in found["workloads"]}
    kept = {
        "workloads": [workload for workload in before["workloads"] if workload["name"] not in done],
        "rows": [row for row in before["rows"] if row["workload"] not in done],
        "ratios": [row for row in before["ratios"] if row["workload"] not in done],
    }
    left = [name for name in found["left_out"] if name not in {workload["name"] for workload in kept["workloads"]}]
    both = {name: [*earlier, *found[name]] for name, earlier in kept.items()}
    return found | both | {"versions": before["versions"] | found["versions"], "left_out": left}


def check(
    content: dict[str, Any], parts: Mapping[str, Callable[[Keep], Any]], clock: Clock, keep: Keep
) -> dict[str, Any]:
    """Add to the content of the JSON file, part after part; a part that raises is told of in its place.

    `keep` gets what there is after each part, and after each piece that a part hands on, so that a time limit loses
    one piece.
    """
    for name, part in parts.items():
        say(f"== {name}, {clock.left():.0f} s left")
        start = time.perf_counter()

        before = content.get(name)

        def piece(found: Any, name: str = name, before: Any = before) -> None:
            keep(content | {name: merged(before, found)})

        try:
            if clock.left() < 0:
                raise TimeoutError(f"no time was left; run it alone: --parts {name}")
            content[name] = merged(before, part(piece))
            content["errors"].pop(name, None)
        except Exception as error:  # whatever it is: the machine is lent for minutes, the other parts count
            traceback.print_exc()
            content["errors"][name] = f"{type(error).__name__}: {error}"  # beside what an earlier command found
        content["seconds"][name] = round(time.perf_counter() - start, 1)
        keep(content)
    return content


def tables(content: Mapping[str, Any]) -> str:
    """What was found, for people."""
    lines = []
    for name in (part for part in PARTS if part in content["errors"]):
        lines.append(f"{name} failed: {content['errors'][name]}")
    whole = {name: content[name] for name in PARTS if name in content}
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
        lines += [f"no time was left for {group}" for group in tests.get("left_out", [])]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 all well; 1 a test or a part failed; 2 no GPU can be used."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu_check", description=__doc__)
    parser.add_argument("--commit", help="what is checked, where git cannot tell")
    parser.add_argument("--grid", default="gpu", help="of the kernel benchmark (see grids.toml)")
    parser.add_argument("--parts", type=command.names, default=list(PARTS), help=f"default: {','.join(PARTS)}")
    parser.add_argument("--workloads", type=command.names, default=[], help="of the whole steps; default: all")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"no part is begun later; default: {MINUTES}")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="where the JSON goes")
    options = parser.parse_args(arguments)
    try:
        chosen = command.chosen("--parts", options.parts, PARTS)
    except ValueError as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return 2
    found = probe()
    if found.status is not Status.OK:
        print(f"gpu-check: no GPU can be used: {found.reason}; {found.remedy}", file=sys.stderr)
        return 2
    device = get_backend("cuda").name
    commit, clock = options.commit or None, Clock(options.minutes)
    every: dict[str, Callable[[Keep], Any]] = {
        "steps": lambda keep: steps(device, EFFORT, commit, options.workloads, clock, keep),
        "training": lambda keep: training.record(device, machine.cores(), commit),
        "kernels": lambda keep: record(Grid.load(options.grid, devices=[device]), commit),
        "parity": lambda keep: {"rows": parity(device)},
        "tests": lambda keep: tests(clock, keep),
    }
    begun = head(device, commit)
    name = f"gpu-check-{begun['date']}.json"
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / name

    def keep(content: dict[str, Any]) -> None:
        write_atomically(path, json.dumps(content, indent=1) + "\n")

    begun = earlier(begun, [path, HERE / "results" / name])
    try:
        with stopped_cleanly():
            content = check(begun, {name: every[name] for name in PARTS if name in chosen}, clock, keep)
    except KeyboardInterrupt:
        print(f"gpu-check: interrupted; what was found until then is in {path.name}", file=sys.stderr)
        return 130
    text = tables(content)
    write_atomically(path.with_suffix(".md"), text + "\n")
    print(text)
    if "steps" in content:
        command.write_picture(content["steps"], path.with_suffix(".png"), table.bars)
    print(f"wrote {path.name}")
    failed = any(name in content["errors"] for name in chosen)
    return int(failed or ("tests" in chosen and bool(content.get("tests", {}).get("failed"))))


if __name__ == "__main__":
    sys.exit(main())
