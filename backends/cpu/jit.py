"""Compile CPU kernels with Numba: strict arithmetic, cached on disk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np
from numba import types
from numba.core import sigutils
from numba.core.ccallback import CFunc
from numba.extending import intrinsic

from fcnet.backends.cpu.cache import Cache
from fcnet.backends.signals import Deferred
from fcnet.errors import KernelError


class Trace:
    """List the compiled loops that a traced kernel call has run.

    Attributes:
        loops: each with its arguments and its number of operations, in order.
        complete: whether the call did nothing else.
    """

    def __init__(self) -> None:
        self.loops: list[tuple[Jit, tuple[Any, ...], int]] = []
        self.complete = True


traces: dict[int, Trace] = {}  # by the identifier of the thread whose call is traced


@contextmanager
def tracing() -> Iterator[Trace]:
    """Trace the compiled loops that this thread runs within the context."""
    thread, trace = threading.get_ident(), Trace()
    traces[thread] = trace
    try:
        yield trace
    finally:
        traces.pop(thread, None)  # already gone in a child process that was forked meanwhile


def trace_loop(loop: Jit, arguments: tuple[Any, ...], work: int = 0) -> None:
    """Add a loop that is about to run to this thread's trace, if there is one."""
    trace = traces.get(threading.get_ident())
    if trace is not None:
        trace.loops.append((loop, arguments, work))


def only_in_python() -> None:
    """Mark the traced call as incomplete: it does what no compiled loop does, so it is repeated from Python."""
    trace = traces.get(threading.get_ident())
    if trace is not None:
        trace.complete = False


def compiled(function: Callable) -> Any:
    """Return a compiled function, for other kernels to call: it keeps the order of float sums and releases the GIL.

    A division by 0 gives inf or NaN, as in NumPy; one that may raise an exception would not be vectorised.

    Raises:
        RuntimeError: Numba finds no folder for its cache. Compiling in every process would cost more than the kernels
            gain, so the caller uses NumPy instead.
    """
    dispatcher = numba.njit(nogil=True, error_model="numpy")(function)
    dispatcher._cache = Cache(function)  # as cache=True does, but with our own cache
    return dispatcher


@intrinsic
def broad(typing):
    """Ask for the widest vectors of the CPU in this function's loops; with AVX-512 LLVM prefers half."""

    def generate(context, builder, signature, arguments):
        # llvmlite knows the attributes without a value only; this one changes speed, never bits.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        builder.function.attributes.add("noinline")  # a caller's own preference would hold for its loops
        return context.get_dummy_value()

    return types.void(), generate


def callback(function: Callable, signature: str) -> Any:
    """Return a compiled function that has an address; errors as in `compiled`."""
    made: Any = CFunc(function, sigutils.normalize_signature(signature), {}, {})  # as numba.cfunc
    made._cache = Cache(function)
    made.compile()
    return made


class Jit:
    """Compile a loop over arrays, for Python to call; errors as in `compiled`."""

    def __init__(self, function: Callable) -> None:
        self.compiled = compiled(function)
        self.thunk_form: Any = None  # the `ThunkForm` by which a compiled step runs it; None: no compiled step does
        self._ready: set[str] = set()  # dtypes of the first argument for which it has been compiled

    def __call__(self, *args: Any) -> None:
        if traces:
            trace_loop(self, args)
        if args[0].dtype.char in self._ready:
            self.compiled(*args)
        else:
            self._compile(*args)

    def untraced(self, *args: Any) -> None:
        """Run the loop without tracing it; the caller has traced it if necessary."""
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
    """Return a context in which to compile a kernel of this name: no signal interrupts it, and it fails with a message.

    Raises:
        KernelError: Numba cannot compile it; the error may be of any type.
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
    """Accept the memory layouts that compiled loops take, see `fcnet.backends.fits.Layout`."""

    floats = staticmethod(is_contiguous_float)
    integers = staticmethod(is_contiguous_integer)

    def activates(self, activation: str, z: Any) -> bool:
        """Return False: only fused hidden layers have activations."""
        return False
