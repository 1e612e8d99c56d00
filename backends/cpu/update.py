"""Optimizer rules, each one pass over the flat buffers; names, signatures and formulas of `fcnet.optim.rules`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from backends.base import Kernel
from backends.cpu.jit import Jit, plain


@Jit
def _sgd(w, dw, rate):
    for i in range(w.size):
        w[i] -= rate * dw[i]


@Jit
def _momentum(w, dw, v, rate, mu):
    for i in range(w.size):
        v[i] = mu * v[i] - rate * dw[i]
        w[i] += v[i]


@Jit
def _rmsprop(w, dw, c, rate, rho, one_minus_rho, epsilon):
    for i in range(w.size):
        c[i] = rho * c[i] + one_minus_rho * (dw[i] * dw[i])
        w[i] -= rate * (dw[i] / (np.sqrt(c[i]) + epsilon))


@Jit
def _adam(w, dw, m, v, beta1, one_minus_beta1, beta2, one_minus_beta2, alpha, epsilon):
    for i in range(w.size):
        m[i] = beta1 * m[i] + one_minus_beta1 * dw[i]
        v[i] = beta2 * v[i] + one_minus_beta2 * (dw[i] * dw[i])
        w[i] -= alpha * (m[i] / (np.sqrt(v[i]) + epsilon))


def _number(value: Any) -> float:
    """A number, or the one element of an array, as a Python float."""
    return value.item() if isinstance(value, np.ndarray) else float(value)


def sgd(w, dw, learning_rate, *, work):
    _sgd(w, dw, w.dtype.type(_number(learning_rate)))
    return w


def momentum(w, dw, velocity, learning_rate, *, momentum=0.9, work):
    scalar = w.dtype.type
    _momentum(w, dw, velocity, scalar(_number(learning_rate)), scalar(momentum))
    return w


def rmsprop(w, dw, cache, learning_rate, *, decay_rate=0.99, epsilon=1e-8, work):
    scalar = w.dtype.type
    rate = scalar(_number(learning_rate))
    _rmsprop(w, dw, cache, rate, scalar(decay_rate), scalar(1 - decay_rate), scalar(epsilon))
    return w


def adam(w, dw, m, v, step, learning_rate, *, beta1=0.9, beta2=0.999, epsilon=1e-8, work):
    scalar = w.dtype.type
    t = _number(step) + 1
    root = (1 - beta2**t) ** 0.5
    alpha = scalar(_number(learning_rate) * root / (1 - beta1**t))
    betas = scalar(beta1), scalar(1 - beta1), scalar(beta2), scalar(1 - beta2)
    _adam(w, dw, m, v, *betas, alpha, scalar(epsilon * root))
    return w


def _fits(moments: int) -> Callable[..., bool]:
    """The precondition of a rule whose first arguments are w, dw and so many moments."""

    def fits(w: Any, *arguments: Any, **_: Any) -> bool:
        return w.ndim == 1 and plain(w, *arguments[: 1 + moments])

    return fits


KERNELS = {
    "sgd": Kernel(sgd, _fits(0)),
    "momentum": Kernel(momentum, _fits(1)),
    "rmsprop": Kernel(rmsprop, _fits(1)),
    "adam": Kernel(adam, _fits(2)),
}
