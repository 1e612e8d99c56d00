"""Several processes on one machine: children that work on the study until it is done or their parent is gone."""

from __future__ import annotations

import _thread
import contextlib
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, NoReturn

from fcnet.backends import get_backend
from fcnet.runs.options import merged
from fcnet.tools.search import worker
from fcnet.tools.search.optuna_quietly import quietly
from fcnet.tools.search.plan import Plan
from fcnet.tools.search.shared import Shared

_POLL = 0.2  # seconds
_PATIENCE = 30.0  # seconds that a child may take to end after its signal
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def run(plan: Plan, on_update: Callable[[], None]) -> None:
    """Run `plan.jobs` processes on the study; `on_update` is called now and then.

    The processes share the cores: each has its part of the threads unless OMP_NUM_THREADS says otherwise.

    Raises:
        ChildProcessError: one failed and left trials undone; KeyboardInterrupt: passed on, the children have ended.
    """
    if _is_done(plan):
        return
    # What this warns of, the children would say to nobody: their standard error is read only if they fail.
    _ = get_backend(merged(plan.fixed).device).kernels
    # Between our own processes, through a pipe: nothing of others' is unpickled.
    work = pickle.dumps(replace(plan, jobs=1))
    children: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryFile() as errors:
        try:
            for _ in range(plan.jobs):
                children.append(_child(plan.jobs, work, errors))
            while any(child.poll() is None for child in children):
                time.sleep(_POLL)
                on_update()
        finally:
            _end(children)
        codes = [child.returncode for child in children if child.returncode]
        if codes and not _is_done(plan):
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip().splitlines()
            last = said[-1] if said else f"exit code {codes[0]}"
            raise ChildProcessError(f"a process of the search failed: {last}; the same command goes on from here")


def _child(jobs: int, work: bytes, errors: IO[bytes]) -> subprocess.Popen[bytes]:
    root = str(Path(__file__).parents[3])  # this fcnet, wherever it was imported from
    before = os.environ.get("PYTHONPATH")
    environment = os.environ | {"PYTHONPATH": root + (os.pathsep + before if before else "")}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for name in _THREADS:
        environment.setdefault(name, environment.get("OMP_NUM_THREADS", str(max(1, cores // jobs))))
    child = subprocess.Popen(
        [sys.executable, "-c", "from fcnet.tools.search.jobs import main; main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        env=environment,
        start_new_session=True,  # Ctrl-C is the parent's: it closes the pipe, which tells the child
    )
    assert child.stdin is not None  # a pipe was asked for
    try:
        child.stdin.write(len(work).to_bytes(8, "big") + work)
        child.stdin.flush()
    except BrokenPipeError:  # it failed at once, and said why
        pass
    return child


def _end(children: list[subprocess.Popen[bytes]]) -> None:
    """Close the pipes, which ends those that still run; wait."""
    for child in children:
        assert child.stdin is not None  # a pipe was asked for
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
    until = time.monotonic() + _PATIENCE
    for child in children:
        try:
            child.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _is_done(plan: Plan) -> bool:
    rows = Shared(plan, _gone).rows()
    return sum(r.is_over for r in rows) >= plan.trials


def _gone() -> NoReturn:
    raise ChildProcessError("study: expected it where it was made, found none; look after its storage")


def main() -> None:
    """Run a child: read its work and do it until it is done or the pipe is closed."""
    pipe = sys.stdin.buffer
    plan = pickle.loads(pipe.read(int.from_bytes(pipe.read(8), "big")))
    stopped = threading.Event()

    def watch_parent() -> None:
        # Past the buffer: a thread that holds its lock when the interpreter ends makes it abort.
        while os.read(pipe.fileno(), 1):  # ends when the parent closes its end, or is no more
            pass
        stopped.set()
        _thread.interrupt_main()

    threading.Thread(target=watch_parent, daemon=True).start()

    try:
        with quietly():
            shared = Shared(plan, _gone)
            worker.work(shared, worker.load(plan), lambda: None, stopped.is_set)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        sys.exit(str(error) or type(error).__name__)
