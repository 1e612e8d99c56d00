"""The digits, 1797 images of 8 x 8 pixels: scikit-learn's copy of the UCI data set."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

import fcnet.errors as errors


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels, whole numbers 0..16, uint8 (1797, 64), and the labels, int64 (1797,).

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    spec = find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise _missing()
    file = Path(spec.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
    if file.exists():  # read here: to import scikit-learn takes a second and more, as long as the training itself
        table = np.loadtxt(file, np.uint8, delimiter=",")
        X, y = table[:, :-1], table[:, -1]
    else:
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise _missing() from None
        X, y = load_digits(return_X_y=True)
    return np.array(X, np.uint8, order="C"), y.astype(np.int64)


def _missing() -> errors.MissingExtra:
    return errors.MissingExtra("the digits data set", "scikit-learn", "sklearn")
