"""Products shared out, and the threads that share them: right, the same whoever computes, and no trace left behind."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from fcnet import functional as F
from fcnet.backends.cpu import loader
from tests.kernels.test_cpu_kernels import forget
from tests.needed import HANGS, lacking
from tests.tolerances import assert_close

ROOT = Path(__file__).parent.parent.parent

# Around what the library counts in: rows and columns of a tile, lanes, the depth of a block.
EDGES = [1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 100, 287, 288, 289, 513]


@pytest.fixture
def served(cpu_kernels):
    """Skip, but in CI, where NumPy computes the products."""
    if "matmul" not in loader.load().kernels:
        lacking("scipy-openblas32, for products shared out to threads")


@pytest.fixture
def multiply(served):
    """multiply(a, b, turned, threads=None): the product, next to memory that must stay as it is."""
    from fcnet.backends.cpu import pool, product

    def run(a, b, turned=(False, False), alone=False):
        rows, columns = a.shape[turned[0]], b.shape[1 - turned[1]]
        memory = np.full(rows * columns + 64, 7, np.float32)
        out = memory[32:-32].reshape(rows, columns)
        out[...] = np.nan
        arguments = a, b, out, *turned, product.task()
        if alone:
            product.multiply(*arguments, *pool.JobContext.empty(1))
        else:
            pool.run(product.multiply, *arguments, work=a.size * columns)
        assert (memory[:32] == 7).all()
        assert (memory[-32:] == 7).all()
        return out

    return run


def operands(rng, m, k, n, turned=(False, False)):
    a, b = rng.standard_normal((m, k)).astype(np.float32), rng.standard_normal((k, n)).astype(np.float32)
    expected = a.astype(np.float64) @ b.astype(np.float64)
    laid = [np.ascontiguousarray(x.T) if turn else x for x, turn in zip((a, b), turned, strict=True)]
    return *laid, expected


@pytest.mark.parametrize("turned", [*itertools.product([False, True], repeat=2)], ids=["nn", "nt", "tn", "tt"])
@pytest.mark.parametrize("alone", [False, True], ids=["shared", "alone"])
def test_products_of_every_size_at_the_edges(turned, alone, rng, multiply):
    shapes = [rng.choice(EDGES, 3) for _ in range(60)] + [(size, size, size) for size in EDGES]
    for m, k, n in shapes:
        a, b, expected = operands(rng, m, k, n, turned)
        got = multiply(a, b, turned, alone)
        scale = np.sqrt(k)  # entries are of this order: the table's tolerance is for order 1
        assert_close(got / np.float32(scale), expected / scale, "float32", "gemm")


def test_who_computes_a_piece_does_not_show_in_the_bits(rng, multiply):
    for m, k, n in [(100, 784, 100), (784, 100, 100), (520, 600, 200), (256, 700, 1024)]:
        a, b, _ = operands(rng, m, k, n)
        first = multiply(a, b)
        for _ in range(5):
            np.testing.assert_array_equal(multiply(a, b), first)


def test_what_an_earlier_product_left_behind_is_not_seen(rng, multiply):
    multiply(*(np.full((300, 300), np.nan, np.float32) for _ in range(2)))
    for m, k, n in [(3, 5, 7), (9, 17, 33)]:
        a, b, expected = operands(rng, m, k, n)
        assert_close(multiply(a, b), expected, "float32", "gemm")


def test_nan_and_infinity_stay_where_they_belong(rng, multiply):
    a, b, _ = operands(rng, 20, 30, 40)
    clean = multiply(a, b)
    a[3, 4], b[5, 6] = np.nan, np.inf
    got = multiply(a, b)
    assert np.isnan(got[3]).all()
    assert not np.isfinite(got[:, 6]).any()
    rest = np.ix_([i for i in range(20) if i != 3], [j for j in range(40) if j != 6])
    np.testing.assert_array_equal(got[rest], clean[rest])


@pytest.mark.usefixtures("served")
def test_what_is_served():
    x, w, b = np.ones((4, 3), np.float32), np.ones((3, 2), np.float32), np.ones(2, np.float32)
    for arguments, serves in [
        ((x, w), True),
        ((x.astype(np.float64), w.astype(np.float64)), False),
        ((x[None], w), False),
        ((np.ones((3, 4), np.float32).T, w), False),
        ((np.ones((4, 0), np.float32), np.ones((0, 2), np.float32)), False),
    ]:
        assert (F.matmul.choose(*arguments) is not F.matmul.reference) is serves
    assert F.affine_forward.choose(x, w, b) is not F.affine_forward.reference
    dout = np.ones((4, 2), np.float32)
    assert F.affine_backward.choose(dout, (x, w, b)) is not F.affine_backward.reference
    assert F.matmul_backward.choose(dout, x, w) is not F.matmul_backward.reference
    assert F.matmul_backward.choose(dout[:, ::1].T.copy().T, x, w) is F.matmul_backward.reference


@pytest.mark.usefixtures("cpu_kernels")
def test_numpy_multiplies_without_the_library(monkeypatch):
    from fcnet.backends.cpu import blas

    monkeypatch.setattr(loader, "_loaded", None)
    forget("fcnet.backends.cpu.affine", monkeypatch)
    blas.loaded.cache_clear()
    monkeypatch.setattr(blas, "PACKAGE", "no_such_package")
    found = loader.load()
    blas.loaded.cache_clear()
    assert "matmul" not in found.kernels
    assert "adam" in found.kernels
    assert "matrix products by NumPy" in found.status
    assert "[fast]" in found.status


@pytest.mark.usefixtures("served")
def test_the_library_leaves_the_environment_as_it_was(monkeypatch):
    from fcnet.backends.cpu import blas

    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    blas.loaded.cache_clear()
    library = blas.loaded()
    assert os.environ["OPENBLAS_NUM_THREADS"] == "3"
    assert "OPENBLAS_CORETYPE" not in os.environ
    assert f"OpenBLAS {library.version} ({library.core})" in loader.load().status


@pytest.mark.usefixtures("cpu_kernels")
class TestPool:
    def test_a_helper_takes_part_sleeps_and_is_woken(self, rng, monkeypatch):
        from fcnet.backends.cpu import pool
        from fcnet.optim import rules

        monkeypatch.setattr(pool, "_pool", pool.Pool(3))
        w, expected = np.zeros(1_000_000, np.float32), 0.0
        for sleeping in (False, False, True, True):
            until = time.monotonic() + HANGS
            while sleeping and pool._pool.asleep < 2:  # both, after a while without work
                assert time.monotonic() < until
                time.sleep(0.01)
            rules.sgd(w, np.ones_like(w), 1.0, work=None)
            expected -= 1.0
            assert (w == expected).all()
        assert [worker.is_alive() for worker in pool._pool._workers] == [True, True]
        pool._pool.close()
        assert [worker.is_alive() for worker in pool._pool._workers] == [False, False]

    def test_small_jobs_wake_nobody(self, monkeypatch):
        from fcnet.backends.cpu import pool
        from fcnet.optim import rules

        monkeypatch.setattr(pool, "_pool", pool.Pool(2))
        w = np.zeros(10)
        rules.sgd(w, np.ones(10), 1.0, work=None)
        assert (w == -1).all()
        assert pool._pool.missing == 1

    def test_a_second_caller_works_alone(self, monkeypatch):
        from fcnet.backends.cpu import pool
        from fcnet.optim import rules

        w, desks = np.zeros(300_000), []
        monkeypatch.setattr(pool, "_own_context", lambda: desks.append(pool.JobContext.empty(1)) or desks[-1])
        with pool._made().lock:
            other = threading.Thread(target=rules.sgd, args=(w, np.ones_like(w), 1.0), kwargs={"work": None})
            other.start()
            other.join()
        assert len(desks) == 1
        rules.sgd(w, np.ones_like(w), 1.0, work=None)
        assert len(desks) == 1
        assert (w == -2).all()

    @pytest.mark.parametrize("when", ["acquire", "release"])
    def test_an_interrupt_right_after_the_lock_leaves_it_free(self, when, monkeypatch):
        """Python looks for signals when a call returns: before what it returned is known to anybody."""
        from fcnet.backends.cpu import pool
        from fcnet.optim import rules

        class Interrupted:
            lock = threading.RLock()

            def acquire(self, blocking):
                got = self.lock.acquire(blocking)
                if when == "acquire":
                    raise KeyboardInterrupt
                return got

            def release(self):
                self.lock.release()
                if when == "release" and not self.lock._is_owned():
                    raise KeyboardInterrupt

            def _is_owned(self):
                return self.lock._is_owned()

        w = np.zeros(10)
        with monkeypatch.context() as patch:
            patch.setattr(pool._made(), "lock", Interrupted())
            with pytest.raises(KeyboardInterrupt):
                rules.sgd(w, np.ones_like(w), 1.0, work=None)
            assert not Interrupted.lock._is_owned()

    def test_a_failing_kernel_leaves_the_lock_free(self):
        from fcnet.backends.cpu import pool

        class Fails:
            def untraced(self, *_):
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            pool.run(Fails(), work=0)
        assert not pool._made().lock._is_owned()

    def test_callers_at_once(self, rng, multiply):
        a, b, _ = operands(rng, 300, 300, 300)
        expected = multiply(a, b, alone=True)
        wrong = []

        def call():
            for _ in range(50):
                if not np.array_equal(F.matmul(a, b), expected):
                    wrong.append(1)

        callers = [threading.Thread(target=call) for _ in range(3)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert not wrong

    @pytest.mark.parametrize(
        ("environment", "limit"),
        [
            ({}, 99),
            ({"OMP_NUM_THREADS": "1"}, 1),
            ({"OPENBLAS_NUM_THREADS": "1"}, 1),
            ({"OMP_NUM_THREADS": "1,2"}, 1),
            ({"OMP_NUM_THREADS": " 1 , 4"}, 1),
            ({"OMP_NUM_THREADS": "no"}, 99),
            ({"OMP_NUM_THREADS": ",1"}, 99),
        ],
        ids=str,
    )
    def test_how_many_threads(self, environment, limit, monkeypatch):
        from fcnet.backends.cpu import pool

        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert pool.threads() == min(limit, pool.MOST, len(os.sched_getaffinity(0)))

    @pytest.mark.parametrize(
        ("text", "count"), [("max 100000\n", 16), ("200000 100000\n", 2), ("50000 100000\n", 1), ("what?", 16)]
    )
    def test_a_containers_share_of_time(self, text, count, tmp_path):
        from fcnet.backends.cpu import pool

        (tmp_path / "cpu.max").write_text(text)
        assert pool._quota(str(tmp_path / "cpu.max")) == count
        assert pool._quota(str(tmp_path / "missing")) == pool.MOST

    def test_many_threads_give_the_same_bits_each_time(self, rng, multiply, monkeypatch):
        from fcnet.backends.cpu import pool

        problems = [
            operands(rng, *shape) for shape in [(100, 784, 100), (530, 300, 70), (64, 200, 1024), (9, 5000, 40)]
        ]
        monkeypatch.setattr(pool, "_pool", pool.Pool(7))
        first = [multiply(a, b) for a, b, _ in problems]
        for (a, b, expected), before in zip(problems, first, strict=True):
            scale = np.float32(np.sqrt(a.shape[1]))
            assert_close(before / scale, expected / scale, "float32", "gemm")
            for _ in range(3):
                np.testing.assert_array_equal(multiply(a, b), before)
        pool._pool.close()


FORK = """
import os, sys, fcnet, numpy as np
from fcnet.backends.cpu import pool
from fcnet import functional as F
a = np.random.default_rng(0).standard_normal((400, 400)).astype(np.float32)
w = np.ones(300_000, np.float32)
before = F.matmul(a, a)
fcnet.optim.rules.sgd(w, w, 1.0, work=w)  # where NumPy multiplies, this makes the pool
child = os.fork()
fresh = child != 0 or pool._pool is None
same = fresh and all(np.array_equal(F.matmul(a, a), before) for _ in range(20))
if child == 0:
    os._exit(0 if same else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) + 2 * (not same))
