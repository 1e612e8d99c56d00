"""The course's `data_utils.py`: CIFAR-10 as the notebooks want it, by fcnet's own readers."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from fcnet.data import catalogue, cifar
from fcnet.data.files import remedy

__all__ = ["get_CIFAR10_data", "load_CIFAR10"]

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
    """CIFAR-10, split by position: training images, those after them to validate, and test images.

    Args:
        num_training, num_validation, num_test: how many of each.
        subtract_mean: take the mean training image off all of them.
        cifar10_dir: the folder of the files, binary or Python version; None: the course's folder if there is one
            here, else where `fcnet.data.load("cifar10")` looks.

    Returns:
        X_train, X_val, X_test (n, 3, 32, 32) float64 and y_train, y_val, y_test (n,) integers.

    Raises:
        FileNotFoundError: no such files. ValueError: more images asked for than there are.
    """
    if cifar10_dir is None and COURSE_FOLDER.is_dir():
        cifar10_dir = COURSE_FOLDER
    X, y, X_test, y_test = _read(cifar10_dir)
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
    """All of CIFAR-10 from the folder ROOT: X_train (50000, 32, 32, 3), y_train (50000,), then the test part.

    Raises FileNotFoundError or ValueError, for files that are not there or damaged.
    """
    X, y, X_test, y_test = _read(ROOT)
    return _images(X), y, _images(X_test), y_test


def _images(pixels: np.ndarray) -> np.ndarray:
    """Rows of channel-first pixels as channel-last images."""
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1).astype(np.float64)


def _read(folder: str | os.PathLike[str] | None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The five training files in order and the test file: pixels (n, 3072) uint8, labels (n,)."""
    if folder is None:
        found = catalogue.find_files("cifar10")
    else:
        found = catalogue.files_in(Path(folder), "cifar10")
        if missing := [name for name in catalogue.wanted_files("cifar10") if name not in found]:
            raise FileNotFoundError(
                f"cifar10: expected the CIFAR-10 files in {folder}, got no {', '.join(missing)}; "
                "get them with: fcnet fetch cifar10"
            )
    size = cifar.RECORDS
    X = np.empty((len(found) * size, cifar.PIXELS), np.uint8)
    y = np.empty(len(found) * size, np.int64)
    for i, name in enumerate(catalogue.wanted_files("cifar10")):
        part = slice(i * size, (i + 1) * size)
        cifar.read_batch(found[name], X[part], y[part], remedy("cifar10", folder))
    train = len(X) - size
    return X[:train], y[:train], X[train:], y[train:]
