"""What a kernel is measured on: inputs, the right answer by an independent float64 formula, how much work it is.

Shapes: x, dout, targets, flags (N, D) with D the width and N the batch; w (D, D). Everything is drawn on the host from
a seed that depends on the size alone, in float32, so every device gets the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from fcnet.backends import Array, Backend, Op

Host = dict[str, np.ndarray]  # inputs on the host by name
Arguments = tuple[tuple[Any, ...], dict[str, Any]]  # positional and keyword arguments
EPS, MOMENTUM = 1e-5, 0.9  # what the answers are computed for; given to the kernels explicitly


class Problem(NamedTuple):
    """Describe one kernel. `answer(host, columns)` gives each result's columns (last axis) in float64, by name."""

    op: Op
    arguments: Callable[[Backend, Host], Arguments]
    answer: Callable[[Host, np.ndarray], Host]
    unit: str  # "GFLOP/s" or "GB/s"
    work: Callable[[int, int], int]  # width, batch -> floating-point operations or bytes
    starts: Mapping[str, float] = MappingProxyType({})  # arguments updated in place -> where they start


def draw(width: int, batch: int) -> Host:
    """Draw the inputs of all problems at one size."""
    rng = np.random.default_rng([width, batch])

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    return {
        "x": normal(batch, width) * np.float32(2) + np.float32(1),
        "w": normal(width, width) / np.float32(width**0.5),
        "b": normal(width),
        "dout": normal(batch, width),
        "gamma": rng.random(width, np.float32) + np.float32(0.5),
        "targets": normal(batch, width),
        "labels": rng.integers(width, size=batch),
        "flags": rng.integers(2, size=(batch, width)).astype(np.float32),
        "weights": rng.random(batch, np.float32),
    }


def upload(backend: Backend, host: Host, *names: str) -> list[Array]:
    """Return copies of these inputs on the device."""
    return [backend.asarray(host[name]) for name in names]


def double(host: Host, *names: str) -> list[np.ndarray]:
    """Return these inputs in float64."""
    return [host[name].astype(np.float64) for name in names]


def normalized_backward(dx_hat: np.ndarray, x: np.ndarray, axis: int) -> np.ndarray:
    """Return dx of x_hat = (x - mean) / sqrt(var + ε), statistics over an axis.

    By the chain rule of Ioffe and Szegedy, 2015, section 3; fcnet's functions use the simplified form.
    """
    count = x.shape[axis]
    centred = x - x.mean(axis=axis, keepdims=True)
    var = x.var(axis=axis, keepdims=True) + EPS
    dvar = (dx_hat * centred).sum(axis=axis, keepdims=True) * -0.5 * var**-1.5
    dmean = -dx_hat.sum(axis=axis, keepdims=True) / np.sqrt(var) + dvar * (-2 * centred).mean(axis=axis, keepdims=True)
    return dx_hat / np.sqrt(var) + dvar * 2 * centred / count + dmean / count
