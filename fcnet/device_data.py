"""A data set on a network's device, ready to be gathered from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from backends import Array
from fcnet.data import Dataset
from fcnet.errors import unknown
from fcnet.model import FullyConnectedNet
from fcnet.program import direct


class DeviceData:
    """The training and validation parts on the device of `model`, each (X, y) in `arrays`.

    Bytes stay bytes, to be preprocessed batch by batch; anything else is preprocessed here, once, and `prepared` of its
    part is true. X is (n, D), y labels (n,) or one row (n, C) for each sample.
    """

    def __init__(self, model: FullyConnectedNet, data: Dataset) -> None:
        parts = {part: arrays for part, arrays in data.splits().items() if part != "test"}
        self.prepared = {part: X.dtype != np.uint8 for part, (X, _) in parts.items()}
        self.arrays = {part: _to_device(model, X, y) for part, (X, y) in parts.items()}


def _to_device(model: FullyConnectedNet, X: np.ndarray, y: np.ndarray) -> tuple[Array, Array]:
    asarray = model.backend.asarray
    X = X.reshape(len(X), -1)
    if X.dtype == np.uint8:
        x = asarray(X)
    elif model.preprocessing is None:
        x = asarray(X, model.dtype)
    else:
        x = model.backend.xp.empty(X.shape, dtype=model.dtype)
        for start in range(0, len(X), 4096):  # in parts, because the arithmetic is in float64
            part = slice(start, start + 4096)
            x[part] = model.prepare(direct, asarray(X[part]))
    return x, model.objective.to_device(model.backend, y, model.dtype)


def as_dataset(data: Dataset | Mapping[str, Any], targets: str) -> Dataset:
    """A data set as it is, or made of a dictionary of its arrays and `targets`. Raises ValueError or TypeError."""
    if isinstance(data, Dataset):
        return data
    if not isinstance(data, Mapping):
        raise TypeError(f"data: expected a Dataset or a dictionary of arrays, got {type(data).__name__}")
    names = list(Dataset.__dataclass_fields__)
    for name in data:
        if name not in names:
            raise unknown("data", name, names)
    missing = [name for name in ("X_train", "y_train", "X_val", "y_val") if name not in data]
    if missing:
        raise ValueError(f"data: expected X_train, y_train, X_val and y_val, got no {', '.join(missing)}")
    return Dataset(**{"targets": targets} | dict(data))
