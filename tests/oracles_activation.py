"""Slow, independent activations and their derivatives in float64: number by number, with `math`.

The sigmoid is written with tanh and the gated units by the product rule, as the code does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

ALPHA, LEAK = 1.0, 0.01  # of ELU and leaky ReLU


def sigmoid(x):
    return 0.5 * (1.0 + math.tanh(0.5 * x)) if x > -30 else math.exp(x)


def gelu(x):
    return 0.5 * x * (1.0 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gelu_slope(x):
    t = math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)


class Oracle(NamedTuple):
    """An activation of a number, and its derivative.

    init: the initialiser that its row names: Xavier for what is linear around 0, He for what halves the variance.
    ends: what it tends to at minus infinity and at plus infinity, where None is the number itself; None: at neither.
    torch: what the function of its name in torch.nn.functional has to be told; None: there is no such function.
    """

    of: Callable[[float], float]
    slope: Callable[[float], float]
    init: str = "he"
    ends: tuple[float, float | None] | None = (0.0, None)
    torch: Mapping[str, Any] | None = MappingProxyType({})


#: One for each activation but maxout; one without a line here fails the tests.
NUMBERS = {
    "relu": Oracle(lambda x: x if x > 0 else 0.0, lambda x: 1.0 if x > 0 else 0.0),
    "leaky_relu": Oracle(lambda x: x if x > 0 else LEAK * x, lambda x: 1.0 if x > 0 else LEAK, ends=None),
    "elu": Oracle(
        lambda x: x if x > 0 else ALPHA * math.expm1(x),
        lambda x: 1.0 if x > 0 else ALPHA * math.exp(x),
        ends=(-ALPHA, None),
    ),
    "sigmoid": Oracle(sigmoid, lambda x: sigmoid(x) * sigmoid(-x), "xavier", (0.0, 1.0)),
    "tanh": Oracle(math.tanh, lambda x: 1.0 / math.cosh(x) ** 2, "xavier", (-1.0, 1.0)),
    "gelu": Oracle(gelu, gelu_slope, torch={"approximate": "tanh"}),
    "softplus": Oracle(lambda x: math.log1p(math.exp(x)) if x < 30 else x + math.exp(-x), sigmoid),
    "identity": Oracle(lambda x: x, lambda x: 1.0, "xavier", ends=None, torch=None),
    "silu": Oracle(lambda x: x * sigmoid(x), lambda x: sigmoid(x) + x * sigmoid(x) * sigmoid(-x)),
}


def forward(name, x, pieces=2):
    """Return the activation of this name, of an array of any shape; maxout takes pieces * M columns and gives M."""
    x = np.asarray(x, dtype=np.float64)
    if name == "maxout":
        groups = _groups(x, pieces)
        return np.array([max(group) for group in groups]).reshape(*x.shape[:-1], x.shape[-1] // pieces)
    return np.array([NUMBERS[name].of(value) for value in x.flat]).reshape(x.shape)


def backward(name, dout, x, pieces=2):
    """dout times the derivative; of equal pieces of maxout the first has the gradient."""
    x, dout = np.asarray(x, dtype=np.float64), np.asarray(dout, dtype=np.float64)
    if name == "maxout":
        dx = np.zeros_like(x)
        width = x.shape[-1] // pieces
        for index, gradient in np.ndenumerate(dout):
            *where, unit = index
            values = [x[(*where, p * width + unit)] for p in range(pieces)]
            dx[(*where, values.index(max(values)) * width + unit)] = gradient
        return dx
    slopes = np.array([NUMBERS[name].slope(value) for value in x.flat]).reshape(x.shape)
    return np.array([g * s for g, s in zip(dout.flat, slopes.flat, strict=True)]).reshape(x.shape)


def _groups(x, pieces):
    """Return the values of each unit's pieces: piece p of unit m is column p M + m."""
    width = x.shape[-1] // pieces
    for row in x.reshape(-1, x.shape[-1]).tolist():
        for unit in range(width):
            yield [row[p * width + unit] for p in range(pieces)]
