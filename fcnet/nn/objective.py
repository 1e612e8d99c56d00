"""The objective of a network: its loss, the targets that the loss takes, and predictions from scores.

Shapes: scores (N, C), N batch, C classes or outputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import fcnet.functional as F
from fcnet.backends import Array, Backend
from fcnet.backends.step import Run
from fcnet.validation import check_finite, check_labels, check_numbers, finite_real, one_of

PLACES = 8  # decimal places of a scaled value, of about 1, that float32 can hold


def kind_of_targets(loss: str) -> str:
    """Return what `fcnet.data.Dataset` calls the targets of this loss: "numbers" or "classes"."""
    return "numbers" if loss in F.NUMERIC else "classes"


def loss_scale(loss: str, outputs: int) -> float:
    """Return what a loss is multiplied by to be a sample's negative log-likelihood, but for a constant.

    That is ½ Σ_k (s_k - y_k)² for numbers, the cross-entropy for classes; of several labels or counts, the sum.
    """
    return {"mse": outputs / 2, "bce": float(outputs), "poisson": float(outputs)}.get(loss, 1.0)


@dataclass(frozen=True)
class Objective:
    """Compute a loss by its name, for C classes or outputs, with label smoothing (0: none).

    scaling: with the loss "mse" shift and scale (C,), float64 on the host, or None. The network is trained on
    (y - shift) * scale and predicts scores / scale + shift, so that targets of any size are learned equally well. This
    is computed in float64, because float32 cannot hold both a large shift and its digits.
    threshold: the second of two classes, or a single label, is predicted if its probability is above this; None: 1/2.
    """

    loss: str
    outputs: int
    label_smoothing: float = 0.0
    scaling: tuple[np.ndarray, np.ndarray] | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        one_of("loss", self.loss, F.LOSSES)
        if self.outputs < 2 and not self.numeric:
            raise ValueError(f"num_classes: expected at least 2, got {self.outputs}")
        smoothing = finite_real("label_smoothing", self.label_smoothing)
        if not 0 <= smoothing < 1:
            raise ValueError(f"label_smoothing: expected 0 <= label_smoothing < 1, got {self.label_smoothing}")
        if smoothing and self.loss != "softmax":
            raise ValueError(
                f"label_smoothing and loss: expected loss 'softmax' with label_smoothing={smoothing:g}, "
                f"got loss {self.loss!r}; leave label_smoothing out"
            )
        object.__setattr__(self, "label_smoothing", smoothing)

    @property
    def numeric(self) -> bool:
        """Return whether the targets are numbers (N, C), not labels of classes."""
        return self.loss in F.NUMERIC

    @property
    def of_values(self) -> bool:
        """Return whether predictions are values in the targets' units, not classes or labels."""
        return self.metric.key == "rmse"

    def scaled(self, shift: Any, scale: Any) -> Objective:
        """Return this objective with another `scaling`.

        Raises:
            ValueError: another loss than "mse", arrays that are not (C,), numbers that are not finite or a scale of 0.
        """
        if self.loss != "mse":
            raise ValueError(f"target_scaling and loss: expected loss 'mse', got {self.loss!r}; its targets are labels")
        arrays = np.array(shift, dtype=np.float64), np.array(scale, dtype=np.float64)
        for name, array in zip(("shift", "scale"), arrays, strict=True):
            if array.shape != (self.outputs,):
                raise ValueError(f"{name}: expected numbers of shape ({self.outputs},), got {array.shape}")
            check_finite(name, array)
        if not arrays[1].all():
            raise ValueError("scale: expected numbers other than 0, got 0; 1 leaves an output as it is")
        return replace(self, scaling=arrays)

    @property
    def two_sided(self) -> bool:
        """Return whether predictions are one of two by a probability, for which a threshold can be set."""
        return (self.loss, self.outputs) in (("softmax", 2), ("bce", 1))

    def deciding(self, threshold: float | None) -> Objective:
        """Return this objective with another `threshold`.

        Raises:
            ValueError: not between 0 and 1, or nothing that it could decide about. TypeError: no number.
        """
        if threshold is None:
            return replace(self, threshold=None)
        threshold = finite_real("threshold", threshold)
        if not self.two_sided:
            raise ValueError(
                f"threshold: expected a network with loss 'softmax' of 2 classes or 'bce' of one output, got "
                f"loss {self.loss!r} of {self.outputs}; leave threshold out"
            )
        if not 0 < threshold < 1:
            raise ValueError(f"threshold: expected a probability between 0 and 1, got {threshold}")
        return replace(self, threshold=threshold)

    def _decisive(self, backend: Backend, scores: Array) -> Array:
        """Return scores (N, C) shifted so that the decision (the highest score, or one above 0) is at the threshold."""
        if self.threshold is None:
            return scores
        logit = math.log(self.threshold) - math.log1p(-self.threshold)
        return scores - backend.asarray(np.array([0.0, logit])[-self.outputs :], scores.dtype)

    @property
    def scales(self) -> bool:
        """Return whether there is a `scaling` and it changes anything."""
        return self.scaling is not None and bool(self.scaling[0].any() or (self.scaling[1] != 1).any())

    @property
    def metric(self) -> F.Metric:
        """Return the figure that predictions are judged by."""
        return F.METRICS[self.loss]

    def check_targets(self, name: str, y: Array, count: int, dtype: Any) -> None:
        """Check that y suits the loss and `count` samples. Raises TypeError or ValueError."""
        if self.numeric:
            dtype = "float64" if self.scales else dtype  # scaling is done in float64
            check_numbers(name, y, self.outputs, count, dtype, probabilities=self.loss == "bce")
            if self.loss == "poisson" and isinstance(y, np.ndarray) and y.min(initial=0) < 0:
                raise ValueError(
                    f"{name}: expected counts or rates of 0 or more with loss 'poisson', got {y.min():g}; "
                    "use loss 'mse' for other numbers"
                )
        else:
            check_labels(name, y, self.outputs, count)
            if self.loss == "svm" and isinstance(y, np.ndarray) and y.ndim == 2 and not ((y == 0) | (y == 1)).all():
                raise ValueError(
                    f"{name}: expected labels, or rows of zeros with a one, with loss 'svm', got other rows"
                )

    def to_device(self, backend: Backend, y: Array, dtype: Any) -> Array:
        """Return checked targets for the loss: int64 labels (N,), or (N, C) in the network's dtype, scaled."""
        if self.scaling is not None and self.scales:
            shift, scale = (backend.asarray(array) for array in self.scaling)
            rows = F.preprocess(backend.asarray(y).reshape(len(y), self.outputs), shift, scale)
            return rows.astype(dtype)
        if self.numeric:
            return backend.asarray(y, dtype).reshape(len(y), self.outputs)
        return backend.asarray(y, "int64" if y.ndim == 1 else dtype)

    def loss_and_gradient(self, run: Run, scores: Array, y: Array, weights: Array | None = None) -> tuple[Array, Array]:
        """Return the loss, an array without axes, and its gradient (N, C); weights (N,) of the samples if given."""
        if self.label_smoothing:
            y = run(F.smooth_labels, y, self.outputs, self.label_smoothing, scores.dtype)
        if weights is None:
            loss, dscores = run(F.LOSSES[self.loss].function, scores, y)
        else:
            loss, dscores = run(F.weighted_loss, scores, y, weights, self.loss)
        return loss, dscores

    def judged(self, backend: Backend, scores: Array, y: Array) -> tuple[Array, Array]:
        """Return scores (N, C) and targets as the metric takes them, from those that the loss takes.

        Scores are shifted so that the decision is at the threshold. Scaled targets and their scores are returned in the
        targets' own units, without the shift, on which their difference does not depend.
        """
        scores = self._decisive(backend, scores)
        if self.loss == "poisson":
            return backend.xp.exp(scores), y
        if self.scaling is None or not self.scales:
            return scores, y
        scale = backend.asarray(self.scaling[1])
        return scores / scale, y / scale

    def predictions(self, backend: Backend, scores: Array) -> Array:
        """Return classes (N,), values (N, C) or labels of 0 and 1 (N, C); (N,) if there is one value or label.

        Values are in the targets' own units; where these were scaled, they are float64, rounded to the digits that a
        float32 network can determine.
        """
        scores = self._decisive(backend, scores)
        if not self.numeric:
            return backend.xp.argmax(scores, axis=1)
        if self.loss == "bce":
            scores = backend.xp.greater(scores, 0).astype("int64")
        elif self.loss == "poisson":
            scores = backend.xp.exp(scores)
        elif self.scaling is not None and self.scales:
            shift, scale = (backend.asarray(array) for array in self.scaling)
            places = PLACES + math.floor(math.log10(np.abs(self.scaling[1]).max()))
            known = scores.dtype == "float64" or abs(places) > 15
            scores = scores / scale + shift
            scores = scores if known else backend.xp.around(scores, places)
        return scores.reshape(-1) if self.outputs == 1 else scores

    def probabilities(self, scores: Array) -> Array:
        """Return the probabilities (N, C) of the classes or of the labels.

        Raises:
            ValueError: the scores are no log-probabilities.
        """
        if self.loss == "softmax":
            return F.softmax(scores)
        if self.loss == "bce":
            return F.sigmoid_forward(scores)[0]
        raise ValueError(
            f"predict_proba: expected a network with loss 'softmax' or 'bce', got loss={self.loss!r}; "
            "use scores or predict"
        )