"""


def ends_quietly(code):
    """Run this in a process of its own, which prints nothing."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=HANGS,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.usefixtures("cpu_kernels")
def test_a_forked_child_computes_and_both_end_quietly():
    ends_quietly(FORK)


FORK_WHILE_RECORDING = """
import os, sys, threading, numpy as np
from fcnet.backends.cpu import compiled_step, jit
from fcnet import functional as F
a = np.ones((4, 3), np.float32)
F.bias_activation_dropout_forward(a, a[0])
recording, done = threading.Event(), threading.Event()
thread = threading.Thread(target=lambda: compiled_step.first_call(lambda: (recording.set(), done.wait())))
thread.start()
recording.wait()
child = os.fork()
if child == 0:
    found, nobody = [], not jit.traces
    for _ in range(4):  # one of them may get the number of the thread that was recording
        other = threading.Thread(target=lambda: found.append(F.bias_activation_dropout_forward(a, a[0])[0]))
        other.start()
        other.join()
    os._exit(0 if nobody and len(found) == 4 and all((out == 2).all() for out in found) else 1)
done.set()
thread.join()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.usefixtures("cpu_kernels")
def test_calls_in_a_forked_child_are_made_though_another_thread_was_recording():
    ends_quietly(FORK_WHILE_RECORDING)
