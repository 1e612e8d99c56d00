"""What runs on a GPU machine, as far as a machine without one can tell: its parts on the CPU, on small sizes."""

from __future__ import annotations

import json

import pytest

from backends import Probe, Status
from benchmarks import ceiling, gpu_check, whole
from benchmarks.peers import CONTENDERS, table
from benchmarks.peers.duel import Effort
from benchmarks.workloads import Workload


def test_parts_are_kept_one_by_one_and_one_that_fails_stops_no_other():
    kept = []

    def fails():
        raise RuntimeError("no such kernel")

    parts = {"tests": lambda: {"run": 3, "failed": 0}, "parity": fails, "steps": lambda: {"rows": []}}
    content = gpu_check.check("cpu", "abc", parts, lambda found: kept.append(json.loads(json.dumps(found))))
    assert [list(found["seconds"]) for found in kept] == [list(parts)[: i + 1] for i in range(3)]
    assert kept[-1] == json.loads(json.dumps(content))
    assert (content["commit"], content["parity"]) == ("abc", {"error": "RuntimeError: no such kernel"})
    assert content["tests"] == {"run": 3, "failed": 0}
    told = gpu_check.tables(content | {"tests": {"error": "x"}, "steps": {"error": "y"}})
    assert told.splitlines() == ["tests failed: x", "parity failed: RuntimeError: no such kernel", "steps failed: y"]


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
        "rows": [row | {"about": {"device_memory": table.WORKSPACE + 4000}}],
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
    monkeypatch.setattr(gpu_check, "workloads_for", lambda device: {"small": small})
    monkeypatch.setattr(gpu_check, "PEERS", [])
    monkeypatch.setattr(gpu_check.compare, "cores", lambda: 1)
    made = gpu_check.steps("cpu", effort)
    assert {row["contender"] for row in made["rows"] if "median_us" in row} >= {"fcnet"}
    assert "small" in table.markdown(made)
