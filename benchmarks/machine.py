"""What was measured on: hardware, versions, commit. No host name, no path, no user name."""

from __future__ import annotations

import datetime
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fcnet
from fcnet.backends import probe

ROOT = Path(__file__).resolve().parents[1]
THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def child_environment() -> dict[str, str]:
    """Return this process's environment, in which Python also finds this checkout."""
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path)}


def head(devices: Sequence[str], commit: str | None = None, prefix: str = "") -> dict[str, Any]:
    """Return date, commit and machine, the first fields of a record; a given `commit` replaces git's answer.

    To be called before the run, whose own load comes after it. A machine that is busy is said, after `prefix`.
    """
    sha, dirty = (commit, None) if commit else git_commit()
    found = describe(devices)
    if found["load"] is not None and found["load"] > found["cores"] / 2:
        busy = f"load {found['load']} on {found['cores']} cores"
        print(f"{prefix}the machine is busy ({busy}): the timings will be noisy", file=sys.stderr)
    return {"date": today(), "commit": sha, "dirty": dirty, "machine": found}


def today() -> str:
    """Return the date in UTC, as records have it."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def describe(devices: Iterable[str] = ("cpu",)) -> dict[str, Any]:
    """Return the machine as a flat dictionary; CuPy and the GPU are looked at only if a CUDA device is named."""
    found: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cores": cores(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,  # of the last minute
        "blas_threads": _blas_threads(),
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": _blas(),
        "fcnet": fcnet.__version__,
    }
    used = [int(device.partition(":")[2] or 0) for device in devices if device.startswith("cuda")]
    if used:
        cuda = probe()
        found |= {
            "gpu": [cuda.devices[index] for index in used],
            "driver": _lines("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")[:1],
            "cupy": cuda.versions.cupy,
            "cuda": cuda.versions.runtime,
            "cuda_of_driver": cuda.versions.driver,
        }
        found["driver"] = found["driver"][0] if found["driver"] else None
    return found


def git_commit() -> tuple[str | None, bool | None]:
    """Return the git commit of the tree and whether files other than results differ from it; None: no git."""
    head = _lines("git", "-C", str(ROOT), "rev-parse", "HEAD")
    if not head:
        return None, None
    changed = _lines("git", "-C", str(ROOT), "status", "--porcelain", "--", ".", ":!benchmarks/results")
    return head[0], bool(changed)


def _lines(*command: str) -> list[str]:
    """Return what a command prints, or nothing if it is not there or fails."""
    if shutil.which(command[0]) is None:
        return []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        text = ""
    for line in text.splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    brand = _lines("sysctl", "-n", "machdep.cpu.brand_string")  # macOS
    return brand[0] if brand else platform.processor() or platform.machine()


def _blas() -> str:
    config: Any = np.show_config(mode="dicts")
    blas = config.get("Build Dependencies", {}).get("blas", {})
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".rstrip()


def _blas_threads() -> int | None:
    """Return BLAS's threads as threadpoolctl sees them, else as the environment asks, else None."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        given = [os.environ[name] for name in THREADS if os.environ.get(name, "").isdigit()]
        return int(given[0]) if given else None
    pools = [pool["num_threads"] for pool in threadpool_info() if pool.get("user_api") == "blas"]
    return max(pools, default=None)


def slug() -> str:
    """Return the CPU's name and its cores as a file's name may hold them: "amd-epyc-9b45-2".

    >>> set(slug()) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    True
    """
    name = re.sub(r"\((r|tm)\)|processor|cpu", " ", _cpu_model().lower())
    return "-".join([*re.findall("[a-z0-9]+", name), str(cores())])


if __name__ == "__main__":
    print(slug())
