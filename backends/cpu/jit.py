"""How kernels are compiled: strict arithmetic, cached on disk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np
from numba.core import sigutils
from numba.core.ccallback import CFunc

from fcnet.backends.cpu.cache import Cache
from fcnet.backends.signals import Deferred
from fcnet.errors import KernelError


class Trace:
    """The loops that a kernel's call runs.

    Attributes:
        loops: each with its arguments and its number of operations, in order.
        whole: whether they are all that the call does.
    """

    def __init__(self) -> None:
        self.loops: list[tuple[Jit, tuple[Any, ...], int]] = []
        self.whole = True


traces: dict[int, Trace] = {}  # by the number of the thread whose call is traced


@contextmanager
def tracing() -> Iterator[Trace]:
    """Trace the loops that this thread runs within."""
    thread, trace = threading.get_ident(), Trace()
    traces[thread] = trace
    try:
        yield trace
    finally:
        traces.pop(thread, None)  # gone already in a child that was forked meanwhile


def trace_loop(loop: Jit, arguments: tuple[Any, ...], work: int = 0) -> None:
    """Write a loop down that is about to run, if this thread's call is traced."""
    trace = traces.get(threading.get_ident())
    if trace is not None:
        trace.loops.append((loop, arguments, work))


def only_in_python() -> None:
    """Say, in a kernel, that this call does what no loop does: it will be made from Python each time."""
    trace = traces.get(threading.get_ident())
    if trace is not None:
        trace.whole = False


def compiled(function: Callable) -> Any:
    """Return a compiled function: no reordering of float sums, no Python lock while it runs; for other kernels to call.

    Divisions are NumPy's: one that may raise is not vectorised.

    Raises RuntimeError if Numba finds no place for its cache: compiling anew in each process would cost more than the
    kernels gain, so the caller lets NumPy serve.
    """
    dispatcher = numba.njit(nogil=True, error_model="numpy")(function)
    dispatcher._cache = Cache(function)  # what cache=True does, with a cache of our own
    return dispatcher


def callback(function: Callable, signature: str) -> Any:
    """Return a compiled function with an address; errors as of `compiled`."""
    made: Any = CFunc(function, sigutils.normalize_signature(signature), {}, {})  # as numba.cfunc
    made._cache = Cache(function)
    made.compile()
    return made


class Jit:
    """A compiled loop over arrays, for Python to call; errors as of `compiled`."""

    def __init__(self, function: Callable) -> None:
        self.compiled = compiled(function)
        self.thunk_form: Any = None  # how a tape plays it (`fcnet.backends.cpu.compiled_step`); None: not at all
        self._ready: set[str] = set()  # dtypes (of the first argument) that it has been compiled for

    def __call__(self, *args: Any) -> None:
        if traces:
            trace_loop(self, args)
        if args[0].dtype.char in self._ready:
            self.compiled(*args)
        else:
            self._compile(*args)

    def untraced(self, *args: Any) -> None:
        """Run the loop; whoever asks for it has traced it, or does not want it traced."""
        if args[0].dtype.char in self._ready:
            self.compiled(*args)
        else:
            self._compile(*args)

    def _compile(self, *args: Any) -> None:
        with compiling(self.compiled.__name__):
            self.compiled(*args)
        self._ready.add(args[0].dtype.char)


@contextmanager
def compiling(name: str) -> Iterator[None]:
    """Compile a kernel of this name within this: without interruption, and if it fails, in words.

    Raises:
        KernelError: Numba cannot, for whatever reason: it is not always one of its own errors.
    """
    try:
        with Deferred():
            yield
    except Exception as error:
        why = " ".join(str(error).split())[:200]
        raise KernelError(
            f"{name}: this CPU kernel cannot be compiled by Numba {numba.__version__} ({type(error).__name__}: {why}); "
            "with FCNET_NUMBA=0 in the environment NumPy serves, and pip install -U numba may help"
        ) from error


def is_contiguous_float(*arrays: Any) -> bool:
    """Return whether these are C-contiguous, writable float32 or float64 arrays of one dtype."""
    dtype = arrays[0].dtype
    if dtype.char not in "fd" or not dtype.isnative:
        return False
    for array in arrays:
        if type(array) is not np.ndarray or array.dtype != dtype:
            return False
        flags = array.flags
        if not (flags.c_contiguous and flags.aligned and flags.writeable):
            return False
    return True


def is_contiguous_integer(*arrays: Any) -> bool:
    """Return whether these are C-contiguous int64 vectors; they need not be writable."""
    return all(
        type(a) is np.ndarray and a.dtype == np.int64 and a.ndim == 1 and a.flags.c_contiguous and a.flags.aligned
        for a in arrays
    )


class Layout:
    """What loops over arrays take (`fcnet.backends.fits.Layout`)."""

    floats = staticmethod(is_contiguous_float)
    integers = staticmethod(is_contiguous_integer)

    def activates(self, activation: str, z: Any) -> bool:
        """Return False: only fused hidden layers have activations."""
        return False
