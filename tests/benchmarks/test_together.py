"""Contenders that are built at once: those that are late or fail are told, nobody computes while another is timed."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.clock import Clock
from benchmarks.peers import CONTENDERS, together
from benchmarks.peers.compare_peers import Effort, ratio, take_turns
from benchmarks.peers.naive import Naive
from benchmarks.peers.tuning import Stepper, Strategies
from benchmarks.workloads import Workload
from tests.benchmarks.test_compare import DROPPED, SMALL, NoDropout, Wrong, contender
from tests.needed import HANGS

TOGETHER, MEET = 4, 300  # processes, and seconds until they have met; a busy machine is slow
EFFORT = Effort(rounds=3, scale=1.0, pause=0.0)


class Noted(Naive):
    """Writes down when it is built and when it is timed; none is built before all of `TOGETHER` are being built."""

    def note(self, what, start):
        with open(os.environ["FCNET_TEST_NOTES"], "a", encoding="utf-8") as file:
            file.write(json.dumps([what, start, time.monotonic()]) + "\n")

    def make(self, workload, data, weights, device):
        start = time.monotonic()
        super().make(workload, data, weights, device)
        self.note("begun", start)
        while Path(os.environ["FCNET_TEST_NOTES"]).read_text("utf-8").count('"begun"') < TOGETHER:
            assert time.monotonic() < start + MEET, "the others are not built at the same time"
            time.sleep(0.02)
        self.note("make", start)

    def settle(self):
        start = time.monotonic()
        super().settle()
        time.sleep(0.05)
        self.note("settle", start)

    def many(self, count):
        start = time.monotonic()
        super().many(count)
        time.sleep(0.01)
        self.note("many", start)


class Slow(Naive):
    """Never built."""

    def make(self, workload, data, weights, device):
        time.sleep(600)


def rows_of(nets, contenders, seconds=HANGS, effort=EFFORT):
    said = []
    found = list(
        together.duels(nets, contenders, device="cpu", threads=1, effort=effort, clock=Clock(seconds), say=said.append)
    )
    return [{row["contender"]: row for row in rows} for rows in found], said


def test_all_are_built_at_once_and_timed_alone(tmp_path, monkeypatch):
    notes = tmp_path / "notes"
    monkeypatch.setenv("FCNET_TEST_NOTES", str(notes))
    noted = dataclasses.replace(contender(Noted), target="tests.benchmarks.test_together:Noted")
    twin = dataclasses.replace(noted, name="twin")
    found, said = rows_of([SMALL, dataclasses.replace(SMALL, name="other")], [noted, twin])
    assert all(len(row["rounds_us"]) == 3 for rows in found for row in rows.values())
    spans = [json.loads(line) for line in notes.read_text("utf-8").splitlines()]
    built = [(start, end) for what, start, end in spans if what == "make"]
    assert len(built) == TOGETHER
    assert max(start for start, _ in built) < min(end for _, end in built)
    alone = sorted((start, end) for what, start, end in spans if what not in ("begun", "make"))
    assert max(end for _, end in built) <= alone[0][0]
    assert all(before[1] <= after[0] for before, after in pairwise(alone))
    assert said[0].startswith("building 4 contenders at once")


def test_with_dropout_a_second_net_is_proved():
    here = [CONTENDERS[name] for name in ("fcnet", "naive")]
    (rows,), _ = rows_of([DROPPED], [*here, contender(NoDropout)])
    assert all("median_us" in rows[name] for name in ("fcnet", "naive"))
    assert rows["fcnet"]["loss_difference"] < 1e-5
    assert rows["NoDropout"]["refused"] == "wrong result: dropout changes nothing"


def test_what_is_late_or_wrong_is_told_and_the_others_go_on(monkeypatch):
    slow = dataclasses.replace(contender(Slow), target="tests.benchmarks.test_together:Slow")
    gone = dataclasses.replace(contender(Naive), name="gone", target="tests.no_such_module:Peer")
    wait = together.Side.wait  # for all but the slow one as long as it takes
    monkeypatch.setattr(
        together.Side, "wait", lambda side, clock, say: wait(side, Clock(1.0) if side.name == "Slow" else clock, say)
    )
    (rows,), said = rows_of([SMALL], [CONTENDERS["naive"], slow, contender(Wrong), gone])
    assert rows["Slow"]["kind"] == "late"
    assert "was not built in time; take more --minutes" in rows["Slow"]["refused"]
    assert rows["Wrong"]["kind"] == "wrong"
    assert rows["gone"]["kind"] == "unavailable"
    assert len(rows["naive"]["rounds_us"]) == 3
    assert "small: Slow is not timed: was not built in time" in "\n".join(said)


def test_several_steps_in_a_call_are_for_short_steps():
    short = dataclasses.replace(CONTENDERS["naive"], short=True)
    assert together.suits(short, SMALL)
    long = Workload("long", 3072, (4096,) * 4, 8192, 1)
    assert not together.suits(short, long)
    assert together.suits(CONTENDERS["naive"], long)


@pytest.mark.parametrize(("room", "sizes"), [(0, [3]), (10, [1, 1, 1]), (1 << 40, [3])])
def test_as_many_are_built_at_once_as_have_room(room, sizes):
    nets = [SMALL, dataclasses.replace(SMALL, name="b"), dataclasses.replace(SMALL, name="c")]
    assert [len(group) for group in together.groups(nets, [CONTENDERS["naive"]], room)] == sizes


class Fixed:
    """A worker that takes as long as it says, and writes down what it is asked."""

    def __init__(self, seconds):
        self.seconds, self.asked = seconds, []

    def ask(self, call, steps, warm, limit_s):
        self.asked.append((steps, warm))
        return self.seconds * steps


def test_who_loses_by_far_has_one_round():
    workers = {"fcnet": Fixed(1e-6), "near": Fixed(2e-6), "far": Fixed(9e-6)}
    rows = {name: {"contender": name} for name in workers}
    take_turns(100, workers, rows, Effort(rounds=4, pause=0.0, losing=3.0), lambda name, failure: None, epoch=8)
    assert {name: row["rounds"] for name, row in rows.items()} == {"fcnet": 4, "near": 4, "far": 1}
    assert workers["far"].asked == [(8, 8), (96, 8)]
    assert ratio(list(rows.values()), "far", "fcnet")["ratio"] == 9


class Way(Stepper):
    """One that a test can look at."""

    def __init__(self, seconds=0.0):
        self.seconds, self.resets = seconds, 0

    def __call__(self):
        time.sleep(self.seconds)

    def reset(self):
        self.resets += 1

    def synchronize(self):
        pass


def fails():
    raise RuntimeError("no such option")


def test_the_fastest_way_is_taken_and_what_failed_is_told():
    ways = Strategies({"slow": lambda: Way(0.005), "failed": fails, "fast": Way})
    name, stepper, about = ways.fastest(4)
    assert (name, stepper.resets, about["variant"]) == ("fast", 1, "fast")
    assert "no such option" in about["failed"]["failed"]
    assert ways.fastest(4, "slow")[0] == "slow"
    with pytest.raises(RuntimeError, match="no such option"):
        Strategies({"failed": fails})


def test_no_way_is_begun_when_the_time_for_building_is_over():
    name, _, about = Strategies({"first": lambda: Way(0.01), "second": Way}, limit_s=0.0).fastest(1)
    assert (name, about["no_time_for"]) == ("first", ["second"])


def test_the_parts_of_a_worker_end_with_the_comparison():
    made = together.duels(
        [SMALL, dataclasses.replace(SMALL, name="b")],
        [CONTENDERS["naive"]],
        device="cpu", threads=1, effort=EFFORT, clock=Clock(60),
    )  # fmt: skip
    next(made)
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    before = children.read_text("ascii").split() if children.exists() else []
    made.close()
    after = children.read_text("ascii").split() if children.exists() else []
    assert set(after) < set(before) or not before
