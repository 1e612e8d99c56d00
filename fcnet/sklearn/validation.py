"""The validation rows of an estimator's training: their loss and score after each epoch, worked out on the device.

The score is scikit-learn's own for the estimator: accuracy (of whole rows where there are several labels), or R².
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from fcnet.backends import Array
from fcnet.backends.step import direct
from fcnet.data.sparse import SparseRows
from fcnet.nn.model import FullyConnectedNet
from fcnet.training.device_data import ROWS, DeviceSplit


class Validation:
    """Hold validation rows on the network's device."""

    def __init__(self, model: FullyConnectedNet, split: DeviceSplit, weights: np.ndarray | None) -> None:
        """Keep the validation rows; `weights` (n,) are those of `split`, on the host."""
        self.model, self.split = model, split
        self._total = float(len(split) if weights is None else weights.sum())
        self._spread = self._weighted_spread() if model.objective.of_values else np.empty(0)

    def measure(self) -> tuple[float, float]:
        """Return the mean loss, without penalties, and the score."""
        model, backend = self.model, self.model.backend
        backend.use()
        loss, sums = 0.0, np.zeros(1)
        with backend.allocating():
            for scores, y, weights in self._parts():
                figure = self._figures(scores, y, weights)
                sums = sums + np.asarray(backend.to_numpy(figure), dtype=np.float64)
                here, _ = model.objective.loss_and_gradient(direct, scores, y, weights)
                loss += float(backend.to_numpy(here)) * len(y)
        return loss / self._total, self._score(sums)

    def _parts(self) -> Iterator[tuple[Array, Array, Array | None]]:
        """Yield scores (N, K), targets and weights of some rows after the others."""
        model, split = self.model, self.split
        score = model.evaluate_prepared if split.prepared else model.evaluate
        asarray = model.backend.asarray
        rows = min(ROWS, split.X.rows_at_once) if isinstance(split.X, SparseRows) else ROWS
        for start in range(0, len(split), rows):
            part = slice(start, start + rows)
            X = split.X.csr[part].toarray() if isinstance(split.X, SparseRows) else split.X[part]
            weights = None if split.weights is None else asarray(split.weights[part])
            yield score(asarray(X)), asarray(split.y[part]), weights

    def _figures(self, scores: Array, y: Array, weights: Array | None) -> Array:
        """Return what is added up for the score: the weight of the right rows, or the squared errors (K,)."""
        xp = self.model.backend.xp
        if self.model.objective.of_values:
            objective = self.model.objective
            # R² does not depend on the units: scaled targets stay scaled, as `_weighted_spread` has them.
            pair = (scores, y) if objective.scales else objective.judged(self.model.backend, scores, y)
            errors = xp.subtract(*pair, dtype="float64")
            squares = errors * errors
            return xp.sum(squares if weights is None else squares * weights.reshape(-1, 1), axis=0)
        if self.model.loss_name == "bce":
            right = xp.min(xp.equal(xp.greater(scores, 0), xp.greater(y, 0.5)), axis=1)
        else:
            right = xp.equal(xp.argmax(scores, axis=1), y)
        return xp.sum(right if weights is None else right * weights, dtype="float64")

    def _score(self, sums: Any) -> float:
        if not self.model.objective.of_values:
            return float(sums.item()) / self._total
        if not np.isfinite(sums).all():
            return math.nan
        varied = self._spread > 0
        share = np.where(varied, sums / np.where(varied, self._spread, 1), sums > 0)
        return float(np.mean(1 - share))

    def _weighted_spread(self) -> np.ndarray:
        """Return Σ w (y - mean)² (K,) of the targets, computed where they are."""
        y, split = self.split.y, self.split
        xp = np if split.streamed else self.model.backend.xp
        each = xp.ones((len(split), 1)) if split.weights is None else split.weights.reshape(-1, 1).astype("float64")
        off = y - xp.sum(y * each, axis=0) / self._total
        spread = xp.sum(off * off * each, axis=0)
        return spread if split.streamed else self.model.backend.to_numpy(spread)
