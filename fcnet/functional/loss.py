"""Losses: the mean over the batch, and its gradient in the scores.

Shapes: scores (..., N, C), N batch, C classes. Targets y are integer labels (..., N), or (..., N, C): one-hot rows, or
for the softmax loss any probabilities.
"""

from __future__ import annotations

from typing import Any

from backends import accelerated, array_module
from fcnet.functional import checks

Array = Any


def one_hot(y: Array, num_classes: int, dtype: Any) -> Array:
    """Labels (..., N) as rows of zeros with a one, (..., N, C). Labels outside 0..C-1 give a row of zeros."""
    xp = array_module(y)
    rows = xp.empty((*y.shape, num_classes), dtype=dtype)
    return xp.equal(y[..., None], xp.arange(num_classes), out=rows)


def _targets(y: Array, scores: Array) -> Array:
    if y.ndim != scores.ndim:
        return one_hot(y, scores.shape[-1], scores.dtype)
    return y if y.dtype == scores.dtype else y.astype(scores.dtype)


def _check(function: str, scores: Array, y: Array) -> None:
    checks.floating(function, scores=scores)
    checks.rows(function, "scores", scores)
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


@accelerated("loss", "dscores", check=lambda scores, y, **_: _check("softmax_loss", scores, y))
def softmax_loss(
    scores: Array, y: Array, *, loss: Array | None = None, dscores: Array | None = None
) -> tuple[Array, Array]:
    """Softmax cross-entropy: loss = mean_n -Σ_c t_c log p_c, p = softmax(scores).

    The largest score of each row is taken off first, so that no exponential overflows.

    Args:
        scores: (..., N, C). y: labels (..., N) or probabilities t (..., N, C), each row summing to 1.
        loss: (...), filled if given: for one batch an array without axes.
        dscores: like scores, filled if given; must not overlap scores.

    Returns:
        loss (...) and dscores = (p - t) / N.

    Raises:
        ValueError: shapes do not fit, or no row. TypeError: labels are not integers, scores not floating.
    """
    xp = array_module(scores, y)
    targets = _targets(y, scores)
    peak = xp.max(scores, axis=-1, keepdims=True)
    dscores = xp.subtract(scores, peak, out=dscores)
    right = xp.sum(targets * dscores, axis=-1, keepdims=True)
    xp.exp(dscores, out=dscores)
    total = xp.sum(dscores, axis=-1, keepdims=True)
    xp.divide(dscores, total, out=dscores)
    xp.subtract(dscores, targets, out=dscores)
    xp.divide(dscores, scores.shape[-2], out=dscores)
    loss = xp.empty(scores.shape[:-2], dtype=scores.dtype) if loss is None else loss
    xp.mean(xp.log(total) - right, axis=(-2, -1), out=loss)
    return loss, dscores


@accelerated("loss", "dscores", check=lambda scores, y, **_: _check("svm_loss", scores, y))
def svm_loss(
    scores: Array, y: Array, *, loss: Array | None = None, dscores: Array | None = None
) -> tuple[Array, Array]:
    """Multiclass hinge loss: loss = mean_n Σ_{c ≠ y_n} max(0, s_c - s_{y_n} + 1).

    Source: Weston and Watkins, 1999; margin 1 as in CS231n.

    Args and returns: as `softmax_loss`; rows of y (..., N, C) must be one-hot.
    """
    xp = array_module(scores, y)
    targets = _targets(y, scores)
    right = xp.sum(targets * scores, axis=-1, keepdims=True)
    margins = xp.subtract(scores, right, out=dscores)
    xp.add(margins, 1, out=margins)
    xp.multiply(margins, 1 - targets, out=margins)  # the right class has no margin to itself
    xp.maximum(margins, 0, out=margins)
    loss = xp.empty(scores.shape[:-2], dtype=scores.dtype) if loss is None else loss
    xp.mean(xp.sum(margins, axis=-1), axis=-1, out=loss)
    dscores = xp.greater(margins, 0, out=margins)
    violations = xp.sum(dscores, axis=-1, keepdims=True)
    xp.subtract(dscores, targets * violations, out=dscores)
    xp.divide(dscores, scores.shape[-2], out=dscores)
    return loss, dscores


@accelerated("out", check=lambda scores, **_: checks.floating("softmax", scores=scores))
def softmax(scores: Array, *, out: Array | None = None) -> Array:
    """Probabilities exp(s_c) / Σ exp(s), (..., C), over the last axis; `out` may be scores itself."""
    xp = array_module(scores)
    out = xp.subtract(scores, xp.max(scores, axis=-1, keepdims=True), out=out)
    xp.exp(out, out=out)
    return xp.divide(out, xp.sum(out, axis=-1, keepdims=True), out=out)


LOSSES = {"softmax": softmax_loss, "svm": svm_loss}


@accelerated("loss")
def l2_penalty(weights: Array, reg: float, loss: Array, dweights: Array, work: Array) -> Array:
    """Add 0.5 reg Σ W² to `loss` and reg W to `dweights`, in place; return the loss.

    Args:
        weights, dweights: (P,) flat: every weight matrix of a network and its gradient.
        loss: an array without axes.
        work: scratch (B,), of the same dtype; the work is done B elements at a time.
    """
    xp = array_module(weights, loss, dweights, work)
    for start in range(0, weights.size, work.size):
        w, dw = weights[start : start + work.size], dweights[start : start + work.size]
        scaled = xp.multiply(w, reg, out=work[: w.size])
        # `dw` is one object: CuPy copies an input first that overlaps `out` and is another object, if only a view.
        xp.add(dw, scaled, out=dw)
        xp.add(loss, 0.5 * xp.dot(scaled, w), out=loss)
    return loss
