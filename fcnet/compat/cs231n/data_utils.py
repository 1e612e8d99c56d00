"""The course's `data_utils.py`: CIFAR-10 as the notebooks want it, by fcnet's own readers."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fcnet.compat import _install
from fcnet.data import catalogue, cifar
from fcnet.data.files import remedy
from fcnet.data.restricted_pickle import read_dict

__all__ = ["get_CIFAR10_data", "load_CIFAR10", "load_CIFAR_batch", "load_pickle", "np", "os"]
__getattr__ = _install.without(
    ("load_imagenet_val", "load_models", "load_tiny_imagenet"), "cs231n.data_utils", globals()
)

#: Where the notebooks' own `get_datasets.sh` puts the files, seen from the folder they run in.
COURSE_FOLDER = Path("cs231n/datasets/cifar-10-batches-py")


def get_CIFAR10_data(
    num_training: int = 49000,
    num_validation: int = 1000,
    num_test: int = 1000,
    subtract_mean: bool = True,
    *,
    cifar10_dir: str | os.PathLike[str] | None = None,
) -> dict[str, np.ndarray]:
    """Return CIFAR-10, split by position: training images, those after them to validate, and test images.

    Args:
        num_training, num_validation, num_test: how many of each.
        subtract_mean: take the mean training image off all of them.
        cifar10_dir: the folder of the files, binary or Python version; None: the course's folder here. If they are
            not there, they are taken from where `fcnet.data.load("cifar10")` looks, which is said.

    Returns:
        X_train, X_val, X_test (n, 3, 32, 32) float64 and y_train, y_val, y_test (n,) integers.

    Raises:
        FileNotFoundError: no such files. ValueError: more images asked for than there are.
    """
    X, y, X_test, y_test = _read(COURSE_FOLDER if cifar10_dir is None else cifar10_dir)
    for name, got, there in (
        ("num_training + num_validation", num_training + num_validation, len(X)),
        ("num_test", num_test, len(X_test)),
    ):
        if not 0 < got <= there:
            raise ValueError(f"{name}: expected 1 to {there} images, got {got}")
    train, val = slice(num_training), slice(num_training, num_training + num_validation)
    parts = {
        "train": (X[train], y[train]),
        "val": (X[val], y[val]),
        "test": (X_test[:num_test], y_test[:num_test]),
    }
    mean_image = X[train].mean(axis=0, dtype=np.float64) if subtract_mean else 0.0
    data = {}
    for part, (pixels, labels) in parts.items():
        data[f"X_{part}"] = (pixels - mean_image).reshape(-1, 3, 32, 32)
        data[f"y_{part}"] = labels.copy()
    return data


def load_CIFAR10(ROOT: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Load all of CIFAR-10 from the folder ROOT: X_train (50000, 32, 32, 3), y_train (50000,), then the test part.

    If the files are not there, they are taken from where `fcnet.data.load("cifar10")` looks, such as $FCNET_DATA, which
    is said. Raises FileNotFoundError or ValueError, for files that are not there or damaged.
    """
    X, y, X_test, y_test = _read(ROOT)
    return _images(X), y, _images(X_test), y_test


def _images(pixels: np.ndarray) -> np.ndarray:
    """Return rows of channel-first pixels as channel-last images."""
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1).astype(np.float64)


def load_CIFAR_batch(filename: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (10000, 32, 32, 3) float64 and labels (10000,) of one file, as `load_CIFAR10` does."""
    path = Path(filename)
    if not path.is_file() and path.name in catalogue.wanted_files("cifar10"):
        path = _files(path.parent, [path.name])[path.name]
    X, y = np.empty((cifar.RECORDS, cifar.PIXELS), np.uint8), np.empty(cifar.RECORDS, np.int64)
    cifar.read_batch(path, X, y, remedy("cifar10", None))
    return _images(X), y


def load_pickle(f: BinaryIO) -> dict[str, Any]:
    """Return the dictionary in an open file of CIFAR-10's Python version, its texts as strings.

    Raises ValueError if the file is damaged or asks for anything but arrays of bytes; nothing of it is run.
    """
    name = str(getattr(f, "name", "f"))
    return _texts(read_dict(f.read(), name, remedy("cifar10", None)))


def _texts(value: Any) -> Any:
    """Return what Python 2 wrote as bytes as text, in dictionaries and lists, too."""
    if isinstance(value, bytes):
        return value.decode("latin1")
    if isinstance(value, dict):
        return {_texts(key): _texts(item) for key, item in value.items()}
    return [_texts(item) for item in value] if isinstance(value, list) else value


def _read(folder: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the five training files in order and the test file: pixels (n, 3072) uint8, labels (n,)."""
    names = catalogue.wanted_files("cifar10")
    found = _files(Path(folder), names)
    size = cifar.RECORDS
    X = np.empty((len(found) * size, cifar.PIXELS), np.uint8)
    y = np.empty(len(found) * size, np.int64)
    for i, name in enumerate(names):
        part = slice(i * size, (i + 1) * size)
        cifar.read_batch(found[name], X[part], y[part], remedy("cifar10", None))
    train = len(X) - size
    return X[:train], y[:train], X[train:], y[train:]


def _files(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """Return the files of CIFAR-10 by name, from the folder or, if it lacks one, from where fcnet has them."""
    found = catalogue.files_in(folder, "cifar10")
    if not (missing := [name for name in names if name not in found]):
        return found
    try:
        found = catalogue.find_files("cifar10")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"cifar10: expected the CIFAR-10 files in {folder}, got no {', '.join(missing)}; "
            "get them with: fcnet fetch cifar10"
        ) from None
    print(f"cifar10: no {', '.join(missing)} in {folder}; all taken from {found[missing[0]].parent}")
    return found
