"""Activations that act element by element, ReLU apart: of each its function and its derivative, one line each.

The formulas, and what the backward pass is handed, are those of `fcnet.functional.activation`: one array (the output,
or the derivative, ...) or, for the gated ones, two.
"""

from __future__ import annotations

import numpy as np

from fcnet.backends.cpu.jit import compiled
from fcnet.backends.cpu.vectormath import exp, expm1, log1p_of_share, tanh

NAMES = ("leaky_relu", "elu", "sigmoid", "tanh", "gelu", "silu", "softplus", "identity")
LEAKY_RELU, ELU, SIGMOID, TANH, GELU, SILU, SOFTPLUS, IDENTITY = range(len(NAMES))
OF_OUTPUT = ("sigmoid", "tanh", "identity")  # whose derivative is one of the output
GATED = ("gelu", "silu")  # which keep two arrays

_f = np.float32
ZERO, ONE, THREE, LEAK, NEAR = map(_f, (0, 1, 3, 0.01, 20))
SPREAD = np.sqrt(2 / np.pi)
GELU_1, GELU_3, GELU_SLOPE = map(_f, (2 * SPREAD, 2 * SPREAD * 0.044715, -4 / 3 * SPREAD))


@compiled
def sigmoid(x):
    return ONE / (ONE + exp(-x))


@compiled
def activate(kind, x, first, second):
    """Make of x, a vector, its activation, and fill what the backward pass reads; what is not kept may be x."""
    if kind == LEAKY_RELU:
        for i in range(x.size):
            first[i] = ONE if x[i] > ZERO else LEAK
            x[i] *= first[i]
    elif kind == ELU:
        for i in range(x.size):
            value = x[i]
            below = expm1(ZERO if value > ZERO else value)
            first[i] = below
            x[i] = value if value > ZERO else below
    elif kind == SIGMOID:
        for i in range(x.size):
            x[i] = sigmoid(x[i])
    elif kind == TANH:
        for i in range(x.size):
            x[i] = tanh(x[i])
    elif kind == GELU:
        for i in range(x.size):
            near = NEAR if x[i] > NEAR else x[i]
            near = -NEAR if near < -NEAR else near
            h = (near * near * GELU_3 + GELU_1) * near
            first[i] = (near * GELU_SLOPE + h) * THREE
            second[i] = sigmoid(h)
            x[i] *= second[i]
    elif kind == SILU:
        for i in range(x.size):
            first[i] = x[i]
            second[i] = sigmoid(x[i])
            x[i] *= second[i]
    elif kind == SOFTPLUS:
        for i in range(x.size):
            value = x[i]
            power = exp(-abs(value))
            first[i] = (power if value < ZERO else ONE) / (ONE + power)
            x[i] = (ZERO if value < ZERO else value) + log1p_of_share(power)


@compiled
def descend(kind, dx, first, second):
    """Multiply dx, a vector, by the derivative."""
    if kind in (LEAKY_RELU, SOFTPLUS):
        for i in range(dx.size):
            dx[i] *= first[i]
    elif kind == ELU:
        for i in range(dx.size):
            dx[i] *= first[i] + ONE
    elif kind == SIGMOID:
        for i in range(dx.size):
            dx[i] *= (ONE - first[i]) * first[i]
    elif kind == TANH:
        for i in range(dx.size):
            dx[i] *= ONE - first[i] * first[i]
    elif kind in (GELU, SILU):
        for i in range(dx.size):
            dx[i] *= ((ONE - second[i]) * first[i] + ONE) * second[i]
