"""A pool of worker threads that share the pieces of a job, in place of Numba's own pools.

A job is a task (compiled code) and a number of pieces. Each free thread claims the next piece, and so does the calling
thread, so a worker that the system does not run delays only the piece it has claimed. Each piece writes its own part of
the result, so the result does not depend on which thread computed it. After its last piece a worker spins for a moment,
because the next job of a training step comes within microseconds; then it blocks until there is more work.

Numba's pools are unsuitable: workqueue aborts the process when two Python threads use it, and OpenMP's idle threads
spin for milliseconds, on the core that another library's threads need.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fcnet.backends.cpu.jit import Jit, callback, compiling, trace_loop, traces

MOST = 16  # threads; more have not been measured
WORTH = 400_000  # operations of a job; for less, waking a sleeping worker costs more than it gains
SPINS = 60000  # looks for work before a worker goes to sleep, 1 ms: an epoch's shuffle may come between two jobs

# The shared words: 64 bits each, seen by all threads; each counter has a cache line of its own.
LEFT, DONE, TASK, JOB = 0, 8, 16, 24
WORDS = 48
SCRATCH = 1 << 20  # bytes of each thread's own working memory

_word = ir.IntType(64)


def _pointer(builder: ir.IRBuilder, address: Any) -> Any:
    return builder.inttoptr(address, _word.as_pointer())


@intrinsic
def load(typing, address):
    """Return the word at an address, and see all that its writer stored before it (acquire)."""

    def generate(context, builder, signature, arguments):
        return builder.load_atomic(_pointer(builder, arguments[0]), "acquire", 8)

    return types.int64(types.int64), generate


@intrinsic
def store(typing, address, value):
    """Store a word at an address, visible only after all that was stored before it (release)."""

    def generate(context, builder, signature, arguments):
        builder.store_atomic(arguments[1], _pointer(builder, arguments[0]), "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def add(typing, address, value):
    """Add to the word at an address atomically, and return its old value."""

    def generate(context, builder, signature, arguments):
        return builder.atomic_rmw("add", _pointer(builder, arguments[0]), arguments[1], "acq_rel")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def relax(typing):
    """Pause a spinning core for some cycles."""

    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(ir.VoidType(), [])
        if context.codegen().target_data and "x86" in builder.module.triple:
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", (), kind), [])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def perform(typing, task, shared, piece, scratch):
    """Call the compiled task at an address: void task(shared, piece, scratch)."""

    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(ir.VoidType(), [_word] * 3)
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), generate


@intrinsic
def copy(typing, source, target, size):
    """Copy `size` bytes from one address to another."""

    def generate(context, builder, signature, arguments):
        source, target, size = arguments
        pointers = [builder.inttoptr(address, ir.IntType(8).as_pointer()) for address in (target, source)]
        move = builder.module.declare_intrinsic("llvm.memcpy", [p.type for p in pointers] + [_word])
        builder.call(move, [*pointers, size, ir.Constant(ir.IntType(1), 0)])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), generate


def _array(item: Any, lanes: Any) -> Any:
    """Return an intrinsic that turns an address into a pointer to such items."""

    @intrinsic
    def pointer(typing, address):
        def generate(context, builder, signature, arguments):
            return builder.inttoptr(arguments[0], lanes.as_pointer())

        return types.CPointer(item)(types.int64), generate

    return pointer


to_floats = _array(types.float32, ir.FloatType())
to_doubles = _array(types.float64, ir.DoubleType())
to_words = _array(types.int64, _word)
to_bytes = _array(types.uint8, ir.IntType(8))
to_bits = _array(types.uint16, ir.IntType(16))


@numba.njit(inline="always")
def floats(address, count):
    """Return the float32 array at an address."""
    return numba.carray(to_floats(address), (count,))


@numba.njit(inline="always")
def doubles(address, count):
    """Return the float64 array at an address."""
    return numba.carray(to_doubles(address), (count,))


@numba.njit(inline="always")
def words(address, count):
    """Return the int64 array at an address."""
    return numba.carray(to_words(address), (count,))


@numba.njit(inline="always")
def no_bits():
    """Return a matrix of uint16 without elements."""
    return numba.carray(to_bits(0), (0, 0))


@numba.njit(inline="always")
def context_arrays(shared, scratch):
    """Return the arrays of a job context at these addresses."""
    return words(shared, WORDS), numba.carray(to_bytes(scratch), (SCRATCH,))


@Jit
def _work(shared, scratch, spins):
    """Compute pieces as they come, until there have been none for `spins` looks in a row."""
    base = shared.ctypes.data
    mine = scratch.ctypes.data
    idle = 0
    while idle < spins:
        if load(base + 8 * LEFT) > 0:
            piece = add(base + 8 * LEFT, -1) - 1
            if piece >= 0:
                perform(load(base + 8 * TASK), base, piece, mine)
                add(base + 8 * DONE, 1)
                idle = 0
        relax()
        idle += 1


@Jit
def run_pieces(shared, scratch, pieces):
    """Publish the job that the shared words describe, take part in it, and return when it is done."""
    base = shared.ctypes.data
    mine = scratch.ctypes.data
    task = shared[TASK]
    shared[DONE] = 0
    store(base + 8 * LEFT, pieces)  # from here on workers may claim
    while True:
        piece = add(base + 8 * LEFT, -1) - 1
        if piece < 0:
            break
        perform(task, base, piece, mine)
        add(base + 8 * DONE, 1)
    while load(base + 8 * DONE) < pieces:
        relax()


class Task:
    """Compile code that computes one piece of a job: `void task(shared, piece, scratch)`, all integers."""

    signature = "void(int64, int64, int64)"

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function
        self._compiled: Any = None

    @property
    def address(self) -> int:
        """Return the address of the compiled code, compiled when first asked for."""
        if self._compiled is None:
            with compiling(self._function.__name__):
                self._compiled = callback(self._function, self.signature)
        return self._compiled.address


class JobContext(NamedTuple):
    """Hold what a job runs with: the shared words that describe it, and the calling thread's scratch memory."""

    shared: np.ndarray
    scratch: np.ndarray
    num_threads: int  # threads that look at the shared words, the calling one included

    @classmethod
    def empty(cls, num_threads: int) -> JobContext:
        """Return a context without a job."""
        return cls(np.zeros(WORDS, np.int64), np.empty(SCRATCH, np.uint8), num_threads)


