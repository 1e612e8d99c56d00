"""The right losses: a float64 training loop of its own, sharing no formula with fcnet or any contender.

Slow and direct: gradients through batch norm by its Jacobian's three terms from raw moments, one-hot targets, Adam on
bias-corrected moments.
"""

from __future__ import annotations

from itertools import islice

import numpy as np

from benchmarks.workloads import (
    BETA1,
    BETA2,
    EPSILON,
    LEARNING_RATE,
    NORM_EPS,
    Data,
    Workload,
    batches,
    initial,
)


def losses(
    workload: Workload, data: Data, count: int, mask_seed: int | None = None, *, raw_epsilon: bool = False
) -> list[float]:
    """Return the losses of the first `count` steps; without dropout, or with masks drawn from `mask_seed`.

    raw_epsilon: Adam's epsilon is added before the correction of bias and not after (see `Peer.raw_epsilon`).
    """
    theta = {name: value.astype(np.float64) for name, value in initial(workload).items()}
    first = {name: np.zeros_like(value) for name, value in theta.items()}
    second = {name: np.zeros_like(value) for name, value in theta.items()}
    rng = None if mask_seed is None else np.random.default_rng(mask_seed)
    found = []
    for t, rows in enumerate(islice(batches(workload), count), 1):
        loss, gradient = _gradient(workload, theta, data.X[rows].astype(np.float64), data.y[rows], rng)
        found.append(loss)
        for name, g in gradient.items():
            first[name] += (1 - BETA1) * (g - first[name])
            second[name] += (1 - BETA2) * (g * g - second[name])
            corrected = first[name] / (1 - BETA1**t), second[name] / (1 - BETA2**t)
            epsilon = EPSILON / (1 - BETA2**t) ** 0.5 if raw_epsilon else EPSILON
            theta[name] = theta[name] - LEARNING_RATE * corrected[0] / (np.sqrt(corrected[1]) + epsilon)
    return found


def _gradient(
    workload: Workload, theta: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray, rng: np.random.Generator | None
) -> tuple[float, dict[str, np.ndarray]]:
    kept = []
    for i in range(1, workload.layers):
        z = np.einsum("nd,dm->nm", x, theta[f"W{i}"], optimize=True) + theta[f"b{i}"]
        centred = std = None
        a = z
        if workload.norm:
            centred = z - z.sum(0) / len(z)
            std = ((centred**2).sum(0) / len(z) + NORM_EPS) ** 0.5
            a = centred / std * theta[f"gamma{i}"] + theta[f"beta{i}"]
        tanh = workload.activation == "tanh"
        slope = 1 / np.cosh(a) ** 2 if tanh else (a > 0).astype(np.float64)
        a = np.sinh(a) / np.cosh(a) if tanh else a * slope
        if rng is not None:
            kept_units = (rng.random(a.shape) < workload.keep) / workload.keep
            slope, a = slope * kept_units, a * kept_units
        kept.append((x, centred, std, slope))
        x = a
    last = workload.layers
    scores = np.einsum("nd,dm->nm", x, theta[f"W{last}"], optimize=True) + theta[f"b{last}"]
    loss, delta = (_squares if workload.numeric else _softmax)(scores, y)
    gradient = {f"W{last}": np.einsum("nd,nm->dm", x, delta, optimize=True), f"b{last}": delta.sum(0)}
    for i in range(last - 1, 0, -1):
        x, centred, std, slope = kept.pop()
        delta = np.einsum("nm,dm->nd", delta, theta[f"W{i + 1}"], optimize=True) * slope
        if workload.norm:
            gradient[f"gamma{i}"], gradient[f"beta{i}"] = (delta * centred / std).sum(0), delta.sum(0)
            delta = delta * theta[f"gamma{i}"]
            dvar = (delta * centred).sum(0) * -0.5 / std**3
            dmean = -(delta / std).sum(0) - 2 * dvar * centred.sum(0) / len(x)
            delta = delta / std + (2 * dvar * centred + dmean) / len(x)
        gradient[f"W{i}"] = np.einsum("nd,nm->dm", x, delta, optimize=True)
        gradient[f"b{i}"] = delta.sum(0)
    return loss, gradient


def _softmax(scores: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    highest = scores.max(1, keepdims=True)
    exponentials = np.exp(scores - highest)
    totals = exponentials.sum(1, keepdims=True)
    target = np.eye(scores.shape[1])[y]
    loss = float(np.mean(np.log(totals[:, 0]) + highest[:, 0] - (scores * target).sum(1)))
    return loss, (exponentials / totals - target) / len(scores)


def _squares(scores: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    off = scores - y
    return float((off**2).sum() / off.size), 2 * off / off.size
