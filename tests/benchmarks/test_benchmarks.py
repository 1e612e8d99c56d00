"""The benchmark: what it writes, and that it refuses to time a wrong result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fcnet import functional as F
from fcnet.backends import REGISTRY, Kernel, get_backend, select
from fcnet.backends.numpy_backend import NumpyBackend
from tests.backends.cuda_fake import fake_backend, fake_cublas, fake_cupy
from tests.needed import HANGS

pytest.importorskip("pytest_benchmark")
pytest.importorskip("matplotlib")

from benchmarks import proof, report, run
from benchmarks.grid import GRIDS, Grid
from benchmarks.problem import draw
from benchmarks.problems import PROBLEMS
from benchmarks.timing import Clock, plan, summarize

ROOT = Path(__file__).resolve().parents[2]
CPU = ("cpu", "reference")

# A process with a second device, and with a kernel for affine_forward that is wrong in one element.
TWO_DEVICES = """
import sys
from fcnet.backends import Kernel, select
from fcnet.backends.numpy_backend import NumpyBackend
from benchmarks import run
from fcnet import functional as F

def affine_forward(x, w, b, *, out=None):
    out, cache = F.affine_forward.reference(x, w, b, out=out)
    out[-1, -1] *= 1.01
    return out, cache

class Other(NumpyBackend):
    name, waits = "other:0", 0
    def synchronize(self):
        self.waits += 1

