"""What runs on a GPU machine, as far as a machine without one can tell: its parts on the CPU, on small sizes."""

from __future__ import annotations

import copy
import dataclasses
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import fcnet
from benchmarks import calls, ceiling, clock, end_to_end, gpu_check, gpu_tests, kernels, own
from benchmarks.clock import Clock, deadlines
from benchmarks.grid import GRIDS
from benchmarks.peers import CONTENDERS, table
from benchmarks.peers.compare_peers import Effort
from benchmarks.workloads import Workload
from fcnet.backends import Probe, Status, get_backend
from fcnet.backends.device import Call
from tests.backends.cuda_fake import fake_backend, fake_cublas, fake_cupy
from tests.small import blobs

HEAD = {"commit": "abc", "gpu": {"name": "G"}, "seconds": {}, "errors": {}}


def test_parts_are_kept_piece_by_piece_and_one_that_fails_stops_no_other():
    kept = []

    def fails(keep, clock):
        raise RuntimeError("no such kernel")

    def peers(keep, clock):
        keep({"rows": [1]})
        return {"rows": [1, 2]}

    parts = {"tests": lambda keep, clock: {"run": 3, "failed": 0}, "parity": fails, "peers": peers}
    content = gpu_check.check(
        copy.deepcopy(HEAD), parts, Clock(60), lambda found: kept.append(json.loads(json.dumps(found)))
    )
    assert [list(found["seconds"]) for found in kept] == [[*parts][:1], [*parts][:2], [*parts][:2], [*parts]]
    assert [found.get("peers") for found in kept] == [None, None, {"rows": [1]}, {"rows": [1, 2]}]
    assert kept[-1] == json.loads(json.dumps(content))
    assert (content["commit"], content["errors"]) == ("abc", {"parity": "RuntimeError: no such kernel"})
    assert content["tests"] == {"run": 3, "failed": 0}
    told = gpu_check.tables({"errors": content["errors"] | {"tests": "x", "own": "y"}})
    assert told.splitlines() == ["own failed: y", "tests failed: x", "parity failed: RuntimeError: no such kernel"]


def test_no_part_begins_when_the_time_is_over_and_what_was_found_before_stays():
    begun = copy.deepcopy(HEAD) | {"own": 7}
    content = gpu_check.check(begun, {"own": lambda keep, clock: 1}, Clock(0), lambda found: None)
    assert content["own"] == 7
    assert content["errors"] == {"own": "TimeoutError: no time was left; run it alone: --parts own"}
    content = gpu_check.check(content, {"own": lambda keep, clock: 1}, Clock(60), lambda found: None)
    assert (content["own"], content["errors"]) == (1, {})


def test_every_part_has_its_share_and_what_those_before_it_left(monkeypatch):
    monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=lambda: 0.0))
    given = {}

    def part(name):
        def run(keep, clock):
            given[name] = clock.left()

        return run

    parts = {name: part(name) for name in ("own", "peers")}
    gpu_check.check(copy.deepcopy(HEAD), parts, Clock(245), lambda found: None)
    assert given["own"] == pytest.approx(75)
    assert given["peers"] == pytest.approx(245)
    assert list(gpu_check.SHARES) == ["own", "tests", "parity", "peers", "training", "kernels"]
    assert sum(gpu_check.SHARES.values()) <= 60 * gpu_check.MINUTES
    assert deadlines({"a": 1, "b": 3}, 60) == {"a": 15, "b": 60}


def test_workloads_are_added_to_those_of_an_earlier_command():
    def peers(names, left, version):
        rows = [{"workload": name, "us": version} for name in names]
        workloads = [{"name": name} for name in names]
        return {"workloads": workloads, "rows": rows, "ratios": rows, "versions": {"v": version}, "left_out": left}

    both = gpu_check.merged(peers(["a", "b"], ["c", "d"], 1), peers(["b", "c"], ["a", "d"], 2))
    assert [(row["workload"], row["us"]) for row in both["rows"]] == [("a", 1), ("b", 2), ("c", 2)]
    assert both["ratios"] == both["rows"]
    assert ([w["name"] for w in both["workloads"]], both["left_out"]) == (["a", "b", "c"], ["d"])
    assert gpu_check.merged({"run": 1}, {"run": 2}) == {"run": 2}
    first, second = ({"workloads": [{"name": n}], "rows": [], "calls": [{"workload": n}], "left_out": []} for n in "ab")
    assert [row["workload"] for row in gpu_check.merged(first, second)["calls"]] == ["a", "b"]


def test_a_second_command_adds_to_the_first(tmp_path):
    file, other = tmp_path / "a.json", tmp_path / "b.json"
    file.write_text(json.dumps(HEAD | {"peers": 1}))
    other.write_text("no JSON")
    assert gpu_check.earlier(HEAD, [other, tmp_path / "none", file]) == HEAD | {"peers": 1}
    assert gpu_check.earlier(HEAD | {"commit": "def"}, [file]) == HEAD | {"commit": "def"}
    assert gpu_check.earlier(HEAD | {"gpu": {"name": "H"}}, [file]) == HEAD | {"gpu": {"name": "H"}}


