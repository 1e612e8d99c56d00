"""Reading packed files so that a damaged one gives one clear line."""

from __future__ import annotations

import gzip
import io
import os
import shlex
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fcnet.data.catalogue import how_to_fetch

_CHUNK = 1 << 20


def remedy(name: str, data_dir: str | os.PathLike[str] | None) -> str:
    """Return what to do about a damaged file of a named set."""
    return f"delete it and run: {how_to_fetch(name, data_dir)}"


def other_kind(path: Path) -> str:
    """Return what to do with a file that is neither a table nor .npz, by its name, for a message."""
    suffix, packed = path.suffix.lower(), {".gz": "gunzip", ".xz": "unxz", ".bz2": "bunzip2", ".zip": "unzip"}
    if suffix in packed:
        return f"unpack it: {packed[suffix]} {shlex.quote(str(path))}"
    if suffix in (".npy", ".mat", ".h5", ".hdf5", ".pkl", ".pickle", ".pt"):
        return "save its arrays with np.savez('data.npz', X=X, y=y)"
    if suffix in (".feather", ".arrow"):
        return "save the table as .parquet"
    if suffix in (".xls", ".xlsx", ".ods"):
        return "save the sheet as CSV"
    return "save a table with commas between its cells under a name that ends in .csv"


@contextmanager
def opened(path: Path, advice: str) -> Iterator[io.BufferedIOBase]:
    """Open the file's content, unpacked if its name ends in .gz or .xz.

    Raises ValueError if the packing is damaged. Trouble of the system's own (no permission, a failing disk)
    stays the OSError it is: its message names the file, and deleting that would not help.
    """
    import lzma  # here, for Pythons built without it

    try:
        with _open(path) as stream:
            yield stream
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise ValueError(
            f"{path}: expected a complete {path.suffix} file; got a damaged one ({error}); {advice}"
        ) from None


def _open(path: Path) -> io.BufferedIOBase:
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    if path.suffix == ".xz":
        import lzma

        return lzma.open(path, "rb")
    return path.open("rb")


def read_up_to(stream: io.BufferedIOBase, count: int) -> bytearray:
    """Read at most `count` bytes, in steps, as a damaged header can ask for more than there is memory."""
    data = bytearray()
    while len(data) < count and (piece := stream.read(min(_CHUNK, count - len(data)))):
        data += piece
    return data
