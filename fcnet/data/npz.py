"""Arrays from a NumPy .npz file: X and y, or X_train, y_train and so on; never a pickle."""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

_KEYS = ("X", "y", "X_train", "y_train", "X_val", "y_val", "X_test", "y_test")
# Whatever a damaged zip archive or .npy header makes NumPy raise.
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, struct.error,
    ValueError, EOFError, KeyError, NotImplementedError, RuntimeError, SyntaxError, MemoryError,
    OverflowError, OSError, RecursionError, TypeError, tokenize.TokenError,  # a header is Python source
)  # fmt: skip


def read_npz(path: Path, labels: bool = True) -> dict[str, np.ndarray]:
    """Return the arrays named X, y, X_train, y_train, X_val, y_val, X_test, y_test in the file, in any case.

    Either X and y, or X_train and y_train with or without the others; other arrays are not read.
    With labels=False only the X arrays, at least one of X, X_train and X_test, whatever else is there.
    Raises ValueError if the file is damaged, holds objects, or the names do not make a data set.
    """
    # Opened here, because np.load(path) leaves a file that it cannot read open.
    with path.open("rb") as stream:
        _check_kind(path, stream.read(512))
        stream.seek(0)
        try:
            archive = np.load(stream, allow_pickle=False)
        except _DAMAGED as error:
            raise _damaged(path, error) from None
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError(
                f"{path}: expected an .npz archive; got a single array; save it with np.savez(path, X=X, y=y)"
            )
        with archive:
            names = _match(path, archive.files, labels)
            return {key: _read(path, archive, stored) for key, stored in names.items()}


def _check_kind(path: Path, start: bytes) -> None:
    """Raise ValueError unless a file begins as an archive or an array, which np.load tells apart."""
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06", b"\x93NUMPY")):
        return
    if not start:
        kind = "an empty file"
    elif start[:1] == b"\x80" and start[1:2] <= b"\x05":
        kind = "a pickle, which is never loaded"
    elif b"\0" not in start and start.isascii():
        kind = "a text file"
    else:
        kind = "another kind of file"
    raise ValueError(f"{path}: expected an .npz file; got {kind}; save the arrays with np.savez(path, X=X, y=y)")


def _read(path: Path, archive: np.lib.npyio.NpzFile, stored: str) -> np.ndarray:
    _check_member(path, archive, stored)
    try:
        array = archive[stored]
    except _DAMAGED as error:
        if "Object arrays" in str(error):
            raise ValueError(
                f"{path}: {stored}: expected numbers or text; got Python objects, which are not loaded; "
                f"save it as numbers, {stored}.astype(float), or text, {stored}.astype(str)"
            ) from None
        raise _damaged(path, error, stored) from None
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _check_member(path: Path, archive: np.lib.npyio.NpzFile, stored: str) -> None:
    """Raise ValueError unless a member is an .npy file of the size that its header states.

    NumPy allocates the array before it reads the data, and reads a member of another kind into memory as a whole.
    """
    file = archive.zip
    assert file is not None  # it is open
    name = stored if stored in file.namelist() else f"{stored}.npy"
    try:
        with file.open(name) as stream:
            start = stream.read(len(np.lib.format.MAGIC_PREFIX))
            if start != np.lib.format.MAGIC_PREFIX:
                raise ValueError(
                    f"{path}: {stored}: expected an array; got another file; save with np.savez(path, X=X, y=y)"
                )
        with file.open(name) as stream:
            version = np.lib.format.read_magic(stream)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = header(stream)
    except _DAMAGED as error:
        if str(error).startswith(f"{path}: "):
            raise
        raise _damaged(path, error, stored) from None
    wanted = math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and wanted > file.getinfo(name).file_size:
        raise ValueError(
            f"{path}: {stored}: expected {wanted} bytes for {dtype} {shape}; got only {file.getinfo(name).file_size}; "
            "it is damaged, save it again with np.savez"
        )


def _damaged(path: Path, error: BaseException, member: str | None = None) -> ValueError:
    where = f"{path}: {member}" if member else str(path)
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return ValueError(
        f"{where}: expected an .npz file; got a damaged or other one ({reason}); save it again with np.savez"
    )


def _match(path: Path, stored: list[str], labels: bool) -> dict[str, str]:
    names: dict[str, str] = {}
    for key in _KEYS if labels else _KEYS[::2]:
        same = [name for name in stored if name.lower() == key.lower()]
        if len(same) > 1:
            raise ValueError(f"{path}: expected one array for {key}; got {' and '.join(same)}; rename one")
        if same:
            names[key] = same[0]
    if not stored:
        raise ValueError(
            f"{path}: expected arrays X, y; got an archive without any; save with np.savez(path, X=X, y=y)"
        )
    if not labels:
        if not names.keys() & {"X", "X_train", "X_test"}:
            raise ValueError(f"{path}: expected an array X, X_test or X_train; got {', '.join(stored) or 'none'}")
        return names
    whole, parts = {"X", "y"} & names.keys(), {"X_train", "y_train"} & names.keys()
    lacking = [
        a for part in ("val", "test") for a, b in ((f"X_{part}", f"y_{part}"), (f"y_{part}", f"X_{part}"))
        if b in names and a not in names
    ]  # fmt: skip
    if whole and parts:
        raise ValueError(f"{path}: expected X, y or X_train, y_train, ...; got both; keep one of the two")
    if whole:
        lacking = sorted({"X", "y"} - whole)
    elif parts or len(names) > 0:
        lacking = sorted({"X_train", "y_train"} - parts) + lacking
    if max(len(whole), len(parts)) < 2 or lacking or (whole and len(names) > 2):
        remedy = f"lacking {', '.join(lacking)}: add or rename" if lacking else "rename them"
        raise ValueError(
            f"{path}: expected arrays X, y or X_train, y_train[, X_val, y_val][, X_test, y_test]; "
            f"got {', '.join(stored)}; {remedy}"
        )
    return names
