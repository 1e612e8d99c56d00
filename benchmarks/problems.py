"""The kernels to measure: the products and batch norm, and what else a training step is made of."""

from __future__ import annotations

import numpy as np

import fcnet.functional as F
from benchmarks.problem import EPS, MOMENTUM, Arguments, Host, Problem, double, draw, normalized_backward, upload
from benchmarks.training_problems import TRAINING
from fcnet.backends import Backend

__all__ = ["PROBLEMS", "Host", "Problem", "draw"]


def _affine_forward(backend: Backend, host: Host) -> Arguments:
    return tuple(upload(backend, host, "x", "w", "b")), {}


def _affine_backward(backend: Backend, host: Host) -> Arguments:
    dout, *cache = upload(backend, host, "dout", "x", "w", "b")
    return (dout, tuple(cache)), {}


def _batchnorm_forward(backend: Backend, host: Host) -> Arguments:
    x, gamma, beta = upload(backend, host, "x", "gamma", "b")
    mean, var = (backend.asarray(np.zeros(x.shape[1], np.float32)) for _ in range(2))
    return (x, gamma, beta), {"running_mean": mean, "running_var": var, "momentum": MOMENTUM, "eps": EPS}


def _batchnorm_backward(backend: Backend, host: Host) -> Arguments:
    x, gamma, beta, dout = upload(backend, host, "x", "gamma", "b", "dout")
    # The reference makes the cache on every device: what is proved and timed here is the backward pass alone.
    _, cache = F.batchnorm_forward.reference(x, gamma, beta, eps=EPS)
    return (dout, cache), {}


def _affine_forward_answer(host: Host, columns: np.ndarray) -> Host:
    x, w, b = double(host, "x", "w", "b")
    return {"out": np.einsum("nd,dm->nm", x, w[:, columns], optimize=True) + b[columns]}


def _affine_backward_answer(host: Host, columns: np.ndarray) -> Host:
    dout, x, w = double(host, "dout", "x", "w")
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
    x, gamma, dout = (host[name][..., columns].astype(np.float64) for name in ("x", "gamma", "dout"))
    return {
        "dx": normalized_backward(dout * gamma, x, 0),
        "dgamma": np.einsum("nd,nd->d", dout, (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + EPS)),
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
        {"running_mean": 0.0, "running_var": 0.0},
    ),
    "batchnorm_backward": Problem(
        F.batchnorm_backward, _batchnorm_backward, _batchnorm_backward_answer, "GB/s", lambda d, n: 12 * n * d
    ),
    **TRAINING,
}