NumpyBackend.kernels = {"affine_forward": Kernel(affine_forward, lambda *_, **__: True)}
other = Other()
select.keep(other)
code = run.main(sys.argv[1:])
print("waits", other.waits)
sys.exit(code)
"""
SMALL = ["--quick", "--widths", "4,8", "--batches", "8"]


def python(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
    outside = {name: value for name, value in os.environ.items() if name != "PYTEST_XDIST_WORKER"}
    environment = outside | {"PYTEST_ADDOPTS": "", "FCNET_NUMBA": "0"} | variables  # the same rows on every machine
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=HANGS
    )


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Return a run over all the kernels at two sizes: its folder and what it printed."""
    out = tmp_path_factory.mktemp("bench") / "deep" / "results"
    done = python("-m", "benchmarks.run", *SMALL, "--devices", "cpu", "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    return out, done


def test_every_row_is_in_json_table_and_picture(quick):
    out, done = quick
    (path,) = out.glob("*.json")
    record = json.loads(path.read_text("utf-8"))
    assert path.name == f"kernels-cpu-{record['date']}.json"
    assert sorted(file.name for file in out.iterdir()) == [path.name, "kernels.md", "kernels.png"]
    expected = [(op, width, 8, *CPU) for op in GRIDS["quick"]["ops"] for width in (4, 8)]
    assert [tuple(row[name] for name in report.KEY) for row in record["rows"]] == expected
    for row in record["rows"]:
        assert row["median_us"] > 0
        assert row["iqr_us"] >= 0
        assert row["rounds"] >= record["grid"]["passes"]
        rate = row["gflops"] if row["op"].startswith("affine") else row["gbs"]
        work = PROBLEMS[row["op"]].work(row["width"], row["batch"])
        assert rate == pytest.approx(work / row["median_us"] / 1e3, rel=1e-3)
    table = (out / "kernels.md").read_text("utf-8")
    assert table in done.stdout
    assert sum(line.startswith(("| 4 | 8 |", "| 8 | 8 |")) for line in table.splitlines()) == len(expected)
    picture = (out / "kernels.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < 120_000


def test_the_record_names_machine_and_commit_but_no_place(quick):
    out, done = quick
    (path,) = out.glob("*.json")
    text = path.read_text("utf-8")
    machine = json.loads(text)["machine"]
    assert machine["numpy"] == np.__version__
    assert {"cpu", "cores", "blas", "blas_threads", "load", "os", "python", "fcnet"} <= machine.keys()
    assert "dirty" in json.loads(text)
    for secret in (str(ROOT), str(Path.home()), os.uname().nodename if hasattr(os, "uname") else str(ROOT)):
        assert len(secret) < 4 or secret not in text
    assert "8/8" in done.stderr  # progress


def test_two_devices_take_turns_and_a_wrong_kernel_is_refused(tmp_path):
    options = ["--devices", "cpu,other:0", "--ops", "affine_forward", "--variants", "reference,fused"]
    done = python("-c", TWO_DEVICES, *SMALL, *options, "--out", str(tmp_path), "--commit", "abc")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "cpu fused: wrong result: out differs from the float64 answer" in done.stderr
    (path,) = tmp_path.glob("kernels-cpu-other0-*.json")
    record = json.loads(path.read_text("utf-8"))
    assert (record["commit"], record["dirty"]) == ("abc", None)
    rows = [(row["width"], row["device"], row["variant"], "refused" in row) for row in record["rows"]]
    both = [(device, variant) for device in ("cpu", "other:0") for variant in ("reference", "fused")]
    assert rows == [(width, *who, who[1] == "fused") for width in (4, 8) for who in both]
    assert all(("median_us" in row) != ("refused" in row) for row in record["rows"])
    table = (tmp_path / "kernels.md").read_text("utf-8")
    assert table.count("| refused |") == 4
    assert "cpu reference ÷ other:0 reference" in table
    # The clock waits before it is read: at the two ends of every round on that device.
    rounds = sum(row["rounds"] for row in record["rows"] if row["device"] == "other:0" and "rounds" in row)
    assert int(done.stdout.split()[-1]) >= 2 * rounds


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["--widths", "64,wide"], "expected numbers such as 64,256; got '64,wide'"),
        (["--widths", "0"], "widths: expected sizes of at least 1, got 0"),
        (["--batches", "8,8"], "batches: expected each once, got 8, 8"),
        (["--ops", "affine_foward"], "did you mean 'affine_forward'?"),
        (["--variants", "fusd"], "did you mean 'fused'?"),
        (["--grid", "ful"], "did you mean 'full'?"),
        (["--devices", "gpu"], "device: expected 'auto', 'cpu', 'cuda' or 'cuda:N', got 'gpu'"),
        (["--devices", "cuda:999"], "device: 'cuda:999' "),
        (["--devices", ","], "devices: expected at least one, got none"),
    ],
)
def test_bad_options_give_one_line_and_exit_code_2(options, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(run, "measure", lambda grid: pytest.fail("measured in spite of a bad option"))
    try:
        code = run.main(["--out", str(tmp_path / "out"), *options])
    except SystemExit as exit:
        code = exit.code
    printed = capsys.readouterr()
    assert code == 2
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert not (tmp_path / "out").exists()


def test_a_file_where_the_folder_should_be(tmp_path, capsys):
    (tmp_path / "out").write_text("")
    assert run.main(["--devices", "cpu", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_interrupted_run_writes_nothing(tmp_path, capsys, monkeypatch):
    def interrupted(grid):
        raise run.Interrupted

    monkeypatch.setattr(run, "measure", interrupted)
    assert run.main(["--devices", "cpu", "--out", str(tmp_path)]) == 130
    assert "nothing written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_times_nothing_writes_nothing(tmp_path):
    done = python("-m", "benchmarks.run", *SMALL, "--devices", "cpu", "--variants", "captured", "--out", str(tmp_path))
    assert done.returncode == 1
    assert "cpu has no variant captured of these kernels; nothing written" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variables", "code"), [({"PYTEST_XDIST_WORKER": "gw0"}, 0), ({"PYTEST_ADDOPTS": "--benchmark-disable"}, 1)]
)
def test_what_switches_pytest_benchmark_off_is_undone_or_told(variables, code, tmp_path):
    options = ["--quick", "--widths", "4", "--batches", "8", "--devices", "cpu", "--ops", "affine_forward"]
    done = python("-m", "benchmarks.run", *options, "--out", str(tmp_path), **variables)
    assert done.returncode == code, done.stdout + done.stderr
    assert ("pytest-benchmark is switched off" in done.stderr) is bool(code)
    assert any(tmp_path.glob("*.json")) is not bool(code)


@pytest.mark.parametrize("variables", [{"PYTEST_XDIST_WORKER": "gw0"}, {"PYTEST_ADDOPTS": "--benchmark-disable"}])
def test_pytest_by_itself_says_that_it_times_nothing(variables):
    done = python("-m", "pytest", "-q", "-x", "benchmarks/bench_kernels.py", **variables)
    assert done.returncode == 1
    off = "has switched itself off" if "PYTEST_XDIST_WORKER" in variables else "is switched off"
    assert f"pytest-benchmark {off}, and times nothing" in done.stdout
    assert ("env -u PYTEST_XDIST_WORKER" in done.stdout) is ("PYTEST_XDIST_WORKER" in variables)


@pytest.mark.parametrize("size", [(1, 1), (1, 16), (16, 8), (33, 70)])
def test_the_references_are_proved(size):
    for op in PROBLEMS:
        (contender,) = proof.prepare(op, *size, [CPU]).values()
        assert contender.refusal == "", op
        assert contender.step is not None, op


def spoil_one(results, name):
    results[name].flat[-1] += 1e-3


def wrong_everywhere(results, name):
    results[name][...] = np.where(results[name], results[name] * 1.001, 0.001)


def not_a_number(results, name):
    results[name].flat[0] = np.nan


@pytest.mark.parametrize("damage", [spoil_one, wrong_everywhere, not_a_number])
@pytest.mark.parametrize("op", [op for op in PROBLEMS if op in REGISTRY])  # others have no kernels
def test_any_wrong_result_is_refused(op, damage, monkeypatch):
    """Each array that each kernel gives is damaged in turn: the oracle looks at all of them."""
    for name in PROBLEMS[op].answer(draw(4, 8), np.arange(4)):
        refused(op, name, damage, monkeypatch)


def refused(op, name, damage, monkeypatch):
    function = PROBLEMS[op].op

    def kernel(*args, **kwargs):
        results = function.reference(*args, **kwargs)
        named = results if isinstance(results, tuple) else (results,)
        damage(dict(zip(function.results, named, strict=True)) | kwargs, name)
        return results

    monkeypatch.setattr(NumpyBackend, "kernels", {op: Kernel(kernel, lambda *_, **__: True)})
    found = proof.prepare(op, 4, 8, [CPU, ("cpu", "fused")])
    assert found[CPU].refusal == ""
    assert found["cpu", "fused"].step is None
    assert f"wrong result: {name} differs from the float64 answer" in found["cpu", "fused"].refusal


@pytest.mark.parametrize("fault", ["unwritten", "float64", "raises", "no memory"])
def test_other_faults_are_refused(fault, monkeypatch):
    def kernel(x, w, b, *, out=None):
        if fault == "raises":
            raise RuntimeError("no launch\nfor you")
        if fault == "no memory":
            raise MemoryError("cuda:0 is out of memory")
        right, cache = F.affine_forward.reference(x, w, b)
        if fault == "float64":
            return right.astype(np.float64), cache
        return right if out is None else out, cache  # ignores the array that it is given

    monkeypatch.setattr(NumpyBackend, "kernels", {"affine_forward": Kernel(kernel, lambda *_, **__: True)})
    refusal = proof.prepare("affine_forward", 4, 8, [("cpu", "fused")])["cpu", "fused"].refusal
    expected = {
        "unwritten": "wrong result: out differs",
        "float64": "wrong result: out is float64 (8, 4), expected float32",
        "raises": "failed: RuntimeError: no launch for you",
        "no memory": "failed: MemoryError: cuda:0 is out of memory",
    }
    assert expected[fault] in refusal


class OtherDevice(NumpyBackend):
    """A second device for the benchmark, which records steps and counts waits."""

    name = "other:0"

    def __init__(self):
        super().__init__()
        self.waits = 0

    def synchronize(self):
        self.waits += 1

    def compile(self, calls):
        return lambda: [call() for call in calls]


@pytest.fixture
def other(monkeypatch):
    backend = OtherDevice()
    monkeypatch.setitem(select._made, backend.name, backend)
    return backend


def test_devices_are_compared_where_the_answer_is_not(other, monkeypatch):
    """Beyond WHOLE only some columns are compared with the float64 answer; the devices check each other's rest."""
    monkeypatch.setattr(proof, "WHOLE", 1)
    monkeypatch.setattr(OtherDevice, "to_numpy", lambda self, array: np.where(np.arange(40) == 4, 0, array))
    found = proof.prepare("affine_forward", 40, 8, [CPU, ("other:0", "reference")])
    assert found[CPU].refusal == ""
    assert "wrong result: out differs from that of cpu reference" in found["other:0", "reference"].refusal


def test_variants_that_a_device_lacks_are_passed_over(other, references_only):
    grid = Grid.load("quick", devices=["cpu", "other:0"], variants=["reference", "fused", "captured"])
    found = proof.prepare("affine_forward", 4, 8, grid.contenders())
    assert list(found) == [CPU, ("other:0", "reference"), ("other:0", "captured")]
    assert not any(contender.refusal for contender in found.values())


def test_a_device_records_a_call_as_it_records_a_steps(monkeypatch):
    """With the names of its arguments, by which products are recognised."""
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy())
    device = fake_backend(sys.modules["cupy"], fake_cublas(sys.modules["cupy"]), monkeypatch)
    monkeypatch.setitem(select._made, device.name, device)
    found = proof.prepare("affine_forward", 4, 8, [CPU, (device.name, "fused"), (device.name, "captured")])
    assert [contender.refusal for contender in found.values()] == ["", "", ""]


def test_the_clock_waits_for_the_device(other):
    clock = Clock()
    clock.now()
    assert other.waits == 0
    clock.backend = get_backend("other:0")
    assert clock.now() <= clock.now()
    assert other.waits == 2


def test_a_plan_keeps_to_round_and_budget():
    import time

    calls, rounds = plan(lambda: time.sleep(2e-3), round_ms=1, rounds=5, passes=2, budget_s=HANGS)
    assert (calls, rounds) == (1, 5)
    calls, rounds = plan(lambda: time.sleep(2e-3), round_ms=1, rounds=5, passes=2, budget_s=0)
    assert (calls, rounds) == (1, 1)
    assert plan(lambda: None, round_ms=1, rounds=5, passes=2, budget_s=1).calls > 100


def test_rounds_of_all_passes_are_one_row():
    tests = [
        {"extra_info": dict(zip(report.KEY, ("affine_forward", 100, 10, *CPU), strict=True)), "stats": {"data": data}}
        for data in ([1e-6, 5e-6], [2e-6, 4e-6, 3e-6])
    ]
    (row,) = report.rows_from({"benchmarks": tests})
    assert (row["median_us"], row["iqr_us"], row["rounds"]) == (3, 2, 5)
    assert row["gflops"] == pytest.approx(2 * 10 * 100**2 / 3e-6 / 1e9, rel=1e-3)
    assert summarize([1e-6])._asdict() == {"median_us": 1, "iqr_us": 0, "rounds": 1}


def test_devices_stand_side_by_side_with_their_ratio():
    key = {"op": "affine_forward", "width": 64, "batch": 8, "variant": "reference", "iqr_us": 0.5, "rounds": 9}
    rows = [
        key | {"device": "cpu", "median_us": 120.0, "gflops": 1.0},
        key | {"device": "cuda:0", "median_us": 10.0, "gflops": 12.0},
    ]
    machine = run.machine.describe()
    record = {"date": "2026-01-01", "commit": "0" * 40, "dirty": True, "machine": machine, "rows": rows}
    table = report.markdown(record)
    assert "| width | batch | cpu, µs | GFLOP/s | cuda:0, µs | GFLOP/s | cpu ÷ cuda:0 |" in table
    assert "| 64 | 8 | 120 ± 0.5 | 1 | 10 ± 0.5 | 12 | 12 |" in table
    assert "commit 000000000000 with changes" in table
    assert json.loads(report.to_json(record)) == record
    assert report.picture(record).startswith(b"\x89PNG")


def test_with_every_row_refused_there_is_a_table_and_no_picture(tmp_path):
    row = dict(zip(report.KEY, ("affine_forward", 64, 8, *CPU), strict=True)) | {"refused": "failed: no memory"}
    machine = run.machine.describe()
    record = {"date": "2026-01-01", "commit": None, "dirty": None, "machine": machine, "rows": [row]}
    (tmp_path / "kernels.png").write_bytes(b"of an earlier run")
    files = run.write(record, tmp_path, "kernels-cpu")
    assert sorted(files) == sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["kernels-cpu.json", "kernels.md"]
    assert "- affine_forward 64 8 cpu reference: failed: no memory" in files[1].read_text("utf-8")


@pytest.mark.parametrize("name", GRIDS)
def test_every_grid_of_the_file_loads(name):
    grid = Grid.load(name)
    assert grid.sizes()
    assert set(grid.ops) <= set(PROBLEMS)


@pytest.mark.gpu
def test_cuda_is_timed_beside_the_cpu(tmp_path):
    ops = "affine_forward,batchnorm_forward,batchnorm_backward"
    done = python("-m", "benchmarks.run", *SMALL, "--devices", "cpu,cuda", "--ops", ops, "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert " ÷ cuda:0" in done.stdout
