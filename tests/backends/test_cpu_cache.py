"""Compiled kernels on disk: files that are no good, files of other sources, Ctrl-C while Numba is at work."""

from __future__ import annotations

import functools
import importlib.util
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.needed import HANGS

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.usefixtures("cpu_kernels")

CALL = """
import sys
sys.dont_write_bytecode = True  # or a limit of the size of files cuts it off
import numpy as np
from fcnet.backends.cpu import hidden
from fcnet import functional as F
for dtype in ("float32", "float64"):
    a = np.ones((4, 3), dtype)
    assert (F.bias_activation_dropout_forward(a, a[0])[0] == 2).all()
stats = hidden._bias_relu.compiled.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


def python(code, cache, **how):
    how |= {"env": os.environ | {"PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(cache)}, "cwd": ROOT}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, **how)
    assert done.returncode == 0, done.stderr
    return done


def cut_off(file):
    file.write_bytes(file.read_bytes()[:-100])


def overwrite(file):
    file.write_bytes(b"\x80\x05\x95 what is this?" * 20)


@pytest.fixture
def function(tmp_path, monkeypatch):
    """Return a function in a file of its own, beside which it is cached."""
    (tmp_path / "small.py").write_text("def double(x):\n    return x + x\n")
    spec = importlib.util.spec_from_file_location("small", tmp_path / "small.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "small", module)
    spec.loader.exec_module(module)
    return module.double


def loaded(function):
    """How many of two signatures' code, and of an address's, are found on disk; what it computes is right."""
    from fcnet.backends.cpu.jit import callback, compiled

    dispatcher, address = compiled(function), callback(function, "float64(float64)")
    assert (dispatcher(2), dispatcher(2.5)) == (4, 5.0)
    assert address.ctypes(1.5) == 3.0
    return sum(dispatcher.stats.cache_hits.values()), address.cache_hits


DAMAGES = [cut_off, overwrite, lambda file: file.write_bytes(b"")]


@pytest.mark.parametrize("damage", DAMAGES, ids=["cut off", "overwritten", "empty"])
@pytest.mark.parametrize("kind", ["nbi", "nbc"])
def test_damaged_files_are_compiled_anew(damage, kind, function, tmp_path):
    assert loaded(function) == (0, 0)
    assert loaded(function) == (2, 1)
    for file in tmp_path.rglob(f"*.{kind}"):
        damage(file)
    assert loaded(function)[0] < 2
    assert loaded(function) == (2, 1)


def test_a_file_with_another_signatures_code_is_compiled_anew(function, tmp_path):
    """As two processes leave it that save at once."""
    loaded(function)
    one, two = sorted(tmp_path.rglob("*.[12].nbc"))
    two.write_bytes(one.read_bytes())
    assert loaded(function)[0] < 2


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="limits as on Linux")
def test_a_cache_that_cannot_be_written_is_said_once(tmp_path):
    import resource

    done = python(CALL, tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)))
    assert done.stdout.split() == ["0", "2"]
    assert done.stderr.count("RuntimeWarning: compiled CPU kernels cannot be kept, so every process compiles") == 1


def test_code_compiled_from_other_contents_is_not_used(function, tmp_path, monkeypatch):
    """Also where a file changes that keeps its time stamp and size, and where times lie in the future."""
    from fcnet.backends.cpu import cache

    def as_a_new_process():
        monkeypatch.setattr(cache, "_clean", set())
        monkeypatch.setattr(cache, "digest", functools.cache(digest))
        return loaded(function)

    digest, own, other = cache.digest.__wrapped__, tmp_path / "small.py", tmp_path / "other.py"
    other.write_text("one pass over the scores")
    monkeypatch.setattr(cache, "_sources", lambda: [other, own])
    os.utime(own, (4e9, 4e9))  # in the future
    assert as_a_new_process() == (0, 0)
    assert as_a_new_process() == (2, 1)
    before = {file.name for file in tmp_path.rglob("*.nb[ic]")}
    stamp = other.stat()
    other.write_text("two pass over the scores")
    os.utime(other, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert other.stat().st_size == stamp.st_size
    assert as_a_new_process() == (0, 0)
    assert not before & {file.name for file in tmp_path.rglob("*.nb[ic]")}, "and the old ones are gone"


def test_the_digest_is_of_all_kernels():
    from fcnet.backends.cpu import cache

    folder = ROOT / "fcnet" / "backends" / "cpu"
    rules = folder.parent / "rules.py"  # numbers of which are compiled into kernels
    expected = [*sorted(file.resolve() for file in folder.glob("*.py")), rules.resolve()]
    assert [file.resolve() for file in cache._sources()] == expected


def test_what_is_not_ours_is_left_alone(tmp_path):
    from fcnet.backends.cpu import cache

    ours = [f"hidden._copy-74.py311.{cache.digest()}.nbi", f"hidden._copy-74.py311.{cache.digest()}.1.nbc"]
    others = ["model.f-3.py311.nbi", "hidden.txt", "hidden.py"]
    outdated = [
        "hidden._copy-74.py311.nbi",
        "hidden._copy-74.py311.0123456789ab.1.nbc",
        "pool.share-1.py311.2.nbc",
    ]
    for name in (*ours, *others, *outdated):
        (tmp_path / name).touch()
    cache.drop_outdated(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {*ours, *others}
    (tmp_path / outdated[0]).touch()
    cache.drop_outdated(tmp_path)  # once in a process
    assert (tmp_path / outdated[0]).exists()


INTERRUPTED = """
import signal, sys, threading, time
import numpy as np
from fcnet.backends import get_backend
from fcnet import functional as F
armed = False
def interrupt(number, frame):
    global armed
    if armed:  # within the try below, and once for each time it is entered
        armed = False
        raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
