"""One run of the benchmark under pytest, within this process."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import report
from benchmarks.grid import Grid

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


class Interrupted(Exception):
    """Signal Ctrl-C."""


class Session:
    """Hand the grid to pytest as a plugin, show progress, keep refusals and failures, and count what passed."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.refused: dict[tuple, report.Row] = {}
        self.failures: list[str] = []
        self._tests_per_size = len(grid.contenders()) * grid.passes
        self._tests = self.passed = 0
        self._bar = tqdm(total=len(grid.sizes()), unit="size", dynamic_ncols=True, mininterval=0.5)

    def pytest_configure(self, config: Any) -> None:
        config.fcnet_grid = self.grid

    def pytest_benchmark_generate_machine_info(self) -> dict[str, Any]:
        return {"node": ""}  # benchmarks.machine says more about the machine, and not its name

    def pytest_benchmark_generate_commit_info(self) -> dict[str, Any]:
        return {}

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._bar.set_postfix_str(nodeid.partition("[")[2].partition("-pass")[0], refresh=False)

    def pytest_runtest_logfinish(self) -> None:
        self._tests += 1
        if self._tests % self._tests_per_size == 0:
            self._bar.update()

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.passed += report.when == "call" and report.passed
        if not report.failed:
            return
        rows = [value for name, value in report.user_properties if name == "refused"]
        if not rows:
            self.failures.append(report.longreprtext)
        for row in rows:
            if _key(row) not in self.refused:
                self.refused[_key(row)] = row
                self._bar.write(f"not timed: {' '.join(map(str, _key(row)))}: {row['refused']}", file=sys.stderr)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.failures.append(report.longreprtext)

    def close(self) -> None:
        self._bar.close()


def _key(row: report.Row) -> tuple:
    return tuple(row[name] for name in report.KEY)


@contextlib.contextmanager
def _no_worker() -> Iterator[None]:
    """Keep pytest-benchmark from taking this process for a worker of pytest-xdist, where it times nothing."""
    worker = os.environ.pop("PYTEST_XDIST_WORKER", None)
    try:
        yield
    finally:
        if worker is not None:
            os.environ["PYTEST_XDIST_WORKER"] = worker


def measure(grid: Grid) -> list[report.Row]:
    """Run the benchmark under pytest; a row for every device and variant at every size.

    Raises:
        RuntimeError: something else than a kernel went wrong. Interrupted: by the user.
    """
    import pytest

    session, printed = Session(grid), io.StringIO()
    with tempfile.TemporaryDirectory(prefix="fcnet-benchmark-") as folder:
        target = Path(folder, "measured.json")
        options = [
            *("-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), "-q", "-s", "-W", "ignore"),
            *("-p", "no:cacheprovider", "--benchmark-quiet", f"--benchmark-json={target}"),
            f"--benchmark-storage=file://{folder}/saved",
        ]
        try:
            with contextlib.redirect_stdout(printed), _no_worker():
                code = pytest.main([*options, str(HERE / "bench_kernels.py")], plugins=[session])
        finally:
            session.close()
        if code == pytest.ExitCode.INTERRUPTED and not session.failures:
            raise Interrupted
        if session.failures or code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            raise RuntimeError("\n".join(dict.fromkeys(session.failures)) or printed.getvalue())
        # Without any benchmark that ran, pytest-benchmark writes an empty file or none.
        text = target.read_text("utf-8") if target.exists() else ""
    rows = report.rows_from(json.loads(text)) if text else []
    order = [(*size, *who) for size in grid.sizes() for who in grid.contenders()]
    return sorted([*rows, *session.refused.values()], key=lambda row: order.index(_key(row)))
