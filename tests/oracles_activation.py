"""Slow, independent activations and their derivatives in float64: number by number, with `math`.

The sigmoid is written with tanh and the gated units by the product rule, as the code does not.
"""

from __future__ import annotations

import math

import numpy as np

ALPHA, LEAK = 1.0, 0.01  # of ELU and leaky ReLU


def sigmoid(x):
    return 0.5 * (1.0 + math.tanh(0.5 * x)) if x > -30 else math.exp(x)


def gelu(x):
    return 0.5 * x * (1.0 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gelu_slope(x):
    t = math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)


#: name -> (function of a number, its derivative).
NUMBERS = {
    "relu": (lambda x: x if x > 0 else 0.0, lambda x: 1.0 if x > 0 else 0.0),
    "leaky_relu": (lambda x: x if x > 0 else LEAK * x, lambda x: 1.0 if x > 0 else LEAK),
    "elu": (lambda x: x if x > 0 else ALPHA * math.expm1(x), lambda x: 1.0 if x > 0 else ALPHA * math.exp(x)),
    "sigmoid": (sigmoid, lambda x: sigmoid(x) * sigmoid(-x)),
    "tanh": (math.tanh, lambda x: 1.0 / math.cosh(x) ** 2),
    "gelu": (gelu, gelu_slope),
    "identity": (lambda x: x, lambda x: 1.0),
    "silu": (lambda x: x * sigmoid(x), lambda x: sigmoid(x) + x * sigmoid(x) * sigmoid(-x)),
}


def forward(name, x, pieces=2):
    """The activation of this name, of an array of any shape; maxout takes pieces * M columns and gives M."""
    x = np.asarray(x, dtype=np.float64)
    if name == "maxout":
        groups = _groups(x, pieces)
        return np.array([max(group) for group in groups]).reshape(*x.shape[:-1], x.shape[-1] // pieces)
    return np.array([NUMBERS[name][0](value) for value in x.flat]).reshape(x.shape)


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
    slopes = np.array([NUMBERS[name][1](value) for value in x.flat]).reshape(x.shape)
    return np.array([g * s for g, s in zip(dout.flat, slopes.flat, strict=True)]).reshape(x.shape)


def _groups(x, pieces):
    """The values of each unit's pieces: piece p of unit m is column p M + m."""
    width = x.shape[-1] // pieces
    for row in x.reshape(-1, x.shape[-1]).tolist():
        for unit in range(width):
            yield [row[p * width + unit] for p in range(pieces)]
