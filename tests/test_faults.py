"""What went wrong once: damaged caches, no threads, hostile files, servers without end, signals at bad moments."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

import fcnet
from fcnet.cli import main
from fcnet.data import catalogue, cifar
from fcnet.data.npz import read_npz
from fcnet.data.restricted_pickle import load_dict
from fcnet.errors import printable
from tests.needed import HANGS

ROOT = Path(__file__).parent.parent
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX has them")


def python(*arguments, path=(), **environment):
    places = os.pathsep.join([*map(str, path), str(ROOT)])
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True, text=True, timeout=HANGS,
        env=os.environ | {"PYTHONPATH": places, "OPENBLAS_NUM_THREADS": "1"} | environment,
    )  # fmt: skip


# F4: the cache of compiled kernels


@pytest.mark.usefixtures("cpu_kernels")
def test_a_flipped_bit_in_a_compiled_kernel_costs_a_compilation(tmp_path):
    """The bit is in machine code or in the index; whatever is loaded there is executed, or crashes."""
    pytest.importorskip("numba")
    from fcnet.backends.cpu.cache import _Summed, _whole

    file = _Summed(str(tmp_path), "kernel", "stamp")
    file.save(("signature",), (b"machine code", 1.5))
    assert file.load(("signature",)) == (b"machine code", 1.5)
    for stored in sorted(tmp_path.iterdir()):
        whole = stored.read_bytes()
        for at in range(8 * len(whole)):
            flipped = bytearray(whole)
            flipped[at // 8] ^= 1 << at % 8
            stored.write_bytes(flipped)
            with pytest.raises(ValueError, match="changed since it was written"):
                _whole(stored)
            with pytest.raises(ValueError, match="changed since it was written"):
                file.load(("signature",))
        stored.write_bytes(whole)


# F7: no threads

NO_THREADS = """
import _thread, threading
def none(*_, **__): raise RuntimeError("can't start new thread")
_thread.start_new_thread = threading._start_new_thread = none
if hasattr(_thread, "start_joinable_thread"):
    _thread.start_joinable_thread = threading._start_joinable_thread = none
