"""The parent's side of the contenders' processes: start, ask with a time limit, stop; one that fails harms no other."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.machine import THREADS, child_environment


class Failure(Exception):
    """Signal that a worker has no answer; `kind` is "unavailable", "unsupported", "failed" or "crashed"."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class Worker:
    """Run a process that makes one object and calls its methods on request; it blocks on its pipe in between."""

    def __init__(self, job: str, threads: int, environment: Mapping[str, str] | None = None) -> None:
        """Start it. `job` is module:Class; `environment` is added to this process's."""
        numbers = dict.fromkeys((*THREADS, "NUMBA_NUM_THREADS", "FCNET_BENCH_THREADS"), str(threads))
        variables = child_environment() | numbers | dict(environment or {})
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peers.worker", job],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=variables,
            bufsize=0,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then stops the workers
        )
        self._unread = b""

    def ask(self, call: str, *, limit_s: float = 600, **arguments: Any) -> Any:
        """Call a method over there.

        Raises:
            Failure: it raised, the process ended, or there was no answer in `limit_s` seconds.
        """
        self.post(call, **arguments)
        return self.answer(call, limit_s)

    def post(self, call: str, **arguments: Any) -> None:
        """Ask without waiting; `answer` must follow. Raises Failure if the process has ended."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"call": call, "arguments": arguments}).encode() + b"\n")
        except OSError:
            raise self._crashed() from None

    def answer(self, call: str, limit_s: float = 600) -> Any:
        """Return what comes back of `call`, posted before. Raises Failure as `ask` does."""
        answer = json.loads(self._line(call, limit_s))
        if "error" in answer:
            raise Failure(answer["error"], answer["kind"])
        return answer["result"]

    def _line(self, call: str, limit_s: float) -> bytes:
        assert self._process.stdout is not None
        end = time.monotonic() + limit_s
        while b"\n" not in self._unread:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise Failure(f"no answer to {call!r} in {limit_s:g} s", "crashed")
            part = os.read(self._process.stdout.fileno(), 1 << 16)
            if not part:
                raise self._crashed()
            self._unread += part
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _crashed(self) -> Failure:
        """Return how the process ended, with the last line it printed."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        code = self._process.poll()
        if code is not None and code < 0:
            how = f"the process was ended by {signal.Signals(-code).name}"
        else:
            how = "the process stopped answering" if code is None else f"the process exited with code {code}"
        self._errors.seek(0)
        said = [line.strip() for line in self._errors.read().decode("utf-8", "replace").splitlines() if line.strip()]
        return Failure(how + (f": {said[-1][:200]}" if said else ""), "crashed")

    def close(self) -> None:
        """End the process, whatever it is doing."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # its compiler's child processes too
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def stopped_cleanly() -> Iterator[None]:
    """Make SIGTERM unwind like Ctrl-C, so that the workers are stopped too."""

    def interrupt(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
