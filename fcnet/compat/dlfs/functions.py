"""The book's `common/functions.py`: activations and losses as plain functions, over `fcnet.functional`.

x is an array of any shape or a number; integers are computed with as float64.
Source: Saito, "Deep Learning from Scratch", chapters 3 and 4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fcnet import functional as F
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
    """`apply` to every element; a number gives a number."""
    (x,) = promoted(function, x=_array(x))
    return apply(x.reshape(-1)).reshape(x.shape)[()]


def _rows(function: str, **arrays: Any) -> list[Array]:
    """Arrays (N, C) in one dtype; a single sample (C,) as one row."""
    several = promoted(function, **{name: _array(array) for name, array in arrays.items()})
    for name, array in zip(arrays, several, strict=True):
        if array.ndim not in (1, 2) or array.size == 0:
            raise ValueError(f"{function}: {name}: expected (N, C) or (C,), got shape {array.shape}")
    return [array.reshape(1, -1) if array.ndim == 1 else array for array in several]


def _targets(t: Any, samples: int, classes: int) -> Array:
    """Labels (N,) as they are, one-hot rows (N, C) or a single one (C,) as rows."""
    t = _array(t)
    if t.size == samples * classes and (classes > 1 or t.ndim == 2):
        t = t.reshape(samples, classes)
    elif t.ndim == 0:
        t = t.reshape(1)
    check_labels("t", t, classes, samples)
    return t


def identity_function(x: Array) -> Array:
    """out = x."""
    return x


def step_function(x: Any) -> Any:
    """out = 1 where x > 0, else 0, as integers."""
    return _each("step_function", x, lambda x: (x > 0).astype("int64"))


def sigmoid(x: Any) -> Any:
    """out = 1 / (1 + exp(-x)), which here overflows for no x."""
    return _each("sigmoid", x, lambda x: F.sigmoid_forward(x)[0])


def sigmoid_grad(x: Any) -> Any:
    """The derivative of `sigmoid`, out = sigmoid(x) (1 - sigmoid(x))."""

    def derivative(x: Array) -> Array:
        return F.sigmoid_backward(array_module(x).ones_like(x), F.sigmoid_forward(x)[1])

    return _each("sigmoid_grad", x, derivative)


def relu(x: Any) -> Any:
    """out = max(x, 0)."""
    return _each("relu", x, lambda x: F.relu_forward(x)[0])


def relu_grad(x: Any) -> Any:
    """The derivative of `relu`, out = 1 where x >= 0, else 0: at 0 it is 1 here, 0 in the book's layer `Relu`."""
    return _each("relu_grad", x, lambda x: (x >= 0).astype(x.dtype))


def softmax(x: Any) -> Array:
    """Probabilities p_c = exp(x_c) / Σ_k exp(x_k) of scores x (N, C) or (C,), of which the largest is taken off."""
    return F.softmax(*_rows("softmax", x=x)).reshape(np.shape(x))


def sum_squared_error(y: Any, t: Any) -> float:
    """0.5 Σ (y - t)², the sum over all elements of y and t, which are of one shape, (N, C) or (C,)."""
    y, t = _rows("sum_squared_error", y=y, t=t)
    loss, _ = F.mse_loss(y, t)
    return number(loss) * y.size / 2


def mean_squared_error(y: Any, t: Any) -> float:
    """`sum_squared_error` by the name of the book's first printings: it is the same sum, and no mean."""
    return sum_squared_error(y, t)


def cross_entropy_error(y: Any, t: Any) -> float:
    """mean_n -log(p + 1e-7), p the probability that y (N, C) or (C,) gives the class in t.

    Args:
        y: probabilities, as `softmax` gives them; scores are for `softmax_loss`.
        t: labels (N,) or one-hot like y.
    """
    (y,) = _rows("cross_entropy_error", y=y)
    t = _targets(t, *y.shape)
    xp = array_module(y, t)
    rows = F.one_hot(t, y.shape[1], y.dtype) if t.ndim == 1 else t
    logs = xp.sum(rows * xp.log(y + DELTA), axis=1)
    return -number(xp.mean(logs, out=xp.empty((), dtype=y.dtype)))


def softmax_loss(X: Any, t: Any) -> float:
    """The cross-entropy of softmax(X), for scores X (N, C) or (C,), t as in `cross_entropy_error`.

    Exact, as in `SoftmaxWithLoss`: without the 1e-7.
    """
    (X,) = _rows("softmax_loss", X=X)
    loss, _ = F.softmax_loss(X, _targets(t, *X.shape))
    return number(loss)