"""


def test_without_threads_the_one_there_is_serves(tmp_path):
    code = NO_THREADS + (
        "import sys; from fcnet.cli import main\n"
        f"sys.exit(main(['train', '--data', 'spirals', '--hidden', '300', '--epochs', '2', '--device', 'cpu',"
        f" '--batch-size', '400', '--out', {str(tmp_path / 'run')!r}]))"
    )
    done = python("-c", code, OPENBLAS_NUM_THREADS="2", OMP_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "test accuracy" in done.stdout.splitlines()[-1]


def test_packed_images_are_read_without_threads(monkeypatch, tmp_path):
    def none(*_, **__):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(cifar, "RECORDS", 10)
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name in catalogue.wanted_files("cifar10"):
        (folder / f"{name}.bin").write_bytes(b"".join(bytes([i % 10]) + bytes(3072) for i in range(10)))
    monkeypatch.setattr(threading.Thread, "start", none)
    assert len(fcnet.data.load("cifar10", data_dir=tmp_path).X_test) == 10


# F8: pickles

DEEP = b"\x80\x02}X\x04\x00\x00\x00data" + b")" + b"\x85" * 200_000 + b"s."
DEEP_KEY = b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"K\x01s."
DOUBLED = b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(60))  # (x, x) of (x, x) of ...
ENDLESS_KEY = b"\x80\x02}K\x00" + DOUBLED + b"K\x01s."
ENDLESS_NAME = b"\x80\x02cnumpy\ndtype\nK\x00" + DOUBLED + b"K\x00K\x01\x87R."
ENDLESS_SET = b"\x80\x04\x8f(K\x00" + DOUBLED + b"\x90."
OF_A_FUNCTION = b"\x80\x02c_codecs\nencode\nN}X\x0c\x00\x00\x00__defaults__X\x01\x00\x00\x00xs\x86b."


@pytest.mark.parametrize(
    "content", [DEEP, DEEP_KEY, ENDLESS_KEY, ENDLESS_NAME, ENDLESS_SET, OF_A_FUNCTION],
    ids=["deep", "deep key", "endless key", "endless name", "endless set", "state of a function"],
)  # fmt: skip
def test_pickles_that_would_crash_or_never_end(content, tmp_path):
    """In a process of its own: such a pickle once ended it."""
    (tmp_path / "batch").write_bytes(content)
    code = (
        "import sys; from pathlib import Path; from fcnet.data.restricted_pickle import load_dict\n"
        "try: print(type(load_dict(Path(sys.argv[1]), 1 << 20).get('data')).__name__)\n"
        "except ValueError as error: print('refused:', len(str(error)) < 300)"
    )
    done = python("-c", code, str(tmp_path / "batch"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("refused: True", "tuple" if content is DEEP else "")


def test_the_pickles_of_the_real_kind_are_read(tmp_path):
    content = {b"data": np.arange(6, dtype=np.uint8).reshape(2, 3), b"labels": [1, 2], b"names": [b"a", "b"]}
    for protocol in range(6):
        (tmp_path / "batch").write_bytes(pickle.dumps(content, protocol))
        found = load_dict(tmp_path / "batch", 1 << 20)
        assert (found[b"data"] == content[b"data"]).all()
        assert found[b"labels"] == [1, 2]


# F9, F11: npz, TOML, numbers


def npz(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def header(text, data=b""):
    text = text.encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


@pytest.mark.parametrize(
    "member",
    [
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (3,"),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (((((((((("),
        header("(" * 9000),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000, 1000), }", bytes(80)),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }", bytes(80)),
    ],
    ids=["open", "brackets", "deep", "large", "negative"],
)
def test_npz_with_a_strange_header(member, tmp_path):
    path = npz(tmp_path / "a.npz", **{"X.npy": member, "y.npy": member})
    with pytest.raises(ValueError) as caught:
        read_npz(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_member_that_is_no_array_is_not_taken_into_memory(tmp_path):
    import tracemalloc

    path = npz(tmp_path / "a.npz", X=bytes(100_000_000), y=bytes(100))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="expected an array; got another file"):
            read_npz(path)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("hidden = " + "[" * 3000 + "]" * 3000, "nested"),
        ("epochs = " + "9" * 5000, "thousands of digits"),
        ("epochs = " + "9" * 4000, "64 bits"),
        ("lr = " + "9" * 400, "a float holds"),
    ],
    ids=["deep", "long", "large", "beyond floats"],
)
def test_strange_toml_is_one_line(text, word, tmp_path, capsys):
    (tmp_path / "a.toml").write_text(text)
    assert main(["train", "--config", str(tmp_path / "a.toml"), "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert len(error) < 400
    assert word in error


@pytest.mark.parametrize("digits", [30, 5000])
def test_long_numbers_are_one_short_line(digits, tmp_path, capsys):
    assert main(["train", "--data", "spirals", "--epochs", "9" * digits, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert len(error) < 300
    assert "expected an integer" in error


# F12: signals, terminals

AT_ONCE = """
import os, signal, sys
from fcnet.backends.signals import Deferred
import fcnet.training.solver as solver
from fcnet.cli import main
real = solver.Solver.train
def train(self):
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    for number in numbers:
        os.kill(os.getpid(), number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    return real(self)
numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
solver.Solver.train = train
sys.argv = ["fcnet", "train", "--data", "spirals", "--epochs", "1", "--device", "cpu", "--quiet", "--out", sys.argv[1]]
sys.exit(main())
"""


@POSIX
def test_three_signals_at_once_are_one_line(tmp_path):
    done = python("-c", AT_ONCE, str(tmp_path / "run"))
    assert done.returncode in (128 + signal.SIGHUP, 128 + signal.SIGINT, 128 + signal.SIGTERM)
    assert done.stderr == "fcnet: interrupted\n"


@POSIX
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_during_imports_is_one_line(name, tmp_path):
    """A module that fcnet's command line imports sends it while it is imported."""
    (tmp_path / "argparse.py").write_text(
        f"import os, signal\nos.kill(os.getpid(), signal.{name})\nraise SystemExit('not answered')\n"
    )
    done = python("-m", "fcnet", "--help", path=[tmp_path])
    assert (done.returncode, done.stderr) == (128 + getattr(signal, name), "fcnet: interrupted\n")


def test_only_the_program_answers_signals_so_early():
    code = "import signal; import fcnet; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    assert python("-c", code).stdout == "True\n"


def test_control_characters_are_shown_not_sent(tmp_path, capsys):
    rows = "".join(f"{i * 7 % 40},{i % 3},{i % 2}\n" for i in range(40))
    (tmp_path / "a.csv").write_text(f"x\x1b[2J,\x1b]0;title\x07z,kind\n{rows}")
    out = str(tmp_path / "run")
    main(["train", "--data", str(tmp_path / "a.csv"), "--target", "no\x1b[31msuch", "--out", out])
    main(["train", "--data", str(tmp_path / "a.csv"), "--target", "kind", "--epochs", "1", "--out", out])
    main(["evaluate", out])
    (tmp_path / "b.csv").write_text("x\x9b2J,other\n1,2\n")
    main(["predict", out, str(tmp_path / "b.csv")])
    told = capsys.readouterr()
    assert "\\x1b" in told.err
    assert printable(told.err + told.out) == told.err + told.out


def test_parquet_with_bytes_that_are_no_text_is_refused(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    cells = pyarrow.array([b"b\xff", b"c"] * 4).cast(pyarrow.binary())
    text = pyarrow.Array.from_buffers(pyarrow.utf8(), len(cells), cells.buffers())
    parquet.write_table(pyarrow.table({"x": list(range(8)), "kind": text}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet: expected a Parquet file; got a damaged or other one"):
        fcnet.data.load(tmp_path / "a.parquet", target="kind")
