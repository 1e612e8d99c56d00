"""The data set of a training on its network's device, from which mini-batches are gathered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import fcnet.functional as F
from fcnet.backends import Array
from fcnet.backends.step import direct
from fcnet.data import Dataset
from fcnet.data.sparse import SparseRows
from fcnet.errors import unknown
from fcnet.nn.model import FullyConnectedNet

ROWS = 4096  # preprocessed at once


@dataclass(frozen=True)
class DeviceSplit:
    """Hold a part of a data set: X (n, D), y labels (n,) or one row (n, C) for each sample.

    weights: (n,) of the samples, or None. prepared: whether X has been through `model.prepare`.
    streamed: whether the arrays lie on the host; else they lie on the device.
    """

    X: Array
    y: Array
    weights: Array | None
    prepared: bool
    streamed: bool

    def __len__(self) -> int:
        return self.X.shape[0]

    def some(self, rows: np.ndarray, model: FullyConnectedNet) -> DeviceSplit:
        """Return a part of these rows, for evaluation, where weights do not count."""
        if self.streamed:
            return replace(self, X=self.X[rows], y=self.y[rows])
        rows = model.backend.asarray(rows)
        return replace(self, X=F.gather(self.X, rows), y=F.gather(self.y, rows))


class DeviceData:
    """Hold the training and validation parts for the device of `model`.

    A part is copied to the device as a whole if there is memory for it beside the network, its gradients and the
    optimizer's moments; otherwise it stays on the host and is copied batch by batch. Inputs that are bytes, and those
    that stay on the host, are preprocessed batch by batch; all others are preprocessed here, once.

    Attributes:
        train, val: the parts.
    """

    def __init__(self, model: FullyConnectedNet, data: Dataset, weights: np.ndarray | None) -> None:
        """Place both parts; `weights` (N,) are those of the training samples, or None."""
        self.train = device_split(model, data.X_train, data.y_train, weights)
        self.val = device_split(model, data.X_val, data.y_val)


def device_split(
    model: FullyConnectedNet, X: Array | SparseRows, y: Array, weights: np.ndarray | None = None
) -> DeviceSplit:
    """Return a part of a data set for the device of `model`, placed as `DeviceData` describes.

    Args:
        X: (n, ...), of the host or the device; sparse rows stay on the host, to be made dense batch by batch.
        y: (n,) or (n, C), checked. weights: (n,) of the samples, or None.
    """
    if isinstance(X, SparseRows):
        return _streamed(model, X, y, weights)
    X = X.reshape(len(X), -1)
    width = 1 if X.dtype == np.uint8 else model.dtype.itemsize
    targets = y.size * (model.dtype.itemsize if y.ndim > 1 else 8)
    if model.backend.has_room(X.size * width + targets + 4 * model.params.flat.nbytes):
        on_device = None if weights is None else model.backend.asarray(weights, model.dtype)
        return DeviceSplit(*_to_device(model, X, y), on_device, X.dtype != np.uint8, False)
    return _streamed(model, X, y, weights)


def _streamed(model: FullyConnectedNet, X: Any, y: Array, weights: np.ndarray | None) -> DeviceSplit:
    to_device, to_numpy = model.objective.to_device, model.backend.to_numpy
    parts = [to_numpy(to_device(model.backend, y[at : at + ROWS], model.dtype)) for at in range(0, len(y), ROWS)]
    return DeviceSplit(X, np.concatenate(parts), None if weights is None else weights.astype(model.dtype), False, True)


def _to_device(model: FullyConnectedNet, X: np.ndarray, y: np.ndarray) -> tuple[Array, Array]:
    asarray = model.backend.asarray
    if X.dtype == np.uint8:
        x = asarray(X)
    elif model.preprocessing is None:
        x = asarray(X, model.dtype)
    else:
        x = model.backend.xp.empty(X.shape, dtype=model.dtype)
        for start in range(0, len(X), ROWS):  # in parts, because the arithmetic is in float64
            part = slice(start, start + ROWS)
            x[part] = model.prepare(direct, asarray(X[part]))
    return x, model.objective.to_device(model.backend, y, model.dtype)


def as_dataset(data: Dataset | Mapping[str, Any], targets: str) -> Dataset:
    """Return a data set as it is, or one made of a dictionary of its arrays and the kind of its targets.

    Raises:
        ValueError, TypeError: an array that is missing or unknown; neither data set nor dictionary.
    """
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