def test_parity_is_told_by_rule():
    kept = []
    found = gpu_check.parity("cpu", Clock(600), lambda found: kept.append(len(found["rows"])))
    rows = found["rows"]
    assert (kept, found["left_out"]) == ([*range(1, len(rows) + 1)], [])
    assert {(row["dtype"], row["rule"]) for row in rows} >= {("float64", "adam"), ("float32", "sgd")}
    assert all(row["max_relative_difference"] == 0 for row in rows)
    late = gpu_check.parity("cpu", Clock(0), kept.append)
    assert "float64 adam" in late["left_out"]
    assert "no time was left for the parity of float64 adam" in gpu_check.tables({"errors": {}, "parity": late})


def test_tests_are_counted(tmp_path):
    (tmp_path / "test_three.py").write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): assert 0\n"
        "@pytest.mark.skip(reason='no')\n"
        "def test_skipped(): pass\n"
    )
    found = gpu_tests.run_tests(
        [str(tmp_path), "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "-c", "/dev/null"]
    )
    assert (found["run"], found["failed"], found["skipped"]) == (2, 1, 1)
    assert found["failures"] == ["test_three::test_bad"]


def test_tests_that_take_too_long_are_given_up_and_those_before_counted(tmp_path):
    (tmp_path / "test_slow.py").write_text(
        "import time\n"
        "def test_fast(): pass\n"
        "def test_slow():\n"
        f"    open({str(tmp_path / 'begun')!r}, 'w')\n"
        "    time.sleep(60)\n"
    )
    found = gpu_tests.run_tests([str(tmp_path), "-p", "no:cacheprovider", "-c", "/dev/null"], 6)
    assert (tmp_path / "begun").exists()
    assert found["run"] >= 1  # pytest may count the one that it was in
    assert (found["failed"], found["failures"]) == (1, ["not done in 6 s"])


def test_groups_of_tests_are_added_up_and_told_of_when_left_out(monkeypatch):
    asked, kept = [], []

    def run(arguments, limit_s):
        asked.append(arguments)
        return {"run": 2, "failed": 1, "skipped": 0, "seconds": 1.5, "failures": ["a"]}

    monkeypatch.setattr(gpu_tests, "run_tests", run)
    monkeypatch.setattr(gpu_tests, "GROUPS", (("tests/optim", "tests/kernels"), ("tests",)))
    total = gpu_tests.run_groups(Clock(60), kept.append)
    assert (total["run"], total["failed"], total["failures"], len(kept)) == (4, 2, ["a", "a"], 2)
    assert asked[0][-2:] == ["tests/optim", "tests/kernels"]
    assert asked[1][-3:] == ["tests", "--ignore=tests/optim", "--ignore=tests/kernels"]
    assert gpu_tests.run_groups(Clock(0), kept.append)["left_out"] == ["tests/optim", "tests/kernels", "tests"]


def test_the_groups_of_tests_are_there():
    assert all((gpu_tests.machine.ROOT / path).is_dir() for group in gpu_tests.GROUPS for path in group)


def test_no_gpu_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr(gpu_check, "probe", lambda: Probe(Status.NO_DRIVER_OR_DEVICE, "no driver", "install one"))
    assert gpu_check.main([]) == 2
    assert capsys.readouterr().err == "gpu-check: no GPU can be used: no driver; install one\n"
    assert gpu_check.main(["--parts", "pears"]) == 2
    assert "did you mean 'peers'?" in capsys.readouterr().err


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
    found = {name for name, contender in CONTENDERS.items() if "cuda" in contender.devices}
    assert {"torch", "torch-compile", "torch-graph", "torch-steps", "jax", "jax-scan"} <= found


def test_a_whole_training_is_timed_to_its_accuracy(monkeypatch):
    commands = end_to_end.commands

    def only_ours(*arguments):
        made = commands(*arguments)
        return {"fcnet": made["fcnet"], "torch": [*made["torch"][:2], "benchmarks.peers.no_such_module"]}

    monkeypatch.setattr(end_to_end, "commands", only_ours)
    made = end_to_end.record("cpu", 1, rows=300, test=60, epochs=1, rounds=1)
    ours, theirs = made["rows"]
    assert 0.1 < ours["accuracy"] <= 1
    assert len(ours["seconds"]) == 1
    assert "no_such_module" in theirs["refused"]
    assert made["ratio"] is None
    assert "| fcnet |" in end_to_end.markdown(made)
    late = end_to_end.record("cpu", 1, rows=300, test=60, epochs=1, rounds=1, clock=Clock(0.5))
    assert "not done in" in late["rows"][0]["late"]
    assert "| fcnet | not done in" in end_to_end.markdown(late)


SMALL = Workload("small", 6, (5,), 8, 10, outputs=3, rows=40)
EFFORT = Effort(rounds=2, scale=0.01, pause=0.0, losing=1e6)


def test_steps_are_compared(monkeypatch):
    monkeypatch.setattr(gpu_check, "PEERS", [])
    monkeypatch.setattr(gpu_check.machine, "cores", lambda: 1)
    nets, kept = [SMALL, dataclasses.replace(SMALL, name="later")], []
    ceiling = {"side": 1, "flops": {"float32": 1e9}, "bytes": 1e9}
    made = gpu_check.peers("cpu", EFFORT, "abc", nets, Clock(120), kept.append, ceiling)
    assert {row["contender"] for row in made["rows"] if "median_us" in row} >= {"fcnet"}
    assert (made["commit"], made["left_out"], len(kept)) == ("abc", [], 2)
    assert "1.0 TFLOP/s" not in table.markdown(made)
    assert "random 1 x 1 matrices" in table.markdown(made)


def test_own_steps_are_timed_and_taken_apart():
    normed = dataclasses.replace(SMALL, name="normed", norm=True, keep=0.8)
    kept = []
    made = own.record("cpu", [SMALL, normed], threads=1, effort=EFFORT, clock=Clock(600), keep=kept.append)
    first, second = made["rows"]
    assert (len(kept), made["left_out"], first["steps"]) == (2, [], 1)
    assert all(row["first_step_s"] > row["construct_s"] > 0 and row["median_us"] > 0 for row in made["rows"])
    assert set(first["at_a_time"]) == {"1", "2", "5", "10", "50"}
    assert "at_a_time" not in second
    names = [row["call"] for row in made["calls"] if row["workload"] == "normed"]
    assert {"next_batch", "adam", "record_step"} <= set(names)
    assert all(row["us"] > 0 for row in made["calls"])
    text = own.markdown(made, profile=True)
    assert "| small: 6-5-3, batch 8 |" in text
    assert "| the step |" in text
    assert "Call by call" not in own.markdown(made)


def test_own_steps_that_there_is_no_time_for_are_told():
    made = own.record("cpu", [SMALL], threads=1, effort=EFFORT, clock=Clock(0))
    assert (made["rows"], made["left_out"]) == ([], ["small"])
    assert "No time was left for small." in own.markdown(made)


@pytest.mark.slow
def test_kernels_are_measured_op_by_op_while_there_is_time():
    kept = []
    made = kernels.record_within(Clock(600), "quick", "cpu", threads=1, commit="abc", keep=kept.append)
    assert (made["left_out"], made["failures"], made["commit"]) == ([], {}, "abc")
    assert len(kept) == len(GRIDS["quick"]["ops"])
    assert {row["op"] for row in made["rows"]} == set(GRIDS["quick"]["ops"])
    text = gpu_check.tables({"errors": {}, "kernels": made})
    assert "Kernels" in text
    late = kernels.record_within(Clock(0), "quick", "cpu", threads=1)
    assert late["left_out"] == GRIDS["quick"]["ops"]
    assert "no time was left for affine_forward" in gpu_check.tables({"errors": {}, "kernels": late})


def test_a_call_that_cannot_be_made_alone_is_told_and_counters_are_put_back():
    backend = get_backend("cpu")
    counters, moved = np.array([7]), []

    def count(counters):
        counters += 1
        moved.append(counters[0])

    def fails():
        raise RuntimeError("not captured")

    rows = calls.profile(backend, [Call(count, counters), fails, Call(count, counters)])
    assert (counters[0], moved[0] > 7, len(moved)) == (7, True, 2 * calls.REPEATS * (calls.LAUNCHES + 1))
    assert [(row["call"], row["times"], row.get("refused")) for row in rows] == [
        ("count", 2, None),
        ("fails", 1, "RuntimeError: not captured"),
    ]
    text = calls.markdown([{"workload": "w"} | row for row in rows], {})
    assert "| fails |  | 1 | RuntimeError: not captured |" in text


def test_on_a_gpu_a_call_is_timed_many_times_in_a_graph(monkeypatch):
    """And the calls of a step are those that the device makes."""
    cupy = fake_cupy()
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    device = fake_backend(cupy, fake_cublas(cupy), monkeypatch)
    monkeypatch.setattr(cupy.cuda, "get_elapsed_time", lambda start, end: 3.0 * calls.REPEATS, raising=False)
    model = fcnet.FullyConnectedNet([40], 6, 40, precision="bf16", device=device)
    solver = fcnet.Solver(model, blobs(n=120, c=40, dtype="float32"), batch_size=60, verbose=False)
    with calls.recorded(device) as found:
        solver.step()
    counters = np.array(solver.optimizer.step_counter)
    cupy.fake.log.clear()
    rows = calls.profile(device, [call for call in found if call.name in ("next_batch", "adam", "advance")])
    assert [(row["call"], row["us"]) for row in rows] == [(n, 3000) for n in ("next_batch", "adam", "advance")]
    graphs = [entry[1] for entry in cupy.fake.log if entry[0] == "graph"]
    assert graphs == [calls.REPEATS] * 3 * 2 * (calls.LAUNCHES + 1)
    np.testing.assert_array_equal(np.array(solver.optimizer.step_counter), counters)
