"""Load the Numba kernels, when the first accelerated function is called with a NumPy array.

Without Numba, or with FCNET_NUMBA=0, NumPy is used. If Numba is installed but kernels cannot be loaded, NumPy is used
in their place, and one warning says which kernels are missing and why.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from fcnet.backends.device import Call, Kernel
from fcnet.backends.signals import Deferred
from fcnet.errors import install

SWITCH = "FCNET_NUMBA"  # the environment variable that turns the kernels off
OFF, ON = ("0", "false", "no", "off"), ("", "1", "true", "yes", "on")
MODULES = ("affine", "batch", "hidden", "loss", "optim", "shuffle")  # each with its KERNELS


class Loaded(NamedTuple):
    """Hold the result of loading.

    Attributes:
        kernels: name of a reference function -> its kernel; empty if NumPy is used.
        status: one line of text: whether the kernels are used, and if not, why.
        broken: module -> why its kernels cannot be used although Numba is installed.
    """

    kernels: Mapping[str, Kernel]
    status: str
    broken: Mapping[str, str] = {}


_loaded: Loaded | None = None


def load() -> Loaded:
    """Return the kernels. The first call imports Numba, and warns of kernels that cannot be loaded."""
    global _loaded
    if _loaded is None:
        with Deferred():
            try:
                _loaded = _look()
            except BaseException as error:  # Numba is half imported now, and a second import would not repair it
                _loaded = Loaded({}, f"not usable: {type(error).__name__} while it was imported; start Python anew")
                raise
        if _loaded.broken:
            why = _together(_loaded.broken)
            remedy = "" if "NUMBA_CACHE_DIR" in why else "pip install -U numba may help, "
            warnings.warn(
                f"CPU kernels cannot be used, NumPy serves in their place: {why}; "
                f"{remedy}{SWITCH}=0 chooses NumPy without this warning",
                RuntimeWarning,
                stacklevel=2,
            )
    return _loaded


def first_call(kernel: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """Make a kernel's call, see `Backend.first_call`; the notes are the thunks that repeat it, or None."""
    from fcnet.backends.cpu import compiled_step

    return compiled_step.first_call(kernel, *args, **kwargs)


def compile(calls: Sequence[Call]) -> Callable[[], Any]:
    """Return a function that makes these calls in turn, kernels in compiled code where that is faster."""
    from fcnet.backends.cpu import compiled_step

    return compiled_step.compile(calls)


def shortened(calls: Sequence[Call]) -> list[Call] | None:
    """Return the calls with those of a small net on many rows replaced by one, of other bits; None: there are none."""
    if "matmul" not in load().kernels:  # rows go through the same library
        return None
    from fcnet.backends.cpu import row_blocks

    return row_blocks.shortened(calls)


def _look() -> Loaded:
    switch = os.environ.get(SWITCH, "").strip()
    if switch.lower() in OFF:
        return Loaded({}, f"off: {SWITCH}={switch}")
    if importlib.util.find_spec("numba") is None:
        return Loaded({}, f"not installed: {install('fast')}")
    kernels: dict[str, Kernel] = {}
    broken: dict[str, str] = {}
    for name in MODULES:
        try:
            kernels |= import_module(f"fcnet.backends.cpu.{name}").KERNELS
        except (Exception, SystemExit) as error:  # a broken install can fail in any way
            broken[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return Loaded(kernels, _status(kernels, broken, switch), broken)


def _status(kernels: Mapping[str, Kernel], broken: Mapping[str, str], switch: str) -> str:
    why = f"not usable: {_together(broken)}" if broken else ""
    if not kernels:
        return why
    import numba

    from fcnet.backends.cpu import pool

    count = pool.threads()
    parts = [f"Numba {numba.__version__}, {count} thread{'s' if count > 1 else ''}"]
    parts[0] += f", matrix products by {_products(kernels)}"
    if switch.lower() not in ON:
        parts.append(f"{SWITCH}: expected 0 or 1, got {switch!r}: on")
    return "; ".join([*parts, *([why] if why else [])])


def _products(kernels: Mapping[str, Kernel]) -> str:
    """Return which library multiplies matrices, on which bits and speed depend."""
    if "affine_forward" not in kernels:
        return f"NumPy (for more speed: {install('fast')})"
    from fcnet.backends.cpu import blas

    library = blas.loaded()
    assert library is not None  # or there were no such kernel
    return f"OpenBLAS {library.version} ({library.core})"


def _together(broken: Mapping[str, str]) -> str:
    """Return the reasons with their modules, as in "affine, loss (ImportError: ...)"."""
    reasons = dict.fromkeys(broken.values())
    return "; ".join(f"{', '.join(name for name in broken if broken[name] == why)} ({why})" for why in reasons)
