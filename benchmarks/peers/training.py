"""The work of a process for `benchmarks.compare` and its companions: build a peer, prove it, time it; its memory."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import importlib
import importlib.metadata
import math
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.base import Peer
from benchmarks.workloads import Data, Workload, draw, initial, prepared


class Training:
    """Train one workload after the other. Arguments and results are plain values, fit for JSON."""

    peer: Peer

    def load(self, target: str, device: str, packages: Sequence[str], choice: str | None = None) -> dict[str, Any]:
        """Import the framework: how long that took, and its version."""
        if device == "cpu":
            os.environ.setdefault("JAX_PLATFORMS", "cpu")
        start = time.perf_counter()
        module, _, name = target.partition(":")
        self._class = getattr(importlib.import_module(module), name)
        self._device, self._choice = device, choice
        return {"import_s": round(time.perf_counter() - start, 3), "versions": versions(packages)}

    def make(
        self, workload: Mapping[str, Any], limit_s: float | None = None, as_before: bool = False
    ) -> dict[str, Any]:
        """Draw the data and build the net, in place of an earlier one; the fastest way to write it is chosen at once.

        limit_s: the ways are built alone, of which none is begun after so many seconds; `settle` must follow.
        as_before: it is written as the earlier one was.
        """
        if as_before:
            self._choice = self.peer.choice or ""
        self.__dict__.pop("peer", None)
        self._workload = Workload.from_dict(workload)
        data, weights = self._drawn(self._workload), initial(self._workload)
        start = time.perf_counter()
        if limit_s is None:
            self.peer = self._build(self._workload, data, weights, self._choice)
        else:
            self.peer = self._ways(self._workload, data, weights, self._choice, limit_s)
        return {"make_s": round(time.perf_counter() - start, 3), "about": self.peer.about}

    def _drawn(self, workload: Workload) -> Data:
        data = draw(workload)
        return data if self._class.prepares else prepared(workload, data)

    def _build(self, workload: Workload, data: Data, weights: Mapping[str, Any], choice: str | None) -> Peer:
        peer = self._ways(workload, data, weights, choice)
        peer.settle()
        return peer

    def _ways(
        self,
        workload: Workload,
        data: Data,
        weights: Mapping[str, Any],
        choice: str | None,
        limit_s: float = math.inf,
    ) -> Peer:
        peer = self._class()
        peer.choice, peer.limit_s = choice, limit_s
        peer.make(workload, data, weights, self._device)
        return peer

    def settle(self, choice: str | None = None) -> dict[str, Any]:
        """Choose the fastest of the ways built, or this one: its name."""
        self.peer.choice = choice
        self.peer.settle()
        return {"choice": self.peer.choice, "about": self.peer.about}

    def first_losses(self, count: int) -> dict[str, Any]:
        """Return the losses of this very net, and how long the first step took, if that is not known."""
        first = time.perf_counter()
        losses = self.peer.losses(1)
        self.peer.synchronize()
        self.peer.about.setdefault("first_step_s", round(time.perf_counter() - first, 3))
        losses += self.peer.losses(count - 1)
        return {"losses": losses, "about": self.peer.about, "raw_epsilon": self.peer.raw_epsilon}

    def prove(self, count: int) -> dict[str, Any]:
        """Return the first losses; with dropout those of a second net without, since masks differ by contender."""
        found = self.first_losses(count)
        if self._workload.keep < 1:
            plain = dataclasses.replace(self._workload, keep=1.0)
            sure = self._build(plain, self._drawn(plain), initial(plain), self.peer.choice or "")
            found |= {"losses": sure.losses(count), "dropped": found["losses"]}
        return found

    def run(self, steps: int, warm: int) -> float:
        """Return the seconds that so many steps took, after some that are not counted."""
        self.peer.many(warm)
        self.peer.synchronize()
        gc.collect()
        gc.disable()
        start = time.perf_counter()
        self.peer.many(steps)
        self.peer.synchronize()
        seconds = time.perf_counter() - start
        gc.enable()
        return seconds

    def paces(self, steps: int, each: int) -> list[float]:
        """Return the median seconds of a step among the first `each`, the next ones, and so on, of so many."""
        step, taken = self.peer.step, []
        gc.collect()
        for _ in range(steps // each * each):
            start = time.perf_counter()
            step()
            taken.append(time.perf_counter() - start)
        return [statistics.median(taken[at : at + each]) for at in range(0, len(taken), each)]

    def measure_memory(self, workload: Mapping[str, Any], steps: int) -> dict[str, Any]:
        """Measure the peak memory of a training from nothing, above this process after its imports and a training.

        The first training, of the same net, compiles and warms up every kernel; all of it is freed again. The initial
        weights that contenders other than fcnet are given are allocated before and not counted. Not `exact`: the peak
        could not be set back, so it is that of the process's whole life.
        """
        made = Workload.from_dict(workload)
        weights = initial(made) if not self._class.__module__.endswith(".ours") else {}
        imports, choice = resident(), self._choice
        before, exact = 0, False
        for count in (3, steps):
            if count == steps:
                del self.peer
                give_back()
                before, exact = resident(), reset_peak()
            self.peer = self._build(made, self._drawn(made), weights, choice)
            choice = self.peer.choice or ""
            for _ in range(count):  # not `many`, which may gather an epoch's rows at once
                self.peer.step()
            self.peer.synchronize()
        allowed = made.memory
        return {"growth": peak() - before, "allowed": allowed, "imports": imports, "before": before, "exact": exact}


def versions(packages: Sequence[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _status(field: str) -> int:
    """Return bytes from /proc/self/status; 0 where there is none."""
    try:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":")), 0)


def resident() -> int:
    """Return the bytes of memory in use now."""
    return _status("VmRSS")


def peak() -> int:
    """Return the most bytes in use since the last `reset_peak`, or in this process's life."""
    if found := _status("VmHWM"):
        return found
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak() -> bool:
    """Reset the peak of memory; return whether that is possible."""
    try:
        Path("/proc/self/clear_refs").write_text("5", "ascii")
    except OSError:
        return False
    return True


def give_back() -> None:
    """Return freed memory to the system."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):  # not glibc
        return
