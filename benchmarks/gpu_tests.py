"""The tests that need a GPU, in a process of their own, counted; a time limit loses what had not begun, no more."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.clock import Clock

GROUPS: tuple[tuple[str, ...], ...] = (
    ("tests/kernels", "tests/backends", "tests/functional", "tests/optim"),
    ("tests",),
)  # kept one by one; each pays for the start of its processes
PROCESSES = 14
WRITING_S = 15.0  # in which pytest, interrupted, writes what it found


def run_tests(arguments: Sequence[str] = (), limit_s: float | None = None) -> dict[str, Any]:
    """Run tests; return how many ran, failed, were skipped, and which failed. pytest is interrupted after `limit_s`."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "junit.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={result}", *arguments]
        started = time.perf_counter()
        code = _exit_code(command, limit_s)
        seconds = round(time.perf_counter() - started, 1)
        found = {"run": 0, "failed": 0, "skipped": 0, "seconds": seconds, "failures": []}
        ended = f"not done in {limit_s:.0f} s" if code is None else f"pytest exited {code}"
        sound = code in (0, 1, 5)  # passed, failed, none there
        if not result.exists():
            return found | {"failed": 1, "failures": [ended]}
        cases = list(ElementTree.parse(result).iter("testcase"))
    bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    failures = [f"{case.get('classname')}::{case.get('name')}" for case in bad] + ([] if sound else [ended])
    counts = {"run": len(cases) - len(skipped), "failed": len(failures), "skipped": len(skipped)}
    return found | counts | {"failures": failures}


def _exit_code(command: Sequence[str], limit_s: float | None) -> int | None:
    """Return the exit code; None if it was not done in time."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # one that is ignored is inherited
    try:
        process = subprocess.Popen(command, cwd=machine.ROOT)
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(WRITING_S)
        except subprocess.TimeoutExpired:
            process.kill()
        return None
    finally:
        process.kill()  # if this process was interrupted
        process.wait()


def run_groups(clock: Clock, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Run all tests that need a GPU, group after group, by several processes where pytest-xdist is installed."""
    many = importlib.util.find_spec("xdist") is not None
    count = min(PROCESSES, machine.cores())
    workers = ["-n", str(count), "--dist", "worksteal", "-p", "no:benchmark"] if many else []
    total: dict[str, Any] = {"run": 0, "failed": 0, "skipped": 0, "seconds": 0.0, "failures": [], "left_out": []}
    done: list[str] = []
    for group in GROUPS:
        if clock.left() < 5:
            total["left_out"] += group
            continue
        others = [f"--ignore={path}" for path in done]
        found = run_tests(["-m", "gpu and not slow", *workers, *group, *others], clock.left())
        done += group
        total = {name: value + found.get(name, type(value)()) for name, value in total.items()}
        keep(total)
    return total
