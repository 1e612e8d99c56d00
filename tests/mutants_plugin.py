"""What pytest does for `tests.mutants`: note which tests execute which lines, or run chosen tests in an order.

Loaded with -p; what it is to do stands in the environment.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

#: A folder for the coverage data and the tests' times, and the files to be covered, one a line.
MAP, COVERED = "FCNET_MUTANTS_MAP", "FCNET_MUTANTS_COVERED"
#: JSON: `tests` to run in this order, and the `seconds` of processor time after which no other test begins.
CHOICE = "FCNET_MUTANTS_CHOICE"


def processor_seconds() -> float:
    """Processor time of this process and of those that it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class Mapping:
    """Notes for each test the lines that it executes, its time and whether it passed."""

    def __init__(self, folder: Path, covered: list[str]) -> None:
        from coverage import Coverage

        self.folder = folder
        self.coverage = Coverage(
            data_file=str(folder / "coverage"), data_suffix=f"{os.getpid()}", include=covered, config_file=False
        )
        self.coverage.start()
        self.tests: dict[str, float] = {}
        self.failed: list[str] = []

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        self.coverage.switch_context(item.nodeid)
        before = processor_seconds()
        yield
        self.tests[item.nodeid] = round(processor_seconds() - before, 3)
        self.coverage.switch_context("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        self.coverage.stop()
        self.coverage.save()
        if self.tests:  # not where others run them
            notes = {"tests": self.tests, "failed": self.failed}
            (self.folder / f"tests-{os.getpid()}.json").write_text(json.dumps(notes), "utf-8")


class Choice:
    """Runs some tests in a given order, as long as there is time; says in the same file what became of it."""

    def __init__(self, file: Path) -> None:
        self.file = file
        choice = json.loads(file.read_text("utf-8"))
        self.order = {name: place for place, name in enumerate(choice["tests"])}
        self.seconds = choice["seconds"]
        self.began = processor_seconds()
        self.ran = 0
        self.failed: list[str] = []
        self.out_of_time = False

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((item for item in items if item.nodeid in self.order), key=lambda i: self.order[i.nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        self.ran += 1
        if processor_seconds() - self.began > self.seconds:
            self.out_of_time = True
            item.session.shouldstop = "out of time"

    def pytest_sessionfinish(self) -> None:
        said = {"ran": self.ran, "failed": self.failed, "out_of_time": self.out_of_time, "seconds": processor_seconds()}
        self.file.with_suffix(".said").write_text(json.dumps(said), "utf-8")


def pytest_configure(config: pytest.Config) -> None:
    if MAP in os.environ:
        covered = Path(os.environ[COVERED]).read_text("utf-8").split("\n")
        config.pluginmanager.register(Mapping(Path(os.environ[MAP]), covered))
    if CHOICE in os.environ:
        config.pluginmanager.register(Choice(Path(os.environ[CHOICE])))
