"""Numba kernels for the CPU (extra `fast`): loaded when the first accelerated function meets a NumPy array.

Compiled once and cached on disk (`cache`). Large jobs are shared by threads of our own (`pool`); Numba's are never
started. If Numba is missing, broken or cannot cache, NumPy serves and `status()` says why.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from backends.base import Kernel
from backends.signals import deferred

SWITCH = "FCNET_NUMBA"  # in the environment; if it is off, NumPy serves
OFF, ON = ("0", "false", "no", "off"), ("", "1", "true", "yes", "on")

_loaded: tuple[Mapping[str, Kernel], str] | None = None


def kernels() -> Mapping[str, Kernel]:
    """Name of a reference function -> its kernel; empty if NumPy serves. The first call imports Numba."""
    return _load()[0]


def compile(calls: Sequence[Callable[[], Any]]) -> Callable[[], Any]:
    """What makes these calls in turn; the kernels' among them in compiled code where that is faster."""
    from backends.cpu import tape

    return tape.compile(calls, frozenset(kernel.function for kernel in kernels().values()))


def status() -> str:
    """One line for people: whether the kernels serve, and if not, why."""
    return _load()[1]


def _load() -> tuple[Mapping[str, Kernel], str]:
    global _loaded
    if _loaded is None:
        with deferred():
            try:
                _loaded = _try()
            except BaseException as error:  # half of Numba is imported now, and a second import would not mend it
                _loaded = {}, f"not usable: {type(error).__name__} while it was imported; start Python anew"
                raise
    return _loaded


def _try() -> tuple[Mapping[str, Kernel], str]:
    switch = os.environ.get(SWITCH, "").strip()
    if switch.lower() in OFF:
        return {}, f"off: {SWITCH}={switch}"
    try:
        import numba

        from backends.cpu import affine, batch, loss, pool, product, units, update
    except ModuleNotFoundError as error:
        if error.name == "numba":
            return {}, "not installed: pip install 'fcnet[fast]'"
        return {}, f"not usable: {error}"
    except (Exception, SystemExit) as error:  # a broken install can fail in any way: NumPy serves whatever it is
        return {}, f"not usable: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    own = product.served()
    kernels = {**batch.KERNELS, **loss.KERNELS, **units.KERNELS, **update.KERNELS, **(affine.KERNELS if own else {})}
    threads = pool.threads()
    serve = f"Numba {numba.__version__}, {threads} thread{'s' if threads > 1 else ''}"
    serve += ", matrix products in AVX-512" if own else ""
    return kernels, serve if switch.lower() in ON else f"{serve}; {SWITCH}: expected 0 or 1, got {switch!r}: on"