_local = threading.local()


def _own_context() -> JobContext:
    """Return this thread's own context, for jobs that it computes alone while another thread uses the pool."""
    try:
        return _local.context
    except AttributeError:
        _local.context = JobContext.empty(1)
        return _local.context


class Pool:
    """Run the worker threads of this process. Only one job uses them at a time; a second caller computes alone."""

    def __init__(self, num_threads: int) -> None:
        self.context = JobContext.empty(num_threads)
        self.lock = threading.RLock()  # a lock that knows its owner, for `run`
        self._gate = threading.Semaphore(0)
        self._counting = threading.Lock()
        self.asleep = 0
        self.missing = num_threads - 1  # workers not yet started
        self._closing = False
        self._workers: list[threading.Thread] = []

    def wake_workers(self) -> None:
        """Start the workers that are missing, and wake those that sleep."""
        try:
            for _ in range(self.missing):
                worker = threading.Thread(target=self._serve, name="fcnet worker", daemon=True)
                worker.start()
                self._workers.append(worker)
        except RuntimeError:  # the system allows no more threads, as in a container with a limit: make do with fewer
            pass
        self.missing = 0
        with self._counting:
            if self.asleep:
                self._gate.release(self.asleep)
            self.asleep = 0

    def _serve(self) -> None:
        scratch = np.empty(SCRATCH, np.uint8)
        while not self._closing:
            _work(self.context.shared, scratch, SPINS)
            with self._counting:
                self.asleep += 1
            self._gate.acquire()

    def close(self) -> None:
        """End the workers, before the interpreter frees the code that they run."""
        self._closing = True
        if self._workers:
            self._gate.release(len(self._workers))
        for worker in self._workers:
            worker.join(timeout=1)


def threads() -> int:
    """Return how many threads a job may use: the cores of this process, or fewer if the environment limits them."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        count = os.cpu_count() or 1
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # a limit for BLAS is meant for our products, too
        limit = os.environ.get(variable, "").split(",")[0].strip()  # a list has one number per nested level
        if limit.isdecimal() and int(limit) > 0:
            count = min(count, int(limit))
    return min(count, _quota(), MOST)


def _quota(file: str = "/sys/fs/cgroup/cpu.max") -> int:
    """Return how many processors a container may use, at least 1; without such a limit, MOST.

    More spinning threads would use up the container's processor time, and the system would stop the whole process.
    """
    try:
        with open(file) as text:
            quota, period = text.read().split()
        return MOST if quota == "max" else max(1, int(quota) // int(period))
    except (OSError, ValueError):  # no control groups, or those of version 1
        return MOST


_pool: Pool | None = None
_making = threading.Lock()


def run(function: Jit, *arguments: Any, work: int) -> None:
    """Run function(*arguments, shared, scratch, num_threads); wake workers if `work` operations are worth it."""
    if traces:
        trace_loop(function, arguments, work)
    pool = _pool or _made()
    try:
        if not pool.lock.acquire(False):
            function.untraced(*arguments, *_own_context())
            return
        shared, scratch, num_threads = pool.context
        if work > WORTH and num_threads > 1 and (pool.asleep or pool.missing):
            pool.wake_workers()
        function.untraced(*arguments, shared, scratch, num_threads)
        pool.lock.release()
    except BaseException:
        # Ctrl-C may also come right after `acquire` or `release`: only the lock itself knows whether it is held then.
        if pool.lock._is_owned():  # type: ignore[attr-defined]
            pool.lock.release()
        raise


def _made() -> Pool:
    global _pool
    with _making:
        if _pool is None:
            _pool = Pool(threads())
            atexit.register(_pool.close)
    return _pool


def _forget() -> None:
    """Reset the pool in a forked child: its parent's threads are gone, and a lock may be held for good.

    The traces go, too: the child's threads have the same identifiers, but none of their calls is traced.
    """
    global _pool, _making
    _pool, _making = None, threading.Lock()
    traces.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
