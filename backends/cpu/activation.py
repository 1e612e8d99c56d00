"""Element-wise activations for the kernels of hidden layers: each function and its derivative, as loops over a vector.

The formulas are those of `fcnet.functional.activation`, as is what the forward pass keeps for the backward pass: one
array (the output, the derivative, ...), or two for the gated activations.
"""

from __future__ import annotations

import numpy as np

from fcnet.backends.cpu.jit import broad, compiled
from fcnet.backends.cpu.vectormath import exp, expm1, log1p_of_share, tanh

KINDS = ("leaky_relu", "elu", "sigmoid", "tanh", "gelu", "silu", "softplus", "identity", "relu")
LEAKY_RELU, ELU, SIGMOID, TANH, GELU, SILU, SOFTPLUS, IDENTITY, RELU = range(len(KINDS))
OF_OUTPUT = ("sigmoid", "tanh", "identity", "relu")  # whose derivative is a function of the output
GATED = ("gelu", "silu")  # keep two arrays

_f = np.float32
ZERO, ONE, THREE, LEAK, NEAR = map(_f, (0, 1, 3, 0.01, 20))
SPREAD = np.sqrt(2 / np.pi)
GELU_1, GELU_3, GELU_SLOPE = map(_f, (2 * SPREAD, 2 * SPREAD * 0.044715, -4 / 3 * SPREAD))


@compiled
def sigmoid(x):
    return ONE / (ONE + exp(-x))


@compiled
def activate(kind, x, first, second):
    """Apply an activation to the vector x in place; fill `first` and `second`, what it keeps (else they may be x)."""
    broad()
    if kind == LEAKY_RELU:  # first = 1 where x > 0, else 0.01; x = x first
        for i in range(x.size):
            first[i] = ONE if x[i] > ZERO else LEAK
            x[i] *= first[i]
    elif kind == ELU:  # first = exp(min(x, 0)) - 1; x = x where x > 0, else first
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
    elif kind == GELU:  # h = 2 √(2/π) (x + 0.044715 x³); first = x h' = 3 h - 4 √(2/π) x; second = σ(h); x = x second
        for i in range(x.size):
            near = NEAR if x[i] > NEAR else x[i]
            near = -NEAR if near < -NEAR else near
            h = (near * near * GELU_3 + GELU_1) * near
            first[i] = (near * GELU_SLOPE + h) * THREE
            second[i] = sigmoid(h)
            x[i] *= second[i]
    elif kind == SILU:  # first = x; second = σ(x); x = x second
        for i in range(x.size):
            first[i] = x[i]
            second[i] = sigmoid(x[i])
            x[i] *= second[i]
    elif kind == SOFTPLUS:  # first = σ(x); x = max(x, 0) + log(1 + exp(-|x|))
        for i in range(x.size):
            value = x[i]
            power = exp(-abs(value))
            first[i] = (power if value < ZERO else ONE) / (ONE + power)
            x[i] = (ZERO if value < ZERO else value) + log1p_of_share(power)
    elif kind == RELU:
        for i in range(x.size):
            x[i] = ZERO if x[i] <= ZERO else x[i]  # NaN stays NaN


@compiled
def descend(kind, dx, first, second):
    """Multiply the vector dx by the activation's derivative a', in place."""
    broad()
    if kind in (LEAKY_RELU, SOFTPLUS):  # a' = first
        for i in range(dx.size):
            dx[i] *= first[i]
    elif kind == ELU:  # a' = first + 1
        for i in range(dx.size):
            dx[i] *= first[i] + ONE
    elif kind == SIGMOID:  # a' = (1 - out) out, first = out
        for i in range(dx.size):
            dx[i] *= (ONE - first[i]) * first[i]
    elif kind == TANH:  # a' = 1 - out², first = out
        for i in range(dx.size):
            dx[i] *= ONE - first[i] * first[i]
    elif kind in (GELU, SILU):  # a' = σ(h) (1 + x h' (1 - σ(h))), first = x h', second = σ(h)
        for i in range(dx.size):
            dx[i] *= ((ONE - second[i]) * first[i] + ONE) * second[i]
    elif kind == RELU:
        for i in range(dx.size):
            dx[i] = dx[i] if first[i] > ZERO else ZERO
