"""Searches by several processes, and those that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import fcnet
from fcnet.functional import METRICS
from fcnet.tools.search import watch
from fcnet.tools.search.plan import make
from fcnet.tools.search.shared import Shared
from tests.needed import HANGS
from tests.small import blobs
from tests.tools.search.searches import CLI, LR, QUICK, command

optuna = pytest.importorskip("optuna")
ROOT = Path(__file__).parents[2]


def start(before, *arguments):
    """Return the command in a process of its own, after these lines of Python; without pictures."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "FCNET_NUMBA": "0"}
    head = "import os, signal, sys, time, fcnet, optuna\nfrom fcnet.cli import main\nsys.modules['matplotlib'] = None\n"
    return subprocess.Popen(
        [sys.executable, "-c", f"{head}{before}\nsys.exit(main(sys.argv[1:]))", *map(str, arguments)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_killed_search_goes_on(capsys):
    dies = """
make = fcnet.Solver._make_steps
def last(self, most):
    made = make(self, most)
    if self.epoch == 2 and os.path.exists("o/trials/0001/config.toml"):
        os.kill(os.getpid(), signal.SIGKILL)
    return made
fcnet.Solver._make_steps = last
"""
    how = [*CLI, "--no-prune", "--trials", 3, "--out", "o", "--storage", "sqlite:///s.db"]
    process = start(dies, *how)
    assert (process.communicate(timeout=HANGS)[1], process.returncode) == ("", -signal.SIGKILL)
    study = optuna.load_study(study_name="search", storage="sqlite:///s.db")
    assert [t.number for t in study.trials if t.state == optuna.trial.TrialState.RUNNING] == [1]
    assert Path("o/trials/0001/config.toml").exists(), "killed in the middle of a trial"
    code, out, _ = command(*how, capsys=capsys)
    assert code == 0
    assert "3 trials: 3 finished" in out
    assert not Path("o/trials/0001").exists(), "what the killed one left is gone"


def test_two_processes_share_one_study(capsys):
    """Started at once, on a storage that is not there yet."""
    shared = [*CLI, "--trials", 6, "--no-prune", "--out", "o", "--storage", "sqlite:///s.db"]
    meets = "open('{}', 'w').close()\nwhile not os.path.exists('{}'): time.sleep(0.001)"
    # Trials so long that none of the two can make them all while the other one is still importing.
    meets += "\nmake = fcnet.Solver._make_steps"
    meets += "\nfcnet.Solver._make_steps = lambda self, most: (time.sleep(0.02), make(self, most))[1]"
    both = [start(meets.format(me, other), *shared) for me, other in ("ab", "ba")]
    for process in both:
        out, err = process.communicate(timeout=HANGS)
        assert (process.returncode, err) == (0, "")
    study = optuna.load_study(study_name="search", storage="sqlite:///s.db")
    finished = [t for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE]
    assert sorted(t.user_attrs["slot"] for t in finished) == list(range(6)), "each once"
    assert len({t.user_attrs["owner"][1] for t in finished}) == 2, "both took part"
    assert len({t.user_attrs["run"] for t in finished}) == 6
    code, out, _ = command(*shared, capsys=capsys)
    assert (code, out.count("6 trials: 6 finished")) == (0, 1)
    assert [float(line.split()[-1]) for line in out.splitlines()[1:7]] == [
        float(f"{t.params['lr']:.4g}") for t in sorted(finished, key=lambda t: (-t.value, t.number))
    ]
    alone = fcnet.search({"lr": "1e-3:1:log"}, "spirals", trials=6, prune=False, hidden=[6], epochs=3, verbose=False)
    assert {r.values["lr"] for r in alone.trials} == {t.params["lr"] for t in finished}


@pytest.mark.parametrize("storage", ["s.db", "s.journal"])
def test_a_trial_is_taken_once(storage):
    """By two who see it waiting at the same time: SQLite is slow to write what the first one takes."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def slow(connection, cursor, statement, *_):
        if statement.startswith("UPDATE trials"):
            time.sleep(0.1)

    plan = make({"vary": LR, "trials": 2, "storage": storage, "out": "o"}, blobs())
    both = [Shared(plan, lambda: METRICS["softmax"]) for _ in range(2)]
    both[0]._queue_free_slots()
    event.listen(Engine, "before_cursor_execute", slow)
    try:
        with ThreadPoolExecutor(2) as pool:
            taken = list(pool.map(lambda shared: shared.study.ask().number, both))
    finally:
        event.remove(Engine, "before_cursor_execute", slow)
    assert sorted(taken) == [0, 1]


def test_several_jobs_and_a_data_set_of_ones_own(monkeypatch):
    monkeypatch.setenv("FCNET_NUMBA", "0")
    how = {"trials": 2, "prune": False, **QUICK}
    result = fcnet.search(LR, blobs(), jobs=2, out="o", **how)
    assert {r.state for r in result.trials} == {"finished"}
    alone = fcnet.search(LR, blobs(), out="p", **how)
    assert {r.values["lr"] for r in result.trials} == {r.values["lr"] for r in alone.trials}
    assert result.model("cpu").predict(blobs().X_val).shape == (40,)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_jobs_end_with_their_parent_and_say_how_to_go_on(in_a_database, monkeypatch, capsys):
    monkeypatch.setenv("FCNET_NUMBA", "0")
    look, until = watch.Watch.look, time.monotonic() + HANGS

    def interrupt(self):
        look(self)
        if len(list(Path("o").glob("trials/*/config.toml"))) == 2:
            monkeypatch.setattr(watch.Watch, "look", look)
            os.kill(os.getpid(), signal.SIGINT)
        assert time.monotonic() < until

    monkeypatch.setattr(watch.Watch, "look", interrupt)
    endless = [*CLI, "--epochs", 100000, "--batch-size", 2, "--no-prune", "--jobs", 2, "--out", "o"]
    code, _, err = command(*endless, capsys=capsys)
    assert code == 130
    assert err.startswith("fcnet: interrupted after 0 of 20 trials; the same command goes on from there")
    study = optuna.load_study(study_name="search", storage="sqlite:///o/study.db")
    assert not [t for t in study.trials if t.state == optuna.trial.TrialState.RUNNING]
    assert list(Path("o/trials").iterdir()) == []
