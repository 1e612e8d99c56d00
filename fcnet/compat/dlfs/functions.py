"""The book's `common/functions.py`: activations and losses as plain functions, over `fcnet.functional`.

x is an array of any shape or a number; integers are computed with as float64. The numbers are the book's to rounding.
Source: Saito, "Deep Learning from Scratch", chapters 3 and 4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fcnet.functional as F
from fcnet.backends import array_module
from fcnet.compat.cs231n._arrays import Array, number, promoted
from fcnet.validation import check_labels

__all__ = [
    "cross_entropy_error",
    "identity_function",
    "mean_squared_error",
    "np",  # the book's star import brings it, and two_layer_net.py of chapter 4 uses it
    "relu",
    "relu_grad",
    "sigmoid",
    "sigmoid_grad",
    "softmax",
    "softmax_loss",
    "step_function",
    "sum_squared_error",
]

DELTA = 1e-7  # of the cross-entropy


def _array(x: Any) -> Array:
    return x if hasattr(x, "dtype") and hasattr(x, "shape") else np.asarray(x)


def _each(function: str, x: Any, apply: Callable[[Array], Array]) -> Any:
    """Apply `apply` to every element; a number gives a number."""
    (x,) = promoted(function, x=_array(x))
    return apply(x.reshape(-1)).reshape(x.shape)[()]


def has_rows(t: Array, samples: int, classes: int) -> bool:
    """Return whether t holds a number for each class, (N, C) or for a single sample (C,), and not labels."""
    return t.size == samples * classes and (classes > 1 or t.ndim == 2)


def labels_of(t: Any, samples: int, classes: int) -> Array:
    """Return labels (N,) of t: labels, or rows (N, C), one-hot or not, whose largest number says the class.

    A single sample's t may also be a number, or (C,).
    """
    t = _array(t)
    if has_rows(t, samples, classes):
        return array_module(t).argmax(t.reshape(samples, classes), axis=1)
    t = t.reshape(1) if t.ndim == 0 else t
    check_labels("t", t, classes, samples)
    return t


def identity_function(x: Array) -> Array:
    """Return out = x."""
    return x


def step_function(x: Any) -> Any:
    """Return out = 1 where x > 0, else 0, as integers."""
    return _each("step_function", x, lambda x: (x > 0).astype("int64"))


def sigmoid(x: Any) -> Any:
    """Return out = 1 / (1 + exp(-x)), which here overflows for no x."""
    return _each("sigmoid", x, lambda x: F.sigmoid_forward(x)[0])


def sigmoid_grad(x: Any) -> Any:
    """Return the derivative of `sigmoid`, out = sigmoid(x) (1 - sigmoid(x))."""

    def derivative(x: Array) -> Array:
        return F.sigmoid_backward(array_module(x).ones_like(x), F.sigmoid_forward(x)[1])

    return _each("sigmoid_grad", x, derivative)


def relu(x: Any) -> Any:
    """Return out = max(x, 0), integers for integers."""
    x = _array(x)
    return _each("relu", x, lambda floats: F.relu_forward(floats)[0].astype(x.dtype))


def relu_grad(x: Any) -> Any:
    """Return the derivative of `relu`: 1 where x >= 0, else 0 (at 0, the book's layer `Relu` has 0)."""
    x = _array(x)
    return _each("relu_grad", x, lambda floats: (floats >= 0).astype(x.dtype))


def softmax(x: Any) -> Any:
    """Return p_c = exp(x_c) / Σ_k exp(x_k) along the last axis of x, (..., C), whose largest is subtracted first.

    A number is the score of a single class, whose probability is 1.
    """
    (x,) = promoted("softmax", x=_array(x))
    if x.ndim == 0:
        return F.softmax(x.reshape(1)).reshape(())[()]
    return F.softmax(x)


def sum_squared_error(y: Any, t: Any) -> float:
    """Return 0.5 Σ (y - t)², the sum over all elements of y and t, which are of one shape, any.

    Raises:
        ValueError: they are not, or hold nothing.
    """
    y, t = promoted("sum_squared_error", y=_array(y), t=_array(t))
    if y.shape != t.shape or y.size == 0:
        raise ValueError(f"sum_squared_error: t: expected numbers in the shape of y, {y.shape}, got shape {t.shape}")
    loss, _ = F.mse_loss(y.reshape(1, -1), t.reshape(1, -1))
    return number(loss) * y.size / 2


def mean_squared_error(y: Any, t: Any) -> float:
    """Return `sum_squared_error`, called so in the book's first printings: it is the same sum, and no mean."""
    return sum_squared_error(y, t)


def cross_entropy_error(y: Any, t: Any) -> float:
    """Return mean_n -log(p + 1e-7), p the probability that y (N, C) or (C,) gives the class in t.

    Args:
        y: probabilities, as `softmax` gives them; scores are for `softmax_loss`.
        t: labels (N,), or rows like y, one-hot or not, of which the largest number alone counts.

    Raises:
        ValueError, TypeError: shapes that do not fit, a label that is none.
    """
    (y,) = promoted("cross_entropy_error", y=_array(y))
    if y.ndim not in (1, 2) or y.size == 0:
        raise ValueError(f"cross_entropy_error: y: expected (N, C) or (C,), got shape {y.shape}")
    y = y.reshape(-1, y.shape[-1])
    labels = labels_of(t, *y.shape)
    xp = array_module(y, labels)
    p = y[xp.arange(len(y)), labels]
    return -number(xp.mean(xp.log(p + DELTA), out=xp.empty((), dtype=y.dtype)))


def softmax_loss(X: Any, t: Any) -> float:
    """Return `cross_entropy_error` of softmax(X), for scores X (N, C) or (C,)."""
    return cross_entropy_error(softmax(X), t)
