"""A private copy of OpenBLAS for our own threads: single-threaded products, called from compiled code.

NumPy's own copy is not used: its threads spin for 0.1 s after each product, on the cores that ours need; the user
decides its number of threads; and on a CPU newer than its list of models it may choose code for vectors half as wide.
The package scipy-openblas32 contains another copy, loaded here with one thread and, where the CPU has AVX-512, with the
code for that.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

from llvmlite import binding
from numba import types

PACKAGE = "scipy_openblas32"
SYMBOL = "fcnet_sgemm"  # what compiled code calls
WIDE = ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd")  # required by OpenBLAS's SkylakeX code

_int, _address, _float = types.int32, types.int64, types.float32
#: cblas_sgemm(order, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc); pointers as addresses.
sgemm = types.ExternalFunction(
    SYMBOL,
    types.void(*[_int] * 6, _float, _address, _int, _address, _int, _float, _address, _int),
)
ROW_MAJOR, NO_TRANS, TRANS = 101, 111, 112  # CBLAS's enumeration


class Blas(NamedTuple):
    """Describe the library in use; `core` is the kind of CPU that it chose its code for, such as "SkylakeX"."""

    version: str
    core: str


@cache
def loaded() -> Blas | None:
    """Load the library, make its product callable from compiled code and describe it; None if it is not installed.

    Raises OSError or AttributeError if it is installed and cannot be used.
    """
    found = importlib.util.find_spec(PACKAGE)  # importing it would start a thread for each core
    if found is None or found.submodule_search_locations is None:
        return None
    folder = Path(found.submodule_search_locations[0]) / "lib"
    files = sorted(file for file in folder.glob("*scipy_openblas*") if file.suffix in (".so", ".dylib", ".dll"))
    if not files:
        raise OSError(f"{PACKAGE} has no library in {folder}; pip install --force-reinstall scipy-openblas32")
    with _environment({"OPENBLAS_NUM_THREADS": "1", "OPENBLAS_CORETYPE": _core()}):
        library = ctypes.CDLL(str(files[0]))
    library.scipy_openblas_set_num_threads(1)
    binding.add_symbol(SYMBOL, ctypes.cast(library.scipy_cblas_sgemm, ctypes.c_void_p).value)
    return Blas(_text(library, "scipy_openblas_get_config").split()[1], _text(library, "scipy_openblas_get_corename"))


def _core() -> str | None:
    """Return the kind of code to ask for; None leaves the choice to the library."""
    features = binding.get_host_cpu_features()
    return "SkylakeX" if all(features.get(name) for name in WIDE) else None


def _text(library: ctypes.CDLL, name: str) -> str:
    function = getattr(library, name)
    function.restype = ctypes.c_char_p
    return function().decode()


@contextmanager
def _environment(wanted: Mapping[str, str | None]) -> Iterator[None]:
    """Set these environment variables within the context (None: unset); the library reads them when it is loaded."""
    before = {name: os.environ.get(name) for name in wanted}
    _put(wanted)
    try:
        yield
    finally:
        _put(before)


def _put(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
