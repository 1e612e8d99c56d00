"""What one asks of a trained network. Inputs may be host or device arrays; results are of the same kind as X.

Shapes: N samples, D input features, C classes or outputs; inputs may be (N, d1, ..., dk) with d1 * ... * dk = D.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from backends import Array, Backend, MaskStream
from fcnet.boundary import check_input, positive_int
from fcnet.layers import Hidden, Output
from fcnet.objective import Objective
from fcnet.params import ParamBuffer
from fcnet.program import Run, direct


class Predictions:
    """Scores, predictions and probabilities of the network that this is a part of."""

    input_dim: int
    dtype: Any
    backend: Backend
    objective: Objective
    hidden: Sequence[Hidden]
    output: Output

    @property
    def params(self) -> ParamBuffer:
        """Every trained tensor by name."""
        raise NotImplementedError

    @property
    def state(self) -> ParamBuffer:
        """Batch norm's running statistics by name."""
        raise NotImplementedError

    def prepare(self, run: Run, x: Array) -> Array:
        """Raw inputs as the layers take them."""
        raise NotImplementedError

    def mask_streams(self, step: int | Array) -> list[MaskStream | None]:
        """The random bits of each hidden layer's dropout."""
        raise NotImplementedError

    def scores(self, X: Array, *, batch_size: int = 4096) -> Array:
        """Scores (N, C) in evaluation mode, before softmax; N is worked on in parts of `batch_size` rows."""
        return self._evaluate(X, batch_size, lambda scores: scores)

    def predict(self, X: Array, *, batch_size: int = 4096) -> Array:
        """What the network says: with "softmax" and "svm" the class with the highest score, (N,) integers; with "mse"
        the values, with "bce" labels of 0 and 1 (1 where the probability is above 1/2), (N, C), or (N,) if C is 1.
        """
        return self._evaluate(X, batch_size, lambda scores: self.objective.predictions(self.backend, scores))

    def predict_proba(self, X: Array, *, mc_samples: int | None = None, batch_size: int = 4096) -> Any:
        """Probabilities (N, C): of the classes ("softmax"), or of each label ("bce").

        Args:
            mc_samples: T, for Monte-Carlo dropout: T predictions with units dropped at random as in training, all else
                as in evaluation. The masks are a function of the network's seed, of the prediction 0..T-1 and of a
                sample's place in its part of `batch_size` rows.

        Returns:
            (N, C); with mc_samples the pair of the predictions' mean and standard deviation (over T), each (N, C).
            Source: Gal and Ghahramani, "Dropout as a Bayesian Approximation", 2016.

        Raises:
            ValueError: scores of this network's loss are no log-probabilities; mc_samples without dropout.
        """
        if mc_samples is None:
            return self._evaluate(X, batch_size, self.objective.probabilities)
        count = positive_int("mc_samples", mc_samples)
        if not any(self.mask_streams(0)):
            raise ValueError(
                f"mc_samples and dropout_keep_ratio: expected a network with dropout for mc_samples={count}, "
                "got one that drops no unit; leave mc_samples out"
            )
        both = self._of_parts(X, batch_size, lambda x: self._monte_carlo(self.prepare(direct, x), count))
        return both[..., 0], both[..., 1]

    def _monte_carlo(self, x: Array, count: int) -> Array:
        """Mean and standard deviation (N, C, 2) of `count` predictions with dropout, added up by Welford's rule."""
        xp = self.backend.xp
        for number in range(count):
            p = self.objective.probabilities(self.evaluate_prepared(x, self.mask_streams(number)))
            if number == 0:
                both = xp.zeros((*p.shape, 2), dtype=p.dtype)
                mean, squares = both[..., 0], both[..., 1]
            off = p - mean
            mean += off / (number + 1)
            squares += off * (p - mean)
        squares[...] = xp.sqrt(squares / count)
        return both

    def evaluate(self, x: Array) -> Array:
        """Evaluation mode on the device: scores (N, C) of raw device inputs; nothing is checked or copied."""
        return self.evaluate_prepared(self.prepare(direct, x))

    def evaluate_prepared(self, x: Array, streams: Sequence[MaskStream | None] | None = None) -> Array:
        """As `evaluate`, of inputs (N, D) that have been through `prepare`; with `streams` units are dropped."""
        for layer, stream in zip(self.hidden, streams or [None] * len(self.hidden), strict=True):
            x = layer.evaluate(direct, self.params, self.state, x, stream)
        return self.output.forward(direct, self.params, x)[0]

    def _evaluate(self, X: Array, batch_size: int, finish: Any) -> Array:
        return self._of_parts(X, batch_size, lambda x: finish(self.evaluate(x)))

    def _of_parts(self, X: Array, batch_size: int, function: Any) -> Array:
        """What `function` makes of each `batch_size` rows on the device, in one array of the kind of X."""
        check_input("X", X, self.input_dim, self.dtype)
        batch_size = positive_int("batch_size", batch_size)
        on_host = isinstance(X, np.ndarray)
        self.backend.use()
        parts = []
        with self.backend.allocating():
            for start in range(0, len(X), batch_size):
                part = function(self.backend.asarray(X[start : start + batch_size]))
                parts.append(self.backend.to_numpy(part) if on_host else part)
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if on_host else self.backend.xp.concatenate(parts)
