"""The comparison with other frameworks: it proves before it times, survives a bad contender, writes whole files.

Ratios only, and generous ones: never absolute times.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import fcnet
from benchmarks import command, compare, end_to_end, inference, scaling, startup
from benchmarks.peers import CONTENDERS, PEERS, Contender, oracle
from benchmarks.peers.compare_peers import JOB, Answer, Effort, compare_peers, phases, ratio
from benchmarks.peers.naive import Naive
from benchmarks.peers.ours import Ours
from benchmarks.peers.pool import Failure, Worker
from benchmarks.peers.table import bars, markdown
from benchmarks.workloads import SEED, Workload, batches, draw, initial, permutation, prepared, workloads_for
from tests.needed import HANGS

ROOT = Path(__file__).resolve().parents[2]
SMALL = Workload("small", 6, (5, 4), 8, 10, outputs=3, rows=40, tolerance=1e-5)
NORMED = dataclasses.replace(SMALL, name="normed", norm=True)
DROPPED = dataclasses.replace(SMALL, name="dropped", hidden=(64, 64), batch=40, rows=200, norm=True, keep=0.8)
EFFORT = Effort(rounds=3, scale=1.0, pause=0.0)


# Contenders that misbehave; the workers import them from here.


class Wrong(Naive):
    """A learning rate 1 % too high is enough."""

    def train_on(self, rows):
        before = {name: value.copy() for name, value in self.params.items()}
        loss = super().train_on(rows)
        for name, value in self.params.items():
            self.params[name] = (before[name] + 1.01 * (value - before[name])).astype(np.float32)
        return loss


class NoDropout(Naive):
    """Leaves out what costs time."""

    def make(self, workload, data, weights, device):
        super().make(dataclasses.replace(workload, keep=1.0), data, weights, device)


class Dies(Naive):
    """Falls in the middle of a turn, after it was proved."""

    def step(self):
        os.write(2, b"about to fall\n")
        os.kill(os.getpid(), signal.SIGSEGV)


class Tires(Naive):
    """Makes the steps of a first phase, but not 100 more."""

    def train_on(self, rows):
        self.made = getattr(self, "made", 0) + 1
        if self.made > 100:
            raise RuntimeError("tired")
        return super().train_on(rows)


class Raises(Naive):
    def make(self, workload, data, weights, device):
        raise MemoryError("no room for this net")


class Absent(Naive):
    def make(self, workload, data, weights, device):
        import a_framework_that_nobody_has  # noqa: F401


class Talks(Naive):
    """Prints where its answers go."""

    def step(self):
        sys.stdout.write("progress: 10 %\n")
        super().step()


class Sluggish(Naive):
    def step(self):
        time.sleep(0.02)
        super().step()


class Sleeps(Naive):
    def step(self):
        time.sleep(60)


def contender(cls: type) -> Contender:
    return Contender(cls.__name__, f"tests.benchmarks.test_compare:{cls.__name__}", ("numpy",))


def by_name(rows):
    return {row["contender"]: row for row in rows}


# The workloads and the right answer


def test_initial_weights_and_order_are_those_of_fcnet():
    workload = NORMED
    peer = Ours()
    peer.make(workload, draw(workload), {}, "cpu")
    for name, value in initial(workload).items():
        np.testing.assert_array_equal(peer.model.params[name], value)
    assert set(initial(workload)) == set(peer.model.params)
    order = np.concatenate([rows for rows, _ in zip(batches(workload), range(10), strict=False)])
    np.testing.assert_array_equal(order[:40], permutation(workload, 0))
    np.testing.assert_array_equal(order[40:80], permutation(workload, 1))
    assert not np.array_equal(order[:40], order[40:80])
    assert peer.solver.seed == SEED


def test_the_tables_workloads():
    cpu, cuda = workloads_for("cpu"), workloads_for("cuda:1")
    assert list(cpu) == ["tab", "mnist", "cifar", "matrix", "defaults", "bn", "wide"]
    assert list(cuda) == ["mnist", "cifar", "wide", "large-tf32", "large-bf16"]
    for workload in (*cpu.values(), *cuda.values()):
        assert workload.count % workload.batch == 0
        assert workload.count >= 5000
        later = workload.later()
        assert later.count == min(workload.count, 4 * workload.batch)
        assert later.before == (5000 if workload.flops < 1e9 else 900)
        assert workload == Workload.from_dict(json.loads(json.dumps(workload.to_dict())))
    for workload in cpu.values():
        assert workload.parameters == sum(value.size for value in initial(workload).values())
    assert cpu["wide"].describe() == "3072-2x1024-10, batch 256"
    assert cpu["cifar"].describe() == "3072-3x100-10, batch 100, batch norm, dropout 0.8"
    assert cuda["large-bf16"].describe() == "3072-4x4096-10, batch 8192, bf16"
    assert cpu["tab"].flops == 2 * 64 * (2 * 54 * 64 + 3 * (64 * 64 + 64 * 7))


@pytest.mark.parametrize("workload", [SMALL, NORMED], ids=lambda w: w.name)
def test_the_oracles_gradient_is_the_numerical_one(workload):
    data, theta = draw(workload), {n: v.astype(np.float64) for n, v in initial(workload).items()}
    x, y = data.X[:8].astype(np.float64), data.y[:8]
    _, gradient = oracle._gradient(workload, theta, x, y, None)
    for name, value in theta.items():
        for at in list(np.ndindex(value.shape))[:6]:
            kept, around = value[at], []
            for moved in (kept + 1e-6, kept - 1e-6):
                value[at] = moved
                around.append(oracle._gradient(workload, theta, x, y, None)[0])
            value[at] = kept
            assert gradient[name][at] == pytest.approx((around[0] - around[1]) / 2e-6, abs=2e-8)


@pytest.mark.parametrize("losses", [[2.0, np.nan], [2.0, 1.0061], [2.0001, 1.0], [2.0], [np.inf, 1.0]])
def test_losses_that_are_refused(losses):
    answer = Answer(dataclasses.replace(SMALL, tolerance=5e-3), {False: (np.array([2.0, 1.0]), None)})
    assert answer.objection({"losses": [2.0, 1.004]})[1] == ""
    assert answer.objection({"losses": losses})[1] != ""


# Contenders


def test_all_that_is_here_agrees_and_is_timed():
    here = [CONTENDERS[name] for name in ("fcnet", "naive", "gemm")]
    rows = by_name(compare_peers(NORMED, here, effort=EFFORT))
    assert list(rows) == [c.name for c in here]
    for name, row in rows.items():
        assert "refused" not in row, row
        assert len(row["rounds_us"]) == 3
        assert row["median_us"] > 0
        if name != "gemm":
            assert row["loss_difference"] < 1e-5
    assert ratio(list(rows.values()), "naive", "fcnet")["ratio"] > 0
    assert ratio(list(rows.values()), "jax", "fcnet") is None


@pytest.mark.parametrize(
    ("name", "module"),
    [("torch", "torch"), ("jax", "jax"), ("sklearn", "sklearn")],
)
def test_a_framework_agrees_or_is_reported_missing(name, module):
    row = compare_peers(SMALL, [CONTENDERS[name]], effort=Effort(rounds=1, pause=0.0))[0]
    if importlib.util.find_spec(module):
        assert row["loss_difference"] < 1e-5
        assert row["median_us"] > 0
    else:
        assert row["kind"] == "unavailable"
        assert "is not installed" in row["refused"]


def test_bad_contenders_are_reported_and_the_others_go_on():
    said = []
    bad = [contender(cls) for cls in (Wrong, Dies, Raises, Absent)]
    rows = by_name(compare_peers(SMALL, [CONTENDERS["naive"], *bad, contender(Talks)], effort=EFFORT, say=said.append))
    assert rows["Wrong"]["kind"] == "wrong"
    assert "expected" in rows["Wrong"]["refused"]
    assert rows["Dies"]["kind"] == "crashed"
    assert "SIGSEGV" in rows["Dies"]["refused"]
    assert "about to fall" in rows["Dies"]["refused"]
    assert rows["Raises"]["refused"] == "MemoryError: no room for this net"
    assert rows["Absent"]["kind"] == "unavailable"
    assert all("median_us" not in rows[cls.__name__] for cls in (Wrong, Dies, Raises, Absent))
    assert len(rows["naive"]["rounds_us"]) == len(rows["Talks"]["rounds_us"]) == 3
    assert len(said) == 5  # the last one names who was timed


def test_dropout_is_proved_without_and_checked_with_it():
    here = [CONTENDERS[name] for name in ("fcnet", "naive", "sklearn")]
    rows = by_name(compare_peers(DROPPED, [*here, contender(NoDropout)], effort=EFFORT))
    assert "median_us" in rows["fcnet"]
    assert "median_us" in rows["naive"]
    assert rows["NoDropout"]["refused"] == "wrong result: dropout changes nothing"
    assert rows["sklearn"]["kind"] == ("unsupported" if importlib.util.find_spec("sklearn") else "unavailable")


def test_a_worker_that_does_not_answer_is_given_up():
    with Worker(JOB, 1) as worker:
        worker.ask("load", target="tests.benchmarks.test_compare:Sleeps", device="cpu", packages=[])
        worker.ask("make", workload=SMALL.to_dict())
        with pytest.raises(Failure, match=r"no answer to 'run' in 0\.2 s"):
            worker.ask("run", steps=1, warm=0, limit_s=0.2)
    assert worker._process.poll() is not None


def test_memory_is_weighed():
    with Worker(JOB, 1) as worker:
        worker.ask("load", target=CONTENDERS["fcnet"].target, device="cpu", packages=[])
        workload = Workload("m", 500, (500,), 50, 1, rows=5000)
        found = worker.ask("measure_memory", workload=workload.to_dict(), steps=5)
    assert found["allowed"] == workload.memory
    assert 0.5 < found["growth"] / found["allowed"] < 2 or not found["exact"]


# The commands


def python(*arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=HANGS, check=False, **options
    )


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """One quick run of the whole command."""
    folder = tmp_path_factory.mktemp("compare")
    command = ("-m", "benchmarks.compare", "--quick", "--workloads", "tab", "--peers", "naive")
    done = python(*command, "--json", str(folder / "compare.json"))
    assert done.returncode == 0, done.stderr
    return done, folder


def test_the_quick_comparison(quick):
    done, folder = quick
    record = json.loads((folder / "compare.json").read_text("utf-8"))
    rows = by_name(record["rows"])
    assert set(rows) == {"fcnet", "fcnet-numpy", "naive", "gemm"}
    assert all(len(row["rounds_us"]) == record["effort"]["rounds"] for row in rows.values())
    assert rows["fcnet"]["median_us"] < 3 * rows["naive"]["median_us"]
    assert rows["fcnet-numpy"]["median_us"] < 3 * rows["naive"]["median_us"]
    assert record["versions"]["numpy"] == np.__version__
    assert record["machine"]["fcnet"] == fcnet.__version__
    assert {"commit", "dirty", "threads", "date", "device"} <= set(record)
    assert [(row["of"], row["to"]) for row in record["ratios"]] == [("naive", "fcnet-numpy")]
    table = (folder / "compare.md").read_text("utf-8")
    assert table.strip() in done.stdout
    assert "tab: 54-2x64-7, batch 64" in table
    text = (folder / "compare.json").read_text("utf-8")
    assert str(Path.home()) not in text
    assert str(ROOT) not in text
    assert {file.suffix for file in folder.iterdir()} <= {".json", ".md", ".png"}


def test_the_picture(quick):
    pytest.importorskip("matplotlib")
    record = json.loads((quick[1] / "compare.json").read_text("utf-8"))
    png = bars(record)
    assert png.startswith(b"\x89PNG")
    assert len(png) < 100_000


def test_the_table_tells_what_was_not_timed(quick):
    record = json.loads((quick[1] / "compare.json").read_text("utf-8"))
    refused = {"workload": "tab", "contender": "jax", "refused": "jax is not installed", "kind": "unavailable"}
    late = {"workload": "tab", "contender": "torch", "about": {"no_time_for": ["eager"], "failed": {"graph": "no"}}}
    weighed = {"contender": "fcnet", "workload": "wide", "growth": 130 << 20, "allowed": 100 << 20, "exact": True}
    text = markdown(record | {"rows": [*record["rows"], refused, late], "memory": [weighed]})
    assert "- tab, torch, eager: there was no time to build it\n- tab, torch, graph: no\n" in text
    assert "- tab, jax: jax is not installed" in text
    assert "| fcnet | 130 | 1.30 |" in text


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (compare.main, ["--peers", "pytorch"], "did you mean 'torch'"),
        (compare.main, ["--peers", "gemm"], "--peers: expected one of"),
        (compare.main, ["--peers", ","], "--peers: expected some of"),
        (compare.main, ["--workloads", "mnits"], "did you mean 'mnist'"),
        (compare.main, ["--rounds", "0"], "--rounds: expected 1 or more, got 0"),
        (compare.main, ["--threads", "0"], "--threads: expected 1 to"),
        (compare.main, ["--threads", "9999"], "--threads: expected 1 to"),
        (compare.main, ["--device", "gpu"], "device"),
        (compare.main, ["--json", str(ROOT)], "--json: expected a file"),
        (compare.main, ["--json", str(ROOT / "README.md" / "x.json")], "README.md"),
        (inference.main, ["--threads", "0"], "--threads: expected 1 to"),
        (scaling.main, ["--peers", "pytorch"], "did you mean 'torch'"),
        (startup.main, ["--threads", "0"], "--threads: expected 1 to"),
        (end_to_end.main, ["--device", "gpu"], "device"),
    ],
)
def test_bad_options_are_one_line(main, arguments, message, capsys):
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1
    assert printed.out == ""


def test_unknown_options_are_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        compare.main(["--rounds", "many"])
    assert stop.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(tmp_path, number):
    command = [sys.executable, "-m", "benchmarks.compare", "--workloads", "tab", "--peers", "naive", "--rounds", "999"]
    run = subprocess.Popen(
        [*command, "--json", str(tmp_path / "x.json")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stderr is not None
    while not run.stderr.readline().startswith("tab:"):
        pass
    time.sleep(1.0)
    children = _children(run.pid)
    run.send_signal(number)
    out, err = run.communicate(timeout=HANGS)
    assert run.returncode == 130
    assert err.splitlines()[-1] == "benchmarks.compare: interrupted; nothing written"
    assert "Traceback" not in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def test_what_was_done_before_an_interruption_is_kept():
    def stopped() -> Iterator[list[dict]]:
        yield [{"workload": "small", "contender": "fcnet", "refused": "no", "kind": "failed"}]
        raise KeyboardInterrupt

    nets = [SMALL, dataclasses.replace(SMALL, name="other")]
    made = compare.record("cpu", nets, [], threads=1, effort=EFFORT, say=str, commit="abc", duels=stopped())
    assert made["interrupted"]
    assert (len(made["rows"]), made["left_out"]) == (1, ["other"])
    assert "small" in markdown(made)


def test_a_net_is_compared_again_later_on():
    far = Contender("far", f"{__name__}:Sluggish", ("numpy",), counts=True)
    near = Contender("near", "benchmarks.peers.naive:Naive", ("numpy",), counts=True)
    contenders = [CONTENDERS["fcnet"], near, far]
    later = dataclasses.replace(SMALL, name="small-later", before=200)
    first, then = phases(SMALL, contenders, effort=Effort(rounds=1, pause=0.0), later=later)
    assert ["refused" in row for row in first] == [False] * 3
    assert [row.get("kind") for row in then] == [None, None, "slow"]
    assert len(then[0]["paces_us"]) == 2
    assert [row["workload"] for row in then] == ["small-later"] * 3


def test_a_net_with_the_defaults_is_proved():
    net = dataclasses.replace(SMALL, defaults=True)
    rows = compare_peers(net, [CONTENDERS["fcnet"], CONTENDERS["naive"]], effort=Effort(rounds=1, pause=0.0))
    assert ["refused" in row for row in rows] == [False, False]
    assert not np.array_equal(prepared(net, draw(net)).X, draw(net).X)


def _children(pid: int) -> list[str]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return path.read_text("ascii").split() if path.exists() else []


# The companions


def test_predictions_are_compared_first():
    net = dataclasses.replace(inference.NET, inputs=20, hidden=(16,), rows=500)
    rows = by_name(inference.measure(net, 1, Effort(rounds=1, pause=0.0)))
    assert rows["fcnet"]["rows_per_s"] > 0
    assert rows["fcnet"]["growth"] >= 0
    for name, package in (("torch", "torch"), ("sklearn", "sklearn")):
        assert ("refused" in rows[name]) is (importlib.util.find_spec(package) is None)
    right, ties = inference.right_answer(net)
    assert inference.objection(right, right, ties) == ""
    assert "another class" in inference.objection((right + 1) % 10, right, ties)


def test_scaling_moves_one_variable_at_a_time():
    found = scaling.points(2, quick=False)
    assert {panel for panel, *_ in found} == {"width", "depth", "batch", "threads"}
    for panel, value, net, threads in found:
        assert net.steps >= 3
        assert threads == (value if panel == "threads" else 2)
        assert (net.batch == value) or (panel != "batch" and net.batch == scaling.BASE.batch)
    row = {"panel": "width", "value": 64, "contender": "fcnet", "median_us": 10.0}
    rows = [row, row | {"value": 128, "median_us": 20.0}, *({**row, "panel": p} for p in ("depth", "batch", "threads"))]
    record = command.describe("cpu", 1) | {"rows": rows}
    assert "| 128 | 20 |" in scaling.markdown(record)
    pytest.importorskip("matplotlib")
    assert scaling.picture(record).startswith(b"\x89PNG")


def test_startup_measures_disk_and_imports():
    rows = {row["name"]: row for row in startup.sizes()}
    assert rows["fcnet"]["mb"] > 1
    assert {"numpy", "safetensors", "tqdm"} <= set(rows["fcnet"]["distributions"])
    if importlib.util.find_spec("torch") is None:
        assert "torch not installed" in rows["torch"]["refused"]
    assert startup.timed_import("a_module_that_nobody_has", 1) is None
    assert startup.first_step("fcnet-numpy", 1, {}) > 0
    assert set(startup.FIRST_STEPS) <= set(CONTENDERS)
    assert set(scaling.DEFAULT) <= set(PEERS)


@pytest.mark.parametrize(("before", "refused"), [(0, False), (200, True)])
def test_steps_made_before_the_first_round(before, refused):
    (row,) = compare_peers(
        dataclasses.replace(SMALL, before=before), [contender(Tires)], effort=Effort(rounds=1, pause=0.0)
    )
    assert ("refused" in row) is refused


def test_a_net_of_tanh_and_squared_error_is_proved():
    net = dataclasses.replace(SMALL, activation="tanh", numeric=True)
    rows = compare_peers(net, [CONTENDERS["fcnet"], CONTENDERS["naive"]], effort=Effort(rounds=1, pause=0.0))
    assert ["refused" in row for row in rows] == [False, False]
