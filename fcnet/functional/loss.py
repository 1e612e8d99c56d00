"""Losses: the mean over the batch, and its gradient in the scores.

Shapes: scores (..., N, C), N batch, C classes or outputs. Targets y of the classification losses are integer labels
(..., N), or (..., N, C): one-hot rows, or for the softmax loss any probabilities. Targets of `NUMERIC` are (..., N, C).

Each formula is a function `_NAME_rows`, which returns the losses and gradients of single rows; their mean, or weighted
mean, is taken in one place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from fcnet.backends import Backend, accelerated, checked
from fcnet.errors import unknown
from fcnet.functional import checks
from fcnet.functional.activation import sigmoid_forward
from fcnet.functional.metric import ACCURACY, LABEL_ACCURACY, RMSE, Metric

Array = Any

__all__ = [
    "LOSSES",
    "METRICS",
    "NUMERIC",
    "Loss",
    "bce_loss",
    "mse_loss",
    "one_hot",
    "poisson_loss",
    "smooth_labels",
    "softmax",
    "softmax_loss",
    "svm_loss",
    "weighted_loss",
]


@checked("rows")
def one_hot(backend: Backend, y: Array, num_classes: int, dtype: Any) -> Array:
    """Return labels (..., N) as rows (..., N, C): row_c = 1 if c = y, else 0; labels outside 0..C-1 give zeros."""
    return _is_class(backend, y, num_classes).astype(dtype)


def _is_class(backend: Backend, y: Array, num_classes: int) -> Array:
    """Return whether c = y, (..., N, C)."""
    return backend.xp.equal(y[..., None], backend.xp.arange(num_classes))


def _targets(backend: Backend, y: Array, scores: Array) -> Array:
    if y.ndim != scores.ndim:
        return one_hot.formula(backend, y, scores.shape[-1], scores.dtype)
    return y if y.dtype == scores.dtype else y.astype(scores.dtype)


def _check_scores(function: str, scores: Array, loss: Array | None, dscores: Array | None) -> None:
    checks.floating(function, scores=scores)
    checks.rows(function, "scores", scores)
    checks.outputs(function, scores.shape, dscores=dscores)
    checks.outputs(function, scores.shape[:-2], loss=loss)


def _check(function: str, scores: Array, y: Array, *, loss: Array | None = None, dscores: Array | None = None) -> None:
    _check_scores(function, scores, loss, dscores)
    if not hasattr(y, "dtype"):
        raise TypeError(f"{function}: y: expected an array, got {type(y).__name__}; use numpy.asarray(y)")
    if y.ndim == scores.ndim:
        checks.same_shape(function, "y", y, scores.shape, "scores (one-hot)")
        if y.dtype.kind not in "fiub":
            raise TypeError(f"{function}: y: expected one-hot rows of numbers, got {y.dtype}")
        return
    checks.same_shape(function, "y", y, scores.shape[:-1], "scores without classes")
    if y.dtype.kind not in "iu":
        raise TypeError(f"{function}: y: expected integer labels, got {y.dtype}; use y.astype(int)")
    checks.labels(function, y, scores.shape[-1])


@accelerated("loss", "dscores", check=lambda scores, y, **given: _check("softmax_loss", scores, y, **given))
def softmax_loss(
    backend: Backend, scores: Array, y: Array, *, loss: Array | None = None, dscores: Array | None = None
) -> tuple[Array, Array]:
    """Compute the softmax cross-entropy: loss = mean_n -Σ_c t_c log p_c, p = softmax(scores).

    The largest score of each row is subtracted first, so that no exponential overflows. Source: both courses.

    Args:
        scores: (..., N, C). y: labels (..., N) or probabilities t (..., N, C), each row summing to 1.
        loss: (...), filled if given: for one batch an array without axes.
        dscores: like scores, filled if given; must not overlap scores.

    Returns:
        loss (...) and dscores = (p - t) / N.

    Raises:
        ValueError: shapes do not fit, or no row. TypeError: labels are not integers, scores not floating.
    """
    return _mean(backend, _softmax_rows(backend, scores, y, dscores), loss)


def _softmax_rows(backend: Backend, scores: Array, y: Array, dscores: Array | None) -> tuple[Array, Array]:
    """Return -Σ_c t_c log p_c of each row (..., N, 1), and p - t (..., N, C).

    With s' = s - max_c s and total = Σ_c exp(s'_c): p = exp(s') / total, and as Σ_c t_c = 1 the loss is
    log(total) - Σ_c t_c s'_c.
    """
    xp = backend.xp
    labels = y.ndim != scores.ndim
    targets = _is_class(backend, y, scores.shape[-1]) if labels else _targets(backend, y, scores)
    peak = scores.max(axis=-1, keepdims=True)
    shifted = xp.subtract(scores, peak, out=dscores)
    counted = xp.where(targets, shifted, 0)  # a target of 0 adds 0, even at a score of -inf
    right = (counted if labels else targets * counted).sum(axis=-1, keepdims=True)
    powers = xp.exp(shifted, out=shifted)
    total = powers.sum(axis=-1, keepdims=True)
    p = xp.divide(powers, total, out=powers)
    return xp.log(total) - right, xp.subtract(p, targets, out=p)


@accelerated("loss", "dscores", check=lambda scores, y, **given: _check("svm_loss", scores, y, **given))
def svm_loss(
    backend: Backend, scores: Array, y: Array, *, loss: Array | None = None, dscores: Array | None = None
) -> tuple[Array, Array]:
    """Compute the multiclass hinge loss: loss = mean_n Σ_{c ≠ y_n} max(0, s_c - s_{y_n} + 1).

    Source: Weston and Watkins, 1999; margin 1 as in CS231n.

    Args and returns: as `softmax_loss`; rows of y (..., N, C) must be one-hot.
    """
    return _mean(backend, _svm_rows(backend, scores, y, dscores), loss)


def _svm_rows(backend: Backend, scores: Array, y: Array, dscores: Array | None) -> tuple[Array, Array]:
    """Return Σ_{c ≠ y} max(0, s_c - s_y + 1) of each row (..., N, 1), and its gradient.

    The gradient is 1 at every c ≠ y whose margin is positive, and minus their number at y.
    """
    xp = backend.xp
    targets = _targets(backend, y, scores)
    right = xp.sum(targets * scores, axis=-1, keepdims=True)
    margins = xp.subtract(scores, right, out=dscores)
    xp.add(margins, 1, out=margins)
    xp.multiply(margins, 1 - targets, out=margins)  # the right class has no margin to itself
    hinges = xp.maximum(margins, 0, out=margins)  # max(0, s_c - s_y + 1), 0 at c = y
    losses = xp.sum(hinges, axis=-1, keepdims=True)
    violated = xp.greater(hinges, 0, out=hinges)
    violations = xp.sum(violated, axis=-1, keepdims=True)
    return losses, xp.subtract(violated, targets * violations, out=violated)


def _check_numeric(
    function: str, scores: Array, y: Array, *, loss: Array | None = None, dscores: Array | None = None
) -> None:
    checks.floating(function, scores=scores, y=y)
    _check_scores(function, scores, loss, dscores)
    checks.same_shape(function, "y", y, scores.shape, "scores")


@accelerated("loss", "dscores", check=lambda scores, y, **given: _check_numeric("mse_loss", scores, y, **given))
def mse_loss(
    backend: Backend, scores: Array, y: Array, *, loss: Array | None = None, dscores: Array | None = None
) -> tuple[Array, Array]:
    """Compute the mean squared error: loss = mean_n mean_c (s - y)², the mean over all outputs.

    (CS231n's notes sum over the outputs, C times as much; "Deep Learning from Scratch" takes half of that sum.)

    Source: both courses; the mean as in PyTorch.

    Args:
        scores: (..., N, C). y: (..., N, C) of the same dtype.
        loss, dscores: as in `softmax_loss`.

    Returns:
        loss (...) and dscores = 2 (s - y) / (N C).

    Raises:
        ValueError: shapes do not fit, or no row. TypeError: not floating, or two dtypes.
    """
    return _mean(backend, _mse_rows(backend, scores, y, dscores), loss)


def _mse_rows(backend: Backend, scores: Array, y: Array, dscores: Array | None) -> tuple[Array, Array]:
    """Return mean_c (s - y)² of each row (..., N, 1), and 2 (s - y) / C."""
    xp = backend.xp
    errors = xp.subtract(scores, y, out=dscores)
    squares = xp.multiply(errors, errors, dtype="float64")  # float32 squares may overflow although their mean does not
    losses = xp.mean(squares, axis=-1, keepdims=True)
    return losses, xp.multiply(errors, 2 / scores.shape[-1], out=errors)


@accelerated("loss", "dscores", check=lambda scores, y, **given: _check_numeric("bce_loss", scores, y, **given))
def bce_loss(
    backend: Backend, scores: Array, y: Array, *, loss: Array | None = None, dscores: Array | None = None
) -> tuple[Array, Array]:
    """Compute the binary cross-entropy of logits: loss = mean_n mean_c -[y log σ(s) + (1 - y) log(1 - σ(s))].

    σ is the sigmoid: σ(s) = 1 / (1 + exp(-s)).

    C labels that may each be on or off; the mean over all of them. Computed as
    max(s, 0) - s y + log(1 + exp(-|s|)), which no score makes overflow.

    Source: CS231n, "Neural Networks Part 2", attribute classification; PyTorch's BCEWithLogitsLoss.

    Args:
        scores: (..., N, C). y: (..., N, C) of the same dtype, 0 or 1, or probabilities between.
        loss, dscores: as in `softmax_loss`.

    Returns:
        loss (...) and dscores = (σ(s) - y) / (N C).

    Raises:
        ValueError: shapes do not fit, or no row. TypeError: not floating, or two dtypes.
    """
    return _mean(backend, _bce_rows(backend, scores, y, dscores), loss)


def _bce_rows(backend: Backend, scores: Array, y: Array, dscores: Array | None) -> tuple[Array, Array]:
    """Return mean_c [max(s, 0) - s y + log(1 + exp(-|s|))] of each row (..., N, 1), and (σ(s) - y) / C."""
    xp = backend.xp
    exponent = xp.abs(scores)
    xp.negative(exponent, out=exponent)
    power = xp.exp(exponent, out=exponent)  # exp(-|s|)
    each = xp.log1p(power, out=power)
    xp.add(each, xp.maximum(scores, 0) - scores * y, out=each)  # max(s, 0) - s y + log(1 + exp(-|s|))
    losses = xp.mean(each, axis=-1, keepdims=True)
    sigmoid, _ = sigmoid_forward.formula(backend, scores, out=dscores)
    errors = xp.subtract(sigmoid, y, out=sigmoid)
    return losses, xp.multiply(errors, 1 / scores.shape[-1], out=errors)


@accelerated("loss", "dscores", check=lambda scores, y, **given: _check_numeric("poisson_loss", scores, y, **given))
def poisson_loss(
    backend: Backend, scores: Array, y: Array, *, loss: Array | None = None, dscores: Array | None = None
) -> tuple[Array, Array]:
    """Compute the Poisson loss on logarithms: mean_n mean_c [exp(s) - y s + y log y - y], half the Poisson deviance.

    For counts, and for rates of 0 or more: exp(s) is the mean that is predicted, and the loss is 0 where it is y.

    Source: McCullagh and Nelder, "Generalized Linear Models", 1989, with the logarithm as link.

    Args:
        scores: (..., N, C). y: (..., N, C) of the same dtype, 0 or more.
        loss, dscores: as in `softmax_loss`.

    Returns:
        loss (...) and dscores = (exp(s) - y) / (N C).

    Raises:
        ValueError: shapes do not fit, or no row. TypeError: not floating, or two dtypes.
    """
    return _mean(backend, _poisson_rows(backend, scores, y, dscores), loss)


def _poisson_rows(backend: Backend, scores: Array, y: Array, dscores: Array | None) -> tuple[Array, Array]:
    """Return mean_c [exp(s) - y s + y log y - y] of each row (..., N, 1), and (exp(s) - y) / C."""
    xp = backend.xp
    rates = xp.exp(scores, out=dscores)
    least = y * xp.log(xp.where(xp.greater(y, 0), y, 1)) - y  # minus the least that exp(s) - y s can be
    losses = xp.mean(rates - y * scores + least, axis=-1, keepdims=True, dtype="float64")
    errors = xp.subtract(rates, y, out=rates)
    return losses, xp.multiply(errors, 1 / scores.shape[-1], out=errors)


def _mean(backend: Backend, rows: tuple[Array, Array], loss: Array | None) -> tuple[Array, Array]:
    """Return the mean of losses (..., N, 1) over N, and the gradients of the rows divided by N."""
    losses, dscores = rows
    xp = backend.xp
    xp.divide(dscores, dscores.shape[-2], out=dscores)
    loss = xp.empty(dscores.shape[:-2], dtype=dscores.dtype) if loss is None else loss
    loss[...] = losses.sum(axis=(-2, -1), dtype="float64") / losses.shape[-2]
    return loss, dscores


class Loss(NamedTuple):
    """Describe a loss; calling it calls its function.

    function: (scores, y) -> the batch's mean loss and its gradient. rows: (scores, y, dscores) -> each row's loss and
    gradient. metric: the figure by which networks trained with it are judged. targets: what it is for, as text.
    numeric: whether the targets are numbers (N, C), not the labels of classes.
    """

    function: Callable[..., tuple[Array, Array]]
    rows: Callable[..., tuple[Array, Array]]
    metric: Metric
    targets: str
    numeric: bool = False

    def __call__(self, scores: Array, y: Array, **outputs: Array | None) -> tuple[Array, Array]:
        """Call `function`."""
        return self.function(scores, y, **outputs)


#: Losses by name.
LOSSES = {
    "softmax": Loss(softmax_loss, _softmax_rows, ACCURACY, targets="classes"),
    "svm": Loss(svm_loss, _svm_rows, ACCURACY, targets="classes"),
    "mse": Loss(mse_loss, _mse_rows, RMSE, targets="numbers", numeric=True),
    "bce": Loss(bce_loss, _bce_rows, LABEL_ACCURACY, targets="labels of 0 and 1", numeric=True),
    "poisson": Loss(poisson_loss, _poisson_rows, RMSE, targets="counts and rates", numeric=True),
}
#: The losses whose targets are numbers (N, C), not the labels of classes.
NUMERIC = tuple(name for name, loss in LOSSES.items() if loss.numeric)
#: The metric of networks by their loss: accuracy = right classes / N; label accuracy = right labels / (N C);
#: rmse = sqrt(Σ (s - y)² / (N C)).
METRICS = {name: loss.metric for name, loss in LOSSES.items()}


def _check_weighted(scores: Array, y: Array, weights: Array, name: str = "softmax", **given: Array | None) -> None:
    if name not in LOSSES:
        raise unknown("weighted_loss: name", name, LOSSES)
    checks.floating("weighted_loss", scores=scores, weights=weights)
    (_check_numeric if name in NUMERIC else _check)("weighted_loss", scores, y, **given)
    checks.same_shape("weighted_loss", "weights", weights, scores.shape[:-1], "scores without classes")


@accelerated("loss", "dscores", check=_check_weighted)
def weighted_loss(
    backend: Backend,
    scores: Array,
    y: Array,
    weights: Array,
    name: str = "softmax",
    *,
    loss: Array | None = None,
    dscores: Array | None = None,
) -> tuple[Array, Array]:
    """Return a loss with weights: loss = mean_n w_n l_n, where l_n is what `name` gives for sample n alone.

    The sum is divided by N, not by the sum of the weights: so a sample's weight does not depend on the rest of its
    batch, and weights of 1 give the loss itself.

    Args:
        scores, y: as the loss `name` (in `LOSSES`) takes them.
        weights: (..., N), of the dtype of scores.
        loss, dscores: as in `softmax_loss`.

    Returns:
        loss (...) and dscores.
    """
    xp = backend.xp
    losses, dscores = LOSSES[name].rows(backend, scores, y, dscores)
    each = weights[..., None]
    xp.multiply(dscores, each, out=dscores)
    return _mean(backend, (losses * each, dscores), loss)


def _check_smoothing(y: Array, num_classes: int, smoothing: float, dtype: Any, *, targets: Array | None = None) -> None:
    if not hasattr(y, "dtype"):
        raise TypeError(f"smooth_labels: y: expected an array, got {type(y).__name__}; use numpy.asarray(y)")
    if y.dtype.kind == "f":
        if y.ndim == 0 or y.shape[-1] != num_classes:
            raise ValueError(f"smooth_labels: y: expected rows (..., {num_classes}), got shape {y.shape}")
    elif y.dtype.kind in "iu":
        checks.labels("smooth_labels", y, num_classes)
    else:
        raise TypeError(f"smooth_labels: y: expected integer labels or floating rows, got {y.dtype}")
    checks.outputs("smooth_labels", y.shape if y.dtype.kind == "f" else (*y.shape, num_classes), targets=targets)
    if not 0 <= smoothing < 1:
        raise ValueError(f"smooth_labels: smoothing: expected 0 <= smoothing < 1, got {smoothing}")


@accelerated("targets", check=_check_smoothing)
def smooth_labels(
    backend: Backend, y: Array, num_classes: int, smoothing: float, dtype: Any, *, targets: Array | None = None
) -> Array:
    """Return targets of the softmax loss with label smoothing: (1 - ε) t + ε / C, t one-hot.

    Source: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2016.

    Args:
        y: integer labels (..., N), or floating rows t (..., N, C) that sum to 1.
        num_classes: C. smoothing: ε, 0 <= ε < 1.
        dtype: of the scores.
        targets: (..., N, C), filled if given.

    Raises:
        ValueError: ε or a label out of range, rows of another width. TypeError: neither labels nor rows.
    """
    xp = backend.xp
    rows = y if y.dtype.kind == "f" else one_hot.formula(backend, y, num_classes, dtype)
    if targets is None:
        targets = xp.empty(rows.shape, dtype=dtype)
    xp.multiply(rows, 1 - smoothing, out=targets)
    return xp.add(targets, smoothing / num_classes, out=targets)


@checked("out", check=lambda scores, **_: checks.floating("softmax", scores=scores))
def softmax(backend: Backend, scores: Array, *, out: Array | None = None) -> Array:
    """Return probabilities p_c = exp(s_c) / Σ_k exp(s_k), (..., C), over the last axis; `out` may be scores itself.

    The largest score is subtracted first. Source: both courses.
    """
    xp = backend.xp
    shifted = xp.subtract(scores, scores.max(axis=-1, keepdims=True), out=out)
    powers = xp.exp(shifted, out=shifted)
    return xp.divide(powers, powers.sum(axis=-1, keepdims=True), out=powers)
