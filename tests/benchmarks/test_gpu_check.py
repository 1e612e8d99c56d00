"""What runs on a GPU machine, as far as a machine without one can tell: its parts on the CPU, on small sizes."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest

from benchmarks import ceiling, gpu_check, whole
from benchmarks.peers import CONTENDERS, table
from benchmarks.peers.duel import Effort
from benchmarks.workloads import Workload
from fcnet.backends import Probe, Status

HEAD = {"commit": "abc", "gpu": {"name": "G"}, "seconds": {}, "errors": {}}


def test_parts_are_kept_piece_by_piece_and_one_that_fails_stops_no_other():
    kept = []

    def fails(keep):
        raise RuntimeError("no such kernel")

    def steps(keep):
        keep({"rows": [1]})
        return {"rows": [1, 2]}

    parts = {"tests": lambda keep: {"run": 3, "failed": 0}, "parity": fails, "steps": steps}
    clock = gpu_check.Clock(1)
    content = gpu_check.check(
        copy.deepcopy(HEAD), parts, clock, lambda found: kept.append(json.loads(json.dumps(found)))
    )
    assert [list(found["seconds"]) for found in kept] == [[*parts][:1], [*parts][:2], [*parts][:2], [*parts]]
    assert [found.get("steps") for found in kept] == [None, None, {"rows": [1]}, {"rows": [1, 2]}]
    assert kept[-1] == json.loads(json.dumps(content))
    assert (content["commit"], content["errors"]) == ("abc", {"parity": "RuntimeError: no such kernel"})
    assert content["tests"] == {"run": 3, "failed": 0}
    told = gpu_check.tables({"errors": content["errors"] | {"tests": "x", "steps": "y"}})
    assert told.splitlines() == ["steps failed: y", "parity failed: RuntimeError: no such kernel", "tests failed: x"]


def test_no_part_begins_when_the_time_is_over_and_what_was_found_before_stays():
    begun = copy.deepcopy(HEAD) | {"steps": 7}
    content = gpu_check.check(begun, {"steps": lambda keep: 1}, gpu_check.Clock(0), lambda found: None)
    assert content["steps"] == 7
    assert content["errors"] == {"steps": "TimeoutError: no time was left; run it alone: --parts steps"}
    content = gpu_check.check(content, {"steps": lambda keep: 1}, gpu_check.Clock(1), lambda found: None)
    assert (content["steps"], content["errors"]) == (1, {})


def test_workloads_are_added_to_those_of_an_earlier_command():
    def steps(names, left, version):
        rows = [{"workload": name, "us": version} for name in names]
        workloads = [{"name": name} for name in names]
        return {"workloads": workloads, "rows": rows, "ratios": rows, "versions": {"v": version}, "left_out": left}

    both = gpu_check.merged(steps(["a", "b"], ["c", "d"], 1), steps(["b", "c"], ["a", "d"], 2))
    assert [(row["workload"], row["us"]) for row in both["rows"]] == [("a", 1), ("b", 2), ("c", 2)]
    assert both["ratios"] == both["rows"]
    assert ([w["name"] for w in both["workloads"]], both["left_out"]) == (["a", "b", "c"], ["d"])
    assert gpu_check.merged({"run": 1}, {"run": 2}) == {"run": 2}


def test_a_second_command_adds_to_the_first(tmp_path):
    file, other = tmp_path / "a.json", tmp_path / "b.json"
    file.write_text(json.dumps(HEAD | {"steps": 1}))
    other.write_text("no JSON")
    assert gpu_check.earlier(HEAD, [other, tmp_path / "none", file]) == HEAD | {"steps": 1}
    assert gpu_check.earlier(HEAD | {"commit": "def"}, [file]) == HEAD | {"commit": "def"}
    assert gpu_check.earlier(HEAD | {"gpu": {"name": "H"}}, [file]) == HEAD | {"gpu": {"name": "H"}}


def test_parity_is_told_by_rule():
    rows = gpu_check.parity("cpu")
    assert {(row["dtype"], row["rule"]) for row in rows} >= {("float64", "adam"), ("float32", "sgd")}
    assert all(row["max_relative_difference"] == 0 for row in rows)


def test_tests_are_counted(tmp_path):
    (tmp_path / "test_three.py").write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): assert 0\n"
        "@pytest.mark.skip(reason='no')\n"
        "def test_skipped(): pass\n"
    )
    found = gpu_check.run_tests(
        [str(tmp_path), "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "-c", "/dev/null"]
    )
    assert (found["run"], found["failed"], found["skipped"]) == (2, 1, 1)
    assert found["failures"] == ["test_three::test_bad"]


def test_tests_that_take_too_long_are_given_up(tmp_path):
    (tmp_path / "test_slow.py").write_text("import time\ndef test_slow(): time.sleep(60)\n")
    found = gpu_check.run_tests([str(tmp_path), "-p", "no:cacheprovider", "-c", "/dev/null"], 1.5)
    assert (found["run"], found["failed"], found["failures"]) == (0, 1, ["not done in 2 s"])


def test_groups_of_tests_are_added_up_and_told_of_when_left_out(monkeypatch):
    asked, kept = [], []

    def run(arguments, limit_s):
        asked.append(arguments)
        return {"run": 2, "failed": 1, "skipped": 0, "seconds": 1.5, "failures": ["a"]}

    monkeypatch.setattr(gpu_check, "run_tests", run)
    monkeypatch.setattr(gpu_check, "GROUPS", ("tests/optim", "tests"))
    total = gpu_check.tests(gpu_check.Clock(1), kept.append)
    assert (total["run"], total["failed"], total["failures"], len(kept)) == (4, 2, ["a", "a"], 2)
    assert asked[1][-2:] == ["tests", "--ignore=tests/optim"]
    assert gpu_check.tests(gpu_check.Clock(0), kept.append)["left_out"] == ["tests/optim", "tests"]


def test_no_gpu_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr(gpu_check, "probe", lambda: Probe(Status.NO_DRIVER_OR_DEVICE, "no driver", "install one"))
    assert gpu_check.main([]) == 2
    assert capsys.readouterr().err == "gpu-check: no GPU can be used: no driver; install one\n"
    assert gpu_check.main(["--parts", "stesp"]) == 2
    assert "did you mean 'steps'?" in capsys.readouterr().err


def test_the_ceiling_of_a_device():
    found = ceiling.measure("cpu", side=64)
    assert list(found["flops"]) == ["float32"]
    assert found["flops"]["float32"] > 0
    assert found["bytes"] > 0


def test_shares_of_the_ceiling_are_in_the_table():
    workload = Workload("large", 8, (8,), 4, 1, goal=1.0, goal_ceiling=0.85)
    row = {"workload": "large", "contender": "fcnet", "median_us": 1.0, "iqr_us": 0.1, "rounds_us": [1.0]}
    record = {
        "ceiling": {"side": 8192, "flops": {"float32": workload.flops / 1e-6 * 1.25}, "bytes": 4e12},
        "memory": [],
        "workloads": [workload.to_dict()],
        "rows": [row | {"about": {"device_memory": table.STREAMS * table.WORKSPACE + 4000}}],
        "ratios": [],
    }
    text = "\n".join(table._of_ceiling(record))
    assert "a copy: 4000 GB/s" in text
    assert f"| large | 0.80 | 0.85 | missed | {4000 / workload.device_memory:.2f} |" in text


def test_every_peer_of_a_gpu_is_among_the_contenders():
    assert {"torch", "torch-compile", "torch-graph", "jax"} <= {n for n, c in CONTENDERS.items() if "cuda" in c.devices}


def test_a_whole_training_is_timed_to_its_accuracy(monkeypatch):
    monkeypatch.setattr(whole, "ROUNDS", 1)
    commands = whole.commands

    def only_ours(*arguments):
        made = commands(*arguments)
        return {"fcnet": made["fcnet"], "torch": [*made["torch"][:2], "benchmarks.peers.no_such_module"]}

    monkeypatch.setattr(whole, "commands", only_ours)
    made = whole.record("cpu", 1, rows=300, test=60, epochs=1)
    ours, theirs = made["rows"]
    assert 0.1 < ours["accuracy"] <= 1
    assert len(ours["seconds"]) == 1
    assert "no_such_module" in theirs["refused"]
    assert made["ratio"] is None
    assert "| fcnet |" in whole.markdown(made)


@pytest.mark.parametrize("effort", [Effort(rounds=2, scale=0.01, pause=0.0)])
def test_steps_are_compared(effort, monkeypatch):
    small = Workload("small", 6, (5,), 8, 10, outputs=3, rows=40)
    known = {"small": small, "later": dataclasses.replace(small, name="later")}
    monkeypatch.setattr(gpu_check, "workloads_for", lambda device: known)
    monkeypatch.setattr(gpu_check, "PEERS", [])
    monkeypatch.setattr(gpu_check.machine, "cores", lambda: 1)
    kept = []
    made = gpu_check.steps("cpu", effort, "abc", [], gpu_check.Clock(0), kept.append)
    assert {row["contender"] for row in made["rows"] if "median_us" in row} >= {"fcnet"}
    assert (made["commit"], made["left_out"], len(kept)) == ("abc", ["later"], 1)
    assert "small" in table.markdown(made)
    made = gpu_check.steps("cpu", effort, "abc", ["later"], gpu_check.Clock(1), kept.append)
    assert ([w["name"] for w in made["workloads"]], made["left_out"]) == (["later"], [])
