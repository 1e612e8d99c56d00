"""`make crash-test`: the long form, with a report in JSON; it ends with 1 if anything was lost or believed."""

from __future__ import annotations

import argparse
import json
import os
import platform
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from fcnet.files import write_atomically
from fcnet.progress import Bar
from tests.crash import fuzz, parts, proportion
from tests.crash.trial import KINDS, PLAIN, of_a_table

ROOT = Path(__file__).parent.parent.parent
EVERY = 1 << 30


def plan(scale):
    """Part -> tries; None: every one there is. `scale` 1 is the full length."""

    def some(count):
        return max(2, round(count * scale))

    return {
        "kills": (parts.kills, some(1000), "kills, then resumed: the same bits"),
        "calls": (parts.calls, EVERY if scale >= 1 else some(700), "file calls of a save failed, cut short, the last"),
        "header": (parts.header, some(parts.header_bits()), "flipped bits of headers"),
        "flips": (parts.flips, some(100_000), "flipped bits of payloads"),
        "truncations": (parts.truncations, some(parts.lengths()), "lengths"),
        "inputs": (fuzz.inputs, some(1_000_000), "hostile inputs of readers"),
        "full": (parts.full, some(200), "full disks"),
        "threads": (parts.threads, some(20), "trainings without threads"),
        "proportion": (proportion.proportion, EVERY, "files read in time and memory that fit their size"),
        "caches": (parts.caches, some(10_000), "flipped bits in kept kernels"),
    }


def shared(part, count, name):
    """How many tries, what was lost, and what was seen how often, of a part that two processes share."""
    pipes, pids = [], []
    for number in range(fuzz.WORKERS):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            with os.fdopen(write, "w", buffering=1) as out:
                for lost in part(-(-count // fuzz.WORKERS), number):
                    out.write(json.dumps(lost) + "\n")
            os._exit(0)
        os.close(write)
        pipes.append(os.fdopen(read, "rb", buffering=0))
        pids.append(pid)
    tried, lost, seen, open_, rest = 0, [], Counter(), set(pipes), dict.fromkeys(pipes, b"")
    with Bar(name, min(count, 10_000_000), 0, shown=True) as bar:
        while open_:
            for pipe in select.select(list(open_), [], [], 1)[0]:
                piece = pipe.read(1 << 16)
                if not piece:
                    open_.discard(pipe)
                    continue
                *lines, rest[pipe] = (rest[pipe] + piece).split(b"\n")
                tried += len(lines)
                answers = [json.loads(line) for line in lines if line != b"null"]
                lost += [one for one in answers if isinstance(one, str)]
                seen.update(one[0] for one in answers if not isinstance(one, str))
                bar.show(tried)
    for pid in pids:
        if code := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            lost.append(f"a process ended with {code}")
    return tried, lost, dict(sorted(seen.items()))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full length")
    parser.add_argument("--parts", nargs="*", help="some of the parts; the others stay in the report as they are")
    parser.add_argument("--out", type=Path, help="where the report goes (default: nowhere)")
    options = parser.parse_args()
    _warm_up()
    report, failed, head = {}, False, _head(options.scale)
    if options.parts and options.out is not None and options.out.exists():
        report = json.loads(options.out.read_text())["parts"]
    for name, (part, count, what) in plan(options.scale).items():
        if options.parts and name not in options.parts:
            continue
        started = time.perf_counter()
        tried, lost, seen = shared(part, count, name)
        seconds = time.perf_counter() - started
        report[name] = {
            "what": what,
            "tried": tried,
            "lost": len(lost),
            "seconds": round(seconds, 1),
            "first": lost[:5],
            "seen": seen,
            **head,
        }
        if options.out is not None:  # what there is, should a later part be cut short
            write_atomically(options.out, json.dumps({"parts": report}, indent=1) + "\n")
        print(f"{name:12} {tried:9,} {what}: {len(lost)} lost or believed, {seconds:.0f} s", flush=True)
        for line in [*lost[:5], *(f"{times:6,} {what}" for what, times in seen.items())]:
            print(f"    {line}", flush=True)
        failed |= bool(lost) or not tried
    if options.out is not None:
        print(f"wrote {options.out}")
    return int(failed)


def _warm_up():
    """Have all kernels compiled and all modules imported, so that forked processes are killed at work."""
    with tempfile.TemporaryDirectory() as folder:
        for name, kind in KINDS.items():
            if kind.fits():
                kind.training(Path(folder, name)).train()
        of_a_table(Path(folder))
        PLAIN.training()  # so many threads have all parts but where they say otherwise


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
