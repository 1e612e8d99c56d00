"""Unpickling that knows uint8 arrays, strings, numbers, lists and dicts, and refuses everything else.

A pickle is a program: what it names, it runs. CIFAR-10's Python version comes as pickles, so they are read by
an unpickler that knows only stand-ins for what rebuilds an array. Nothing is ever looked up by name, and
NumPy's own unpickling, which trusts what it is told about memory, takes no part either.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, ClassVar

import numpy as np


class _Refused(Exception):
    pass


def _encode(text: str, encoding: str = "latin1") -> bytes:
    # Stands in for _codecs.encode, by which Python 3 writes bytes into a protocol-2 pickle; always in latin1.
    if encoding != "latin1":
        raise _Refused(f"_codecs.encode to {encoding!r}")
    return text.encode("latin1")


class _Dtype:
    """Stands in for numpy.dtype: the name is kept, the details that follow are not needed for bytes."""

    def __init__(self, name: str | bytes, *_: object) -> None:
        self.name = name.decode("latin1") if isinstance(name, bytes) else str(name)

    def __setstate__(self, state: object) -> None:
        pass


class _Array:
    """Stands in for numpy.ndarray, and becomes one when its state arrives."""

    value: np.ndarray | None = None

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Dtype, bool, bytes]) -> None:
        _, shape, dtype, fortran, data = state
        self.value = _uint8(data, dtype, shape, "F" if fortran else "C")


def _uint8(data: Any, dtype: _Dtype, shape: tuple[int, ...], order: Any) -> np.ndarray:
    if not isinstance(dtype, _Dtype) or dtype.name != "u1":
        raise _Refused(f"an array of {getattr(dtype, 'name', dtype)!r}, not 'u1'")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape, order=order)


def _reconstruct(*_: object) -> _Array:
    return _Array()


_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    # NumPy 2 renamed numpy.core. _frombuffer is what pickle protocol 5 uses.
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _uint8,
    ("numpy._core.numeric", "_frombuffer"): _uint8,
}


class _Unpickler(pickle._Unpickler):
    # The one in Python: the one in C takes a number in a damaged file for a size and can ask for 64 GB of memory.
    # One opcode does so here too; read as plain bytes, it gets no more than the file has.
    dispatch: ClassVar[Any] = {
        **pickle._Unpickler.dispatch,
        pickle.BYTEARRAY8[0]: pickle._Unpickler.dispatch[pickle.BINBYTES8[0]],
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None


def load_dict(path: Path, limit: int, advice: str = "get the file again") -> dict[Any, Any]:
    """The dict in a pickle of at most `limit` bytes; Python 2 strings come as bytes, arrays as uint8.

    Raises ValueError if the pickle names anything but what such arrays need (nothing of it is run), is damaged,
    or holds something else.
    """
    size = path.stat().st_size
    if size > limit:
        raise ValueError(f"{path}: expected at most {limit} bytes; got {size}; {advice}")
    data = path.read_bytes()
    try:
        content = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except _Refused as refused:
        raise ValueError(
            f"{path}: expected a pickle of uint8 arrays; it wants to load {refused}, "
            f"which was refused and not run; {advice}"
        ) from None
    except Exception as error:  # a damaged pickle can fail in any way at all
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise ValueError(f"{path}: expected a complete pickle; got a damaged one ({reason}); {advice}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a dict; got {type(content).__name__}; {advice}")
    return {key: value.value if isinstance(value, _Array) else value for key, value in content.items()}
