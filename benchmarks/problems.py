"""The kernels to measure: inputs, the right answer by an independent float64 formula, and how much work it is.

Shapes: x, dout (N, D) with D the width and N the batch; w (D, D). Everything is drawn on the host from a seed that
depends on the size alone, in float32, so every device gets the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import fcnet.functional as F
from fcnet.backends import Array, Backend, Op

Host = dict[str, np.ndarray]  # inputs on the host by name
Arguments = tuple[tuple[Any, ...], dict[str, Any]]  # positional and keyword arguments
EPS, MOMENTUM = 1e-5, 0.9  # what the answers are computed for; given to the kernels explicitly


class Problem(NamedTuple):
    """One kernel. `answer(host, columns)` gives, by the name of the result, its columns (last axis) in float64."""

    op: Op
    arguments: Callable[[Backend, Host], Arguments]
    answer: Callable[[Host, np.ndarray], Host]
    unit: str  # "GFLOP/s" or "GB/s"
    work: Callable[[int, int], int]  # width, batch -> floating-point operations or bytes
    starts: tuple[str, ...] = ()  # keyword arguments updated in place, which start at 0


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
    }


def _upload(backend: Backend, host: Host, *names: str) -> list[Array]:
    return [backend.asarray(host[name]) for name in names]


def _affine_forward(backend: Backend, host: Host) -> Arguments:
    return tuple(_upload(backend, host, "x", "w", "b")), {}


def _affine_backward(backend: Backend, host: Host) -> Arguments:
    dout, *cache = _upload(backend, host, "dout", "x", "w", "b")
    return (dout, tuple(cache)), {}


def _batchnorm_forward(backend: Backend, host: Host) -> Arguments:
    x, gamma, beta = _upload(backend, host, "x", "gamma", "b")
    mean, var = (backend.asarray(np.zeros(x.shape[1], np.float32)) for _ in range(2))
    return (x, gamma, beta), {"running_mean": mean, "running_var": var, "momentum": MOMENTUM, "eps": EPS}


def _batchnorm_backward(backend: Backend, host: Host) -> Arguments:
    x, gamma, beta, dout = _upload(backend, host, "x", "gamma", "b", "dout")
    # The reference makes the cache on every device: what is proved and timed here is the backward pass alone.
    _, cache = F.batchnorm_forward.reference(x, gamma, beta, eps=EPS)
    return (dout, cache), {}


def _double(host: Host, *names: str) -> list[np.ndarray]:
    return [host[name].astype(np.float64) for name in names]


def _affine_forward_answer(host: Host, columns: np.ndarray) -> Host:
    x, w, b = _double(host, "x", "w", "b")
    return {"out": np.einsum("nd,dm->nm", x, w[:, columns], optimize=True) + b[columns]}


def _affine_backward_answer(host: Host, columns: np.ndarray) -> Host:
    dout, x, w = _double(host, "dout", "x", "w")
    return {
        "dx": np.einsum("nm,dm->nd", dout, w[columns], optimize=True),
        "dw": np.einsum("nd,nm->dm", x, dout[:, columns], optimize=True),
        "db": np.einsum("nm->m", dout[:, columns]),
    }


def _batchnorm_forward_answer(host: Host, columns: np.ndarray) -> Host:
    x, gamma, beta = (host[name][..., columns].astype(np.float64) for name in ("x", "gamma", "b"))
    mean, var = x.mean(axis=0), x.var(axis=0)
    return {
        "out": gamma * (x - mean) / np.sqrt(var + EPS) + beta,
        "running_mean": (1 - MOMENTUM) * mean,  # after one call from 0
        "running_var": (1 - MOMENTUM) * var,
    }


def _batchnorm_backward_answer(host: Host, columns: np.ndarray) -> Host:
    """Return the chain rule of Ioffe and Szegedy, 2015, section 3; fcnet's kernels use the simplified form."""
    x, gamma, dout = (host[name][..., columns].astype(np.float64) for name in ("x", "gamma", "dout"))
    count = len(x)
    centred, var = x - x.mean(axis=0), x.var(axis=0) + EPS
    dx_hat = dout * gamma
    dvar = np.einsum("nd,nd->d", dx_hat, centred) * -0.5 * var**-1.5
    dmean = -dx_hat.sum(axis=0) / np.sqrt(var) + dvar * (-2 * centred).mean(axis=0)
    return {
        "dx": dx_hat / np.sqrt(var) + dvar * 2 * centred / count + dmean / count,
        "dgamma": np.einsum("nd,nd->d", dout, centred / np.sqrt(var)),
        "dbeta": dout.sum(axis=0),
    }


PROBLEMS: dict[str, Problem] = {
    # Matrix products only: 2 N D D operations each.
    "affine_forward": Problem(
        F.affine_forward, _affine_forward, _affine_forward_answer, "GFLOP/s", lambda d, n: 2 * n * d * d
    ),
    "affine_backward": Problem(
        F.affine_backward, _affine_backward, _affine_backward_answer, "GFLOP/s", lambda d, n: 4 * n * d * d
    ),
    # What must move at least once, in float32: x in, x_hat and out written; dout and x_hat in, dx written.
    "batchnorm_forward": Problem(
        F.batchnorm_forward,
        _batchnorm_forward,
        _batchnorm_forward_answer,
        "GB/s",
        lambda d, n: 3 * 4 * n * d,
        ("running_mean", "running_var"),
    ),
    "batchnorm_backward": Problem(
        F.batchnorm_backward, _batchnorm_backward, _batchnorm_backward_answer, "GB/s", lambda d, n: 12 * n * d
    ),
}
