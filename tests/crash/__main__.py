"""`make crash-test`: the long form, with a report in JSON; it ends with 1 if anything was lost or believed."""

from __future__ import annotations

import argparse
import json
import os
import platform
import select
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from fcnet.files import write_atomically
from fcnet.progress import Bar
from tests.crash import fuzz, parts
from tests.crash.trial import training

ROOT = Path(__file__).parent.parent.parent
EVERY = 1 << 30


def plan(scale):
    """Part -> tries; None: every one there is. `scale` 1 is the full length."""

    def some(count):
        return max(2, round(count * scale))

    return {
        "kills": (parts.kills, some(1000), "kills, then resumed: the same bits"),
        "calls": (parts.calls, EVERY if scale >= 1 else some(600), "file calls of a save failed, cut short, the last"),
        "header": (parts.header, some(parts.header_bits()), "flipped bits of headers"),
        "flips": (parts.flips, some(100_000), "flipped bits of payloads"),
        "truncations": (parts.truncations, some(parts.lengths()), "lengths"),
        "inputs": (fuzz.inputs, some(1_000_000), "hostile inputs of readers"),
        "full": (parts.full, some(200), "full disks"),
        "threads": (parts.threads, some(20), "trainings without threads"),
        "caches": (parts.caches, some(10_000), "flipped bits in kept kernels"),
    }


def shared(part, count, name):
    """Tries and what was lost, of a part that two processes share."""
    pipes, pids = [], []
    for number in range(fuzz.WORKERS):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            with os.fdopen(write, "w", buffering=1) as out:
                share = count if count == EVERY else -(-count // fuzz.WORKERS)
                for at, lost in enumerate(part(share, number)):
                    if count == EVERY and at % fuzz.WORKERS != number:
                        continue
                    out.write(json.dumps(lost) + "\n")
            os._exit(0)
        os.close(write)
        pipes.append(os.fdopen(read, "rb", buffering=0))
        pids.append(pid)
    tried, lost, open_, rest = 0, [], set(pipes), dict.fromkeys(pipes, b"")
    with Bar(name, min(count, 10_000_000), 0, shown=True) as bar:
        while open_:
            for pipe in select.select(list(open_), [], [], 1)[0]:
                piece = pipe.read(1 << 16)
                if not piece:
                    open_.discard(pipe)
                    continue
                *lines, rest[pipe] = (rest[pipe] + piece).split(b"\n")
                tried += len(lines)
                lost += [json.loads(line) for line in lines if line != b"null"]
                bar.show(tried)
    for pid in pids:
        if code := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            lost.append(f"a process ended with {code}")
    return tried, lost


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full length")
    parser.add_argument("--parts", nargs="*", help="some of the parts")
    parser.add_argument("--out", type=Path, help="where the report goes (default: nowhere)")
    options = parser.parse_args()
    training().train()  # so that all kernels are compiled
    report, failed = {}, False
    for name, (part, count, what) in plan(options.scale).items():
        if options.parts and name not in options.parts:
            continue
        started = time.perf_counter()
        tried, lost = shared(part, count, name)
        seconds = time.perf_counter() - started
        report[name] = {
            "what": what,
            "tried": tried,
            "lost": len(lost),
            "seconds": round(seconds, 1),
            "first": lost[:5],
        }
        print(f"{name:12} {tried:9,} {what}: {len(lost)} lost or believed, {seconds:.0f} s", flush=True)
        for line in lost[:5]:
            print(f"    {line}")
        failed |= bool(lost) or not tried
    if options.out is not None:
        write_atomically(options.out, json.dumps(_head(options.scale) | {"parts": report}, indent=1) + "\n")
        print(f"wrote {options.out}")
    return int(failed)


def _head(scale):
    def git(*words):
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    return {
        "commit": git("rev-parse", "HEAD"),
        "changed": bool(git("status", "--porcelain", "--untracked-files=no")),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "scale": scale,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": platform.machine(),
    }


if __name__ == "__main__":
    sys.exit(main())
