"""Unpickling that knows arrays of numbers, strings, numbers, lists and dicts, and refuses everything else.

A pickle is a program: what it names, it runs. CIFAR-10's Python version comes as pickles, and so do the parameters of
CS231n's networks, a dictionary in an .npy file. They are read by an unpickler that knows only stand-ins for what
rebuilds an array. Nothing is ever looked up by name, and NumPy's own unpickling, which trusts the sizes that a file
states, takes no part either.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from tokenize import TokenError
from typing import Any, ClassVar

import numpy as np


class _Refused(Exception):
    pass


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    # Stands in for _codecs.encode, by which Python 3 writes bytes into a protocol-2 pickle; always in latin1.
    if not isinstance(text, str) or not isinstance(encoding, str) or encoding != "latin1":
        raise _Refused(f"_codecs.encode to {_named(encoding)!r}")
    return text.encode("latin1")


def _named(value: Any) -> str:
    return value[:20] if isinstance(value, str) else type(value).__name__


class _Dtype:
    """Stand in for numpy.dtype: name and byte order are kept."""

    def __init__(self, name: Any, *_: object) -> None:
        self.name = _text(name)
        self.order = "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = _text(state[1])


def _text(value: Any) -> str:
    """Return a short text as it is. What holds others is never spelled: of a few bytes that can take for ever."""
    if isinstance(value, bytes):
        value = value.decode("latin1")
    if not isinstance(value, str) or len(value) > 100:
        raise _Refused(f"a dtype by a {type(value).__name__}")
    return value


class _Array:
    """Stand in for numpy.ndarray: what its state says, of which `_value` makes an array."""

    dtype: Any = None
    shape: tuple[int, ...] = ()
    fortran = False
    data: Any = b""

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Dtype, bool, bytes]) -> None:
        _, shape, self.dtype, fortran, self.data = state
        if not isinstance(shape, tuple) or not all(type(length) is int for length in shape):
            raise _Refused("an array with another shape than a tuple of integers")
        self.shape, self.fortran = shape, fortran is True or fortran == 1


def _value(value: Any, kinds: frozenset[str]) -> Any:
    """Return an array for its stand-in; all else as it is."""
    if not isinstance(value, _Array):
        return value
    kind = getattr(value.dtype, "name", value.dtype)
    if not isinstance(value.dtype, _Dtype) or kind not in kinds or value.dtype.order not in ("<", ">", "|", "="):
        raise _Refused(f"an array of {kind!r}, not {' or '.join(map(repr, sorted(kinds)))}")
    array = np.frombuffer(value.data, dtype=np.dtype(value.dtype.order + kind))
    return array.reshape(value.shape, order="F" if value.fortran else "C")


def _frombuffer(data: Any, dtype: Any, shape: tuple[int, ...], order: Any) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, isinstance(order, str | bytes) and order in ("F", b"F"), data))
    return array


def _reconstruct(*_: object) -> _Array:
    return _Array()


_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    # NumPy 2 renamed numpy.core. _frombuffer is what pickle protocol 5 uses.
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
}


# What makes sets, or objects in other ways than `_ADMITTED`.
_WITHOUT = {
    code[0]
    for code in (
        *(
            pickle.EMPTY_SET,
            pickle.ADDITEMS,
            pickle.FROZENSET,
            pickle.PERSID,
            pickle.BINPERSID,
            pickle.INST,
            pickle.OBJ,
        ),
        *(pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2, pickle.EXT4),
        *(pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
    )
}


class _Unpickler(pickle._Unpickler):
    # The one in Python: the one in C takes a number in a damaged file for a size and can ask for 64 GB of memory.
    # One opcode does so here too; read as plain bytes, it gets no more than the file has.
    #
    # The work is in proportion to the file: each opcode does a bounded amount, but for those that ask an object for its
    # hash or spelling, which for a list of lists of the same list is never done, and for a list 200,000 deep the end
    # of the process. So keys are texts and numbers only, and there are no sets and no objects but the stand-ins.
    dispatch: ClassVar[Any] = {
        **{code: load for code, load in pickle._Unpickler.dispatch.items() if code not in _WITHOUT},
        pickle.BYTEARRAY8[0]: pickle._Unpickler.dispatch[pickle.BINBYTES8[0]],
    }

    def load_dict(self) -> None:
        items = self.pop_mark()  # type: ignore[attr-defined]
        self._check_keys(items[::2])
        self.append({items[at]: items[at + 1] for at in range(0, len(items), 2)})  # type: ignore[attr-defined]

    def load_setitem(self) -> None:
        self._check_keys(self.stack[-2:-1])  # type: ignore[attr-defined]
        super().load_setitem()  # type: ignore[misc]

    def load_setitems(self) -> None:
        self._check_keys(self.stack[::2])  # type: ignore[attr-defined]
        super().load_setitems()  # type: ignore[misc]

    def load_reduce(self) -> None:
        called = self.stack[-2]  # type: ignore[attr-defined]
        if not any(called is admitted for admitted in _ADMITTED.values()):
            raise _Refused(f"a call of a {type(called).__name__}")
        super().load_reduce()  # type: ignore[misc]

    def load_build(self) -> None:
        built = self.stack[-2]  # type: ignore[attr-defined]
        if not isinstance(built, _Array | _Dtype):
            raise _Refused(f"the state of a {type(built).__name__}")
        super().load_build()  # type: ignore[misc]

    @staticmethod
    def _check_keys(keys: list[Any]) -> None:
        for key in keys:
            if not isinstance(key, str | bytes | int | float):
                raise _Refused(f"a dict with a {type(key).__name__} for a key")

    dispatch |= {
        pickle.DICT[0]: load_dict,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.REDUCE[0]: load_reduce,
        pickle.BUILD[0]: load_build,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None


BYTES = frozenset({"u1"})
FLOATS = frozenset({"f2", "f4", "f8"})


def load_dict(path: Path, limit: int, advice: str = "get the file again") -> dict[Any, Any]:
    """Return the dict in a pickle of at most `limit` bytes; Python 2 strings come as bytes, arrays as uint8.

    Raises ValueError if the pickle names anything but what such arrays need (nothing of it is run), is damaged,
    or holds something else.
    """
    size = path.stat().st_size
    if size > limit:
        raise ValueError(f"{path}: expected at most {limit} bytes; got {size}; {advice}")
    return read_dict(path.read_bytes(), str(path), advice)


def read_dict(data: bytes, name: str, advice: str, kinds: frozenset[str] = BYTES) -> dict[Any, Any]:
    """Return the dict in a pickle, of arrays of these kinds; `name` is the file's, for messages; see `load_dict`."""
    what = "uint8 arrays" if kinds is BYTES else "arrays of floats"
    try:
        content = _Unpickler(io.BytesIO(data), encoding="bytes").load()
        if isinstance(content, _Array) and kinds is not BYTES:  # an array without axes of one object
            content = content.data[0]
        if isinstance(content, dict):
            return {key: _value(value, kinds) for key, value in content.items()}
    except _Refused as refused:
        raise ValueError(
            f"{name}: expected a pickle of {what}; it wants to load {str(refused)[:120]}, which was refused and not "
            f"run; {advice}"
        ) from None
    except Exception as error:  # a damaged pickle can fail in any way at all
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise ValueError(f"{name}: expected a complete pickle; got a damaged one ({reason}); {advice}") from None
    raise ValueError(f"{name}: expected a dict; got {type(content).__name__}; {advice}")


def load_npy_dict(path: Path, advice: str = "get the file again") -> dict[str, np.ndarray]:
    """Return the dict of arrays of floats, by their names, that `np.save(path, {...})` wrote.

    Raises ValueError as `load_dict`, or if it is no .npy file of a dict.
    """
    with path.open("rb") as stream:
        try:
            version = np.lib.format.read_magic(stream)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = header(stream)
        except (ValueError, SyntaxError, TokenError, RecursionError, MemoryError) as error:  # a header is Python source
            raise ValueError(
                f"{path}: expected an .npy file; got another or a damaged one ({error}); {advice}"
            ) from None
        if shape or dtype.kind != "O":
            raise ValueError(f"{path}: expected an .npy file of a dict; got one of {dtype} {shape}; {advice}")
        content = read_dict(stream.read(), str(path), advice, FLOATS)
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, np.ndarray):
            raise ValueError(
                f"{path}: expected arrays by their names; got {type(value).__name__} for {key!r}; {advice}"
            )
    return {key: value.copy() for key, value in content.items()}  # which may be written to
