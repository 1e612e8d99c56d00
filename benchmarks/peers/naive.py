"""Plain NumPy as the courses write it: dictionaries of arrays, new arrays at every step, one Adam per parameter.

The style of CS231n's assignments, written anew: layer functions that return (out, cache), `params["W1"]`, a mini-batch
by `np.random.choice` with replacement. For the proof, which needs fcnet's batches, the rows are given instead.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from benchmarks.peers.base import Peer, each_batch
from benchmarks.workloads import (
    BETA1,
    BETA2,
    EPSILON,
    LEARNING_RATE,
    NORM_EPS,
    NORM_MOMENTUM,
    Data,
    Workload,
)


def affine_forward(x, w, b):
    out = x.dot(w) + b
    return out, (x, w)


def affine_backward(dout, cache):
    x, w = cache
    return dout.dot(w.T), x.T.dot(dout), np.sum(dout, axis=0)


def relu_forward(x):
    return np.maximum(0, x), x


def relu_backward(dout, cache):
    return dout * (cache > 0)


def tanh_forward(x):
    out = np.tanh(x)
    return out, out


def tanh_backward(dout, cache):
    return dout * (1 - cache**2)


def batchnorm_forward(x, gamma, beta, running):
    mean = np.mean(x, axis=0)
    var = np.var(x, axis=0)
    running["mean"] = NORM_MOMENTUM * running["mean"] + (1 - NORM_MOMENTUM) * mean
    running["var"] = NORM_MOMENTUM * running["var"] + (1 - NORM_MOMENTUM) * var
    std = np.sqrt(var + NORM_EPS)
    x_hat = (x - mean) / std
    return gamma * x_hat + beta, (x_hat, gamma, std)


def batchnorm_backward(dout, cache):
    x_hat, gamma, std = cache
    count = dout.shape[0]
    dbeta = np.sum(dout, axis=0)
    dgamma = np.sum(dout * x_hat, axis=0)
    dx_hat = dout * gamma
    dx = (count * dx_hat - np.sum(dx_hat, axis=0) - x_hat * np.sum(dx_hat * x_hat, axis=0)) / (count * std)
    return dx, dgamma, dbeta


def dropout_forward(x, keep):
    mask = (np.random.rand(*x.shape) < keep) / keep  # noqa: NPY002 - as the courses do
    return (x * mask).astype(x.dtype, copy=False), mask


def dropout_backward(dout, cache):
    return (dout * cache).astype(dout.dtype, copy=False)


def softmax_loss(x, y):
    shifted = x - np.max(x, axis=1, keepdims=True)
    log_probs = shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True))
    rows = np.arange(x.shape[0])
    loss = -np.sum(log_probs[rows, y]) / x.shape[0]
    dx = np.exp(log_probs)
    dx[rows, y] -= 1
    return loss, dx / x.shape[0]


def mse_loss(x, y):
    diff = x - y
    return np.mean(diff**2), 2 * diff / diff.size


def adam(w, dw, config):
    config["t"] += 1
    config["m"] = BETA1 * config["m"] + (1 - BETA1) * dw
    config["v"] = BETA2 * config["v"] + (1 - BETA2) * dw**2
    m_hat = config["m"] / (1 - BETA1 ** config["t"])
    v_hat = config["v"] / (1 - BETA2 ** config["t"])
    return w - LEARNING_RATE * m_hat / (np.sqrt(v_hat) + EPSILON)


class Naive(Peer):
    """Train the net as the courses do."""

    def make(self, workload: Workload, data: Data, weights: Mapping[str, np.ndarray], device: str) -> None:
        np.random.seed(231)  # noqa: NPY002 - as the courses do: whether the proof holds is no matter of luck
        self.workload, self.data = workload, data
        self.rows = each_batch(workload)
        self.params = {name: value.copy() for name, value in weights.items()}
        self.configs = {
            name: {"t": 0, "m": np.zeros_like(value), "v": np.zeros_like(value)} for name, value in weights.items()
        }
        self.running = [
            {"mean": np.zeros(width, np.float32), "var": np.zeros(width, np.float32)} for width in workload.hidden
        ]

    def loss(self, x: np.ndarray, y: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
        """Return the loss of a batch and the gradient of every parameter."""
        params, keep, last = self.params, self.workload.keep, self.workload.layers
        tanh = self.workload.activation == "tanh"
        forward, backward = (tanh_forward, tanh_backward) if tanh else (relu_forward, relu_backward)
        caches, grads = [], {}
        for i in range(1, last):
            x, affine = affine_forward(x, params[f"W{i}"], params[f"b{i}"])
            norm = mask = None
            if self.workload.norm:
                x, norm = batchnorm_forward(x, params[f"gamma{i}"], params[f"beta{i}"], self.running[i - 1])
            x, activation = forward(x)
            if keep < 1:
                x, mask = dropout_forward(x, keep)
            caches.append((affine, norm, activation, mask))
        scores, cache = affine_forward(x, params[f"W{last}"], params[f"b{last}"])
        loss, dout = (mse_loss if self.workload.numeric else softmax_loss)(scores, y)
        dout, grads[f"W{last}"], grads[f"b{last}"] = affine_backward(dout, cache)
        for i in range(last - 1, 0, -1):
            affine, norm, activation, mask = caches.pop()
            if keep < 1:
                dout = dropout_backward(dout, mask)
            dout = backward(dout, activation)
            if self.workload.norm:
                dout, grads[f"gamma{i}"], grads[f"beta{i}"] = batchnorm_backward(dout, norm)
            dout, grads[f"W{i}"], grads[f"b{i}"] = affine_backward(dout, affine)
        return loss, grads

    def train_on(self, rows: np.ndarray) -> float:
        """Make one update from these rows of the data."""
        loss, grads = self.loss(self.data.X[rows], self.data.y[rows])
        for name, w in self.params.items():
            self.params[name] = adam(w, grads[name], self.configs[name])
        return loss

    def step(self) -> None:
        self.train_on(np.random.choice(self.workload.count, self.workload.batch))  # noqa: NPY002

    def losses(self, count: int) -> list[float]:
        return [float(self.train_on(next(self.rows))) for _ in range(count)]