a = np.ones((4, 3), np.float32)
signal.setitimer(signal.ITIMER_REAL, *map(float, sys.argv[1:]))
interrupts = 0
done = False
while not done:
    try:
        armed = True
        out = F.bias_activation_dropout_forward(a, a[0])[0]
        armed, done = False, True
    except KeyboardInterrupt:
        interrupts += 1
signal.setitimer(signal.ITIMER_REAL, 0)
assert (out == 2).all()
assert F.advance(np.zeros(2, int), np.ones(2, int)).all()
print(interrupts > 0, get_backend("cpu").describe())
"""


@pytest.mark.parametrize("times", [("0.02", "0.02"), ("0.2", "0.01")], ids=str)
def test_interrupts_while_numba_is_imported_and_compiles(times, tmp_path):
    code = INTERRUPTED.replace("sys.argv[1:]", repr(times))
    done = python(code, tmp_path, timeout=HANGS)
    assert done.stdout.startswith("True ")
    assert "Numba" in done.stdout


def test_an_import_cut_off_is_not_tried_again(monkeypatch):
    from fcnet.backends.cpu import loader

    tries = []

    def cut_off():
        tries.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(loader, "_loaded", None)
    monkeypatch.setattr(loader, "_look", cut_off)
    with pytest.raises(KeyboardInterrupt):
        loader.load()
    assert loader.load().kernels == {}
    assert loader.load().status == "not usable: KeyboardInterrupt while it was imported; start Python anew"
    assert len(tries) == 1


class TestDeferred:
    def test_a_handler_runs_afterwards_and_once(self):
        from fcnet.backends.signals import Deferred

        heard = []
        before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
        try:
            with Deferred():
                for _ in range(2):
                    signal.raise_signal(signal.SIGTERM)
                assert heard == []
            assert heard == [signal.SIGTERM]
            signal.raise_signal(signal.SIGTERM)
            assert len(heard) == 2
        finally:
            signal.signal(signal.SIGTERM, before)

    def test_what_is_ignored_stays_so(self):
        from fcnet.backends.signals import Deferred

        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            with Deferred():
                assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        finally:
            signal.signal(signal.SIGTERM, before)

    def test_one_within_another(self):
        from fcnet.backends.signals import Deferred

        done = []

        def work():
            with Deferred():
                with Deferred():
                    signal.raise_signal(signal.SIGINT)
                    done.append(1)
                done.append(2)

        with pytest.raises(KeyboardInterrupt):
            work()
        assert done == [1, 2]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def test_other_threads_have_nothing_to_defer(self):
        from fcnet.backends.signals import Deferred

        seen = []

        def work():
            with Deferred():
                seen.append(signal.getsignal(signal.SIGINT))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert seen == [signal.getsignal(signal.SIGINT)]
