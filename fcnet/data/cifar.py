"""CIFAR-10, binary version (plain or packed) and Python version. Source:
https://www.cs.toronto.edu/~kriz/cifar.html

A binary record is 3073 bytes: the label, then 1024 red, 1024 green, 1024 blue values, row by row. The Python
version keeps the same 3072 values in `data` (10000, 3072) and the labels in a list.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fcnet.data.catalogue import CIFAR_NAMES
from fcnet.data.files import opened, read_up_to
from fcnet.data.restricted_pickle import load_dict

RECORDS = 10_000  # images in each file
PIXELS = 3 * 32 * 32
_PICKLE_LIMIT = 1 << 26  # bytes; the official ones have 31 million


def read_batch(path: Path, X: np.ndarray, y: np.ndarray, advice: str = "get the file again") -> None:
    """Read one file into X (RECORDS, 3072) uint8 and y (RECORDS,) int64.

    Raises ValueError, with `advice` as the remedy, unless the file holds exactly RECORDS images with labels
    0..9.
    """
    read = _read_binary if ".bin" in path.suffixes else _read_pickled
    pixels, labels = read(path, len(X), advice)
    if len(labels) and not 0 <= labels.min() <= labels.max() <= 9:
        at = int(np.argmax((labels < 0) | (labels > 9)))
        raise ValueError(f"{path}: expected labels 0..9; got {labels[at]} at image {at}; {advice}")
    X[:] = pixels
    y[:] = labels


def _read_binary(path: Path, records: int, advice: str) -> tuple[np.ndarray, np.ndarray]:
    size = records * (1 + PIXELS)
    with opened(path, advice) as stream:
        data = read_up_to(stream, size + 1)
    if len(data) != size:
        got = f"only {len(data)}" if len(data) < size else "more"
        raise ValueError(f"{path}: expected {size} bytes, {records} images of {1 + PIXELS}; got {got}; {advice}")
    table = np.frombuffer(data, dtype=np.uint8).reshape(records, 1 + PIXELS)
    return table[:, 1:], table[:, 0]


def _read_pickled(path: Path, records: int, advice: str) -> tuple[np.ndarray, np.ndarray]:
    content = load_dict(path, _PICKLE_LIMIT, advice)
    pixels, labels = _entry(content, "data"), _entry(content, "labels")
    if not isinstance(pixels, np.ndarray) or pixels.shape != (records, PIXELS) or pixels.dtype != np.uint8:
        got = f"{pixels.dtype} {pixels.shape}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise ValueError(f"{path}: expected 'data' as uint8 of shape {(records, PIXELS)}; got {got}; {advice}")
    codes = labels if isinstance(labels, list) else []
    if len(codes) != records or not all(isinstance(code, int) for code in codes):
        raise ValueError(
            f"{path}: expected 'labels' as a list of {records} integers; got {len(codes)} entries; {advice}"
        )
    # Whatever lies outside 0..9, however large, is -1 from here on: the caller refuses it.
    return pixels, np.array([c if 0 <= c <= 9 else -1 for c in codes], dtype=np.int64)


def _entry(content: dict[Any, Any], key: str) -> Any:
    return content.get(key.encode(), content.get(key))  # bytes if Python 2 wrote it


def read_class_names(folder: Path, advice: str = "get the file again") -> tuple[str, ...]:
    """Return the ten class names from the folder's batches.meta.txt or batches.meta, else the well-known ones."""
    if (text := folder / "batches.meta.txt").is_file():
        lines = text.read_text(encoding="utf-8", errors="replace").splitlines()
        return _ten_names(text, [line.strip() for line in lines if line.strip()], advice)
    if (meta := folder / "batches.meta").is_file():
        names = _entry(load_dict(meta, _PICKLE_LIMIT, advice), "label_names")
        names = names if isinstance(names, list) else []
        return _ten_names(
            meta, [n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in names], advice
        )
    return CIFAR_NAMES


def _ten_names(path: Path, names: list[str], advice: str) -> tuple[str, ...]:
    if len(names) != 10:
        raise ValueError(f"{path}: expected 10 class names; got {len(names)}; {advice}")
    return tuple(names)
