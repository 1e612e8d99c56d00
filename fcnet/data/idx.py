"""The idx format of MNIST: four bytes of magic (0, 0, type, dimensions), each length as a big-endian uint32,
the data.

Source: http://yann.lecun.com/exdb/mnist/, "the IDX file format".
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np

from fcnet.data.files import opened, read_up_to
from fcnet.errors import counted

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_UBYTE = 0x08
_LARGEST = 1 << 30  # bytes unpacked, twenty times MNIST: a packed file may hold a thousand times its own size


def read_idx(path: Path, ndim: int, advice: str = "get the file again") -> np.ndarray:
    """Return the uint8 array of `ndim` dimensions in an idx file, packed (.gz, .xz) or not; writable.

    Raises ValueError, with `advice` as the remedy, unless the file holds exactly such an array.
    """
    with opened(path, advice) as stream:
        magic = bytes(read_up_to(stream, 4))
        expected = bytes([0, 0, _UBYTE, ndim])
        if magic != expected:
            raise ValueError(
                f"{path}: expected magic {int.from_bytes(expected, 'big')} ({ndim}-dimensional uint8); "
                f"got {_describe(magic)}; {advice}"
            )
        header = bytes(read_up_to(stream, 4 * ndim))
        if len(header) < 4 * ndim:
            raise ValueError(
                f"{path}: expected {4 * ndim} bytes of lengths after the magic; got {len(header)}; {advice}"
            )
        shape = struct.unpack(f">{ndim}I", header)
        size = math.prod(shape)
        data = read_up_to(stream, min(size, _LARGEST) + 1)  # one more: tells a longer file, and gzip checks its CRC
        if len(data) > _LARGEST:
            raise ValueError(f"{path}: expected at most {_LARGEST} bytes, got more; {advice}")
    if len(data) != size:
        got = f"only {len(data)}" if len(data) < size else "more"
        raise ValueError(f"{path}: expected {size} bytes for shape {shape}; got {got}; {advice}")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _describe(magic: bytes) -> str:
    if len(magic) < 4:
        return f"a file of {len(magic)} bytes"
    number = int.from_bytes(magic, "big")
    if magic[:2] == b"\0\0" and magic[2] in _TYPES:
        return f"{number} ({magic[3]}-dimensional {np.dtype(_TYPES[magic[2]]).name})"
    return f"{number} ({magic.hex(' ')})"


def read_images_and_labels(images: Path, labels: Path, advice: str) -> tuple[np.ndarray, np.ndarray]:
    """Read images X (N, H, W) uint8 and labels y (N,) int64 in 0..9. Raises ValueError if they do not fit."""
    X, y = read_idx(images, 3, advice), read_idx(labels, 1, advice)
    if len(X) != len(y):
        raise ValueError(
            f"{labels}: expected {counted(len(X), 'label')}, as many as images in {images.name}; got {len(y)}; {advice}"
        )
    if X.size == 0:
        raise ValueError(f"{images}: expected at least one image; got shape {X.shape}; {advice}")
    if y.max() > 9:
        at = int(np.argmax(y > 9))
        raise ValueError(f"{labels}: expected labels 0..9; got {y[at]} at {at}; {advice}")
    return X, y.astype(np.int64)
