"""The course's `classifiers/k_nearest_neighbor.py`, over `fcnet.pairwise_distances`."""

from __future__ import annotations

import numpy as np

from fcnet.backends import backend_of
from fcnet.compat.cs231n._arrays import Array
from fcnet.tools.neighbors import pairwise_distances, smallest
from fcnet.validation import positive_int

__all__ = ["KNearestNeighbor", "np"]


class KNearestNeighbor:
    """Classify a sample as most of its k nearest training samples are, by L2 distance, from the whole distance table.

    `fcnet.KNearestNeighbors` does the same within a bound on memory.

    Attributes:
        X_train, y_train: the training samples (M, d1, ..., dk) and labels (M,); None before `train`.
    """

    def __init__(self) -> None:
        self.X_train: Array = None
        self.y_train: Array = None

    def train(self, X: Array, y: Array) -> None:
        """Remember samples X (M, d1, ..., dk) and their integer labels y (M,).

        Raises:
            ValueError: not as many labels as samples.
        """
        y = y if hasattr(y, "dtype") else np.asarray(y)
        if len(X) == 0 or y.shape != (len(X),):
            raise ValueError(f"y: expected a label for each of the {len(X)} samples of X, got shape {y.shape}")
        self.X_train, self.y_train = X, y

    def predict(self, X: Array, k: int = 1, num_loops: int = 0) -> Array:
        """Return labels (N,) of X (N, d1, ..., dk), by the k nearest; num_loops: which distances to call, 0, 1 or 2."""
        distances = {
            0: self.compute_distances_no_loops,
            1: self.compute_distances_one_loop,
            2: self.compute_distances_two_loops,
        }
        if num_loops not in distances:
            raise ValueError(f"num_loops: expected 0, 1 or 2, got {num_loops!r}")
        return self.predict_labels(distances[num_loops](X), k)

    def compute_distances_no_loops(self, X: Array) -> Array:
        """Return dists (N, M) float64: the L2 distance of each sample X (N, d1, ..., dk) to each training sample."""
        if self.X_train is None:
            raise ValueError("KNearestNeighbor: expected train(X, y) before this call, it knows no samples yet")
        return pairwise_distances(X, self.X_train)

    def compute_distances_one_loop(self, X: Array) -> Array:
        """Return the same as `compute_distances_no_loops`, by the same code: the course's loop is there to be slow."""
        return self.compute_distances_no_loops(X)

    def compute_distances_two_loops(self, X: Array) -> Array:
        """Return what `compute_distances_no_loops` does, by the same code: the course's loops are slow on purpose."""
        return self.compute_distances_no_loops(X)

    def predict_labels(self, dists: Array, k: int = 1) -> Array:
        """Return the label that most of the k nearest have, (N,), from distances dists (N, M).

        Equal votes go to the smaller label; of equal distances the sample with the lower index counts as nearer. The
        votes are counted on the host.

        Raises:
            ValueError: before `train`, or dists has not a column for each training sample, or k is not 1 to M.
        """
        known = 0 if self.y_train is None else len(self.y_train)
        if getattr(dists, "ndim", 0) != 2 or dists.shape[1] != known:
            got = getattr(dists, "shape", type(dists).__name__)
            raise ValueError(f"dists: expected (N, {known}), a column for each training sample, got {got}")
        if positive_int("k", k) > known:
            raise ValueError(f"k: expected at most {known}, the number of training samples, got {k}")
        backend = backend_of(dists, self.y_train)
        table, known_labels = backend.to_numpy(dists), backend.to_numpy(self.y_train)
        nearest = known_labels[_nearest(table, k)]
        labels = np.unique(known_labels)
        votes = np.stack([np.sum(nearest == label, axis=1) for label in labels], axis=1)
        return backend.asarray(labels[np.argmax(votes, axis=1)])


FEW = 16  # up to so many neighbours a pass for each takes less time than sorting the rows


def _nearest(table: np.ndarray, k: int) -> np.ndarray:
    """Return where the k smallest of each row are, (N, k), in order, the first of equals first."""
    if k > FEW or not np.isfinite(table).all():
        return np.argsort(table, axis=1, kind="stable")[:, :k]
    return smallest(np, table.astype(np.float64), k)[1]
