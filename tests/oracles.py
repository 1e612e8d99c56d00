"""Slow, independent references in float64: loops over Python floats, after the definitions and the papers.

None repeats a formula of the code: sums are `math.fsum`, statistics come from `statistics`, the backward passes of the
normalisations multiply by the Jacobian written out element by element, the losses go through log-sum-exp.
Arrays are those of one network, (N, D); tests loop over networks themselves.
"""

from __future__ import annotations

import inspect
import math
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


def _floats(array):
    return np.asarray(array, dtype=np.float64)


def affine(x, w, b):
    """out[n][m] = Σ_d x[n][d] w[d][m] + b[m]."""
    x, w, b = _floats(x), _floats(w), _floats(b)
    out = np.empty((len(x), len(b)))
    for n in range(len(x)):
        for m in range(len(b)):
            out[n, m] = math.fsum([*(x[n, d] * w[d, m] for d in range(len(w))), b[m]])
    return out


def affine_backward(dout, x, w):
    """dx, dw, db: each element by summing over all paths that it reaches the output by."""
    dout, x, w = _floats(dout), _floats(x), _floats(w)
    (count, width_in), width_out = x.shape, w.shape[1]
    dx, dw, db = np.empty_like(x), np.empty_like(w), np.empty(width_out)
    for d in range(width_in):
        for n in range(count):
            dx[n, d] = math.fsum(dout[n, m] * w[d, m] for m in range(width_out))
        for m in range(width_out):
            dw[d, m] = math.fsum(dout[n, m] * x[n, d] for n in range(count))
    for m in range(width_out):
        db[m] = math.fsum(dout[n, m] for n in range(count))
    return dx, dw, db


def _normalize(values, eps):
    """One group of numbers: normalised values, 1 / std, mean and biased variance."""
    values = [float(value) for value in values]
    mean, var = statistics.fmean(values), statistics.pvariance(values)
    inv_std = 1.0 / math.sqrt(var + eps)
    return [(value - mean) * inv_std for value in values], inv_std, mean, var


def _normalize_backward(dx_hat, values, eps):
    """Σ_i dx_hat[i] ∂x_hat[i]/∂x[j], with ∂x_hat[i]/∂x[j] = ((i == j) - 1/n - x_hat[i] x_hat[j] / n) / std."""
    x_hat, inv_std, _, _ = _normalize(values, eps)
    n = len(x_hat)
    return [
        math.fsum(dx_hat[i] * ((i == j) - 1 / n - x_hat[i] * x_hat[j] / n) * inv_std for i in range(n))
        for j in range(n)
    ]


def batchnorm(x, gamma, beta, eps=1e-5):
    """out (N, D), and the batch's mean and biased variance (D,)."""
    x = _floats(x)
    out, means, variances = np.empty_like(x), np.empty(x.shape[1]), np.empty(x.shape[1])
    for d in range(x.shape[1]):
        x_hat, _, means[d], variances[d] = _normalize(x[:, d], eps)
        out[:, d] = [float(gamma[d]) * value + float(beta[d]) for value in x_hat]
    return out, means, variances


def batchnorm_backward(dout, x, gamma, eps=1e-5):
    """dx, dgamma, dbeta."""
    dout, x = _floats(dout), _floats(x)
    dx, dgamma, dbeta = np.empty_like(x), np.empty(x.shape[1]), np.empty(x.shape[1])
    for d in range(x.shape[1]):
        x_hat, *_ = _normalize(x[:, d], eps)
        dx[:, d] = _normalize_backward([g * float(gamma[d]) for g in dout[:, d]], x[:, d], eps)
        dgamma[d] = math.fsum(g * value for g, value in zip(dout[:, d], x_hat, strict=True))
        dbeta[d] = math.fsum(dout[:, d])
    return dx, dgamma, dbeta


def layernorm(x, gamma, beta, eps=1e-5):
    """out (N, D)."""
    x, gamma, beta = _floats(x), _floats(gamma), _floats(beta)
    out = np.empty_like(x)
    for n in range(len(x)):
        x_hat, *_ = _normalize(x[n], eps)
        out[n] = [g * value + b for g, value, b in zip(gamma, x_hat, beta, strict=True)]
    return out


def layernorm_backward(dout, x, gamma, eps=1e-5):
    """dx, dgamma, dbeta."""
    dout, x, gamma = _floats(dout), _floats(x), _floats(gamma)
    dx = np.empty_like(x)
    terms = []
    for n in range(len(x)):
        x_hat, *_ = _normalize(x[n], eps)
        dx[n] = _normalize_backward([g * scale for g, scale in zip(dout[n], gamma, strict=True)], x[n], eps)
        terms.append([g * value for g, value in zip(dout[n], x_hat, strict=True)])
    dgamma = np.array([math.fsum(column) for column in zip(*terms, strict=True)])
    dbeta = np.array([math.fsum(dout[:, d]) for d in range(x.shape[1])])
    return dx, dgamma, dbeta


def dropout_mask(bits, keep_ratio):
    """1/keep_ratio for the 16-bit numbers below keep_ratio * 65536, rounded, else 0."""
    limit = max(1, round(keep_ratio * 65536))
    return np.array([1 / keep_ratio if int(bit) < limit else 0.0 for bit in bits.flat]).reshape(bits.shape)


def one_hot(y, classes):
    """Rows of zeros with a one."""
    rows = np.zeros((len(y), classes))
    for n, label in enumerate(y):
        rows[n, int(label)] = 1.0
    return rows


def softmax_loss(scores, targets):
    """Mean over rows of log Σ exp(s) - Σ t s, and its gradient; targets: labels (N,), or (N, C) rows that sum to 1."""
    scores, targets = _floats(scores), np.asarray(targets)
    targets = one_hot(targets, scores.shape[1]) if targets.ndim == 1 else _floats(targets)
    losses, dscores = [], np.empty_like(scores)
    for n, row in enumerate(scores.tolist()):
        top = max(row)
        log_sum = top + math.log(math.fsum(math.exp(score - top) for score in row))
        losses.append(math.fsum(t * (log_sum - score) for t, score in zip(targets[n], row, strict=True)))
        dscores[n] = [(math.exp(score - log_sum) - t) / len(scores) for t, score in zip(targets[n], row, strict=True)]
    return statistics.fmean(losses), dscores


def svm_loss(scores, y):
    """Mean over rows of the hinges of the wrong classes, and its gradient; y are labels (N,)."""
    scores = _floats(scores)
    losses, dscores = [], np.zeros_like(scores)
    for n, row in enumerate(scores.tolist()):
        right, hinges = int(y[n]), []
        for c, score in enumerate(row):
            hinge = score - row[right] + 1.0
            if c != right and hinge > 0:
                hinges.append(hinge)
                dscores[n, c] += 1 / len(scores)
                dscores[n, right] -= 1 / len(scores)
        losses.append(math.fsum(hinges))
    return statistics.fmean(losses), dscores


def mse_loss(scores, targets):
    """Mean over all outputs of the squared error, and its gradient; targets (N, C)."""
    scores, targets = _floats(scores), _floats(targets)
    pairs = list(zip(scores.ravel().tolist(), targets.ravel().tolist(), strict=True))
    gradient = np.array([2 * s / len(pairs) - 2 * t / len(pairs) for s, t in pairs]).reshape(scores.shape)
    return statistics.fmean((s - t) ** 2 for s, t in pairs), gradient


def bce_loss(scores, targets):
    """Mean over all labels of -t log p - (1 - t) log(1 - p), p = 1/(1 + exp(-s)), and its gradient; targets (N, C)."""
    scores, targets = _floats(scores), _floats(targets)
    losses, gradient = [], []
    for s, t in zip(scores.ravel().tolist(), targets.ravel().tolist(), strict=True):
        log_on = -math.log1p(math.exp(-s)) if s > 0 else s - math.log1p(math.exp(s))
        log_off = log_on - s  # log(1 - p): the odds p / (1 - p) are exp(s)
        losses.append(-t * log_on - (1 - t) * log_off)
        gradient.append(((1 - t) * math.exp(log_on) - t * math.exp(log_off)) / scores.size)
    return statistics.fmean(losses), np.array(gradient).reshape(scores.shape)


def poisson_loss(scores, targets):
    """Mean over all outputs of m - t + t log(t / m), m = exp(s), and its gradient; targets (N, C), 0 or more."""
    scores, targets = _floats(scores), _floats(targets)
    losses, gradient = [], []
    for s, t in zip(scores.ravel().tolist(), targets.ravel().tolist(), strict=True):
        losses.append(math.exp(s) - t + (t * (math.log(t) - s) if t else 0.0))
        gradient.append((math.exp(s) - t) / scores.size)
    return statistics.fmean(losses), np.array(gradient).reshape(scores.shape)


def smooth(y, classes, share):
    """Rows with 1 - share at the label, and share spread evenly over all classes."""
    return np.array([[share / classes + (1 - share if c == label else 0.0) for c in range(classes)] for label in y])


def weighted(loss, scores, targets, weights):
    """Σ_n w_n l_n / N and its gradient, each sample's loss taken of that sample alone."""
    each = [loss(scores[n : n + 1], targets[n : n + 1]) for n in range(len(scores))]
    total = math.fsum(w * float(l) for w, (l, _) in zip(weights, each, strict=True))
    rows = [[w * g / len(scores) for g in gradient[0]] for w, (_, gradient) in zip(weights, each, strict=True)]
    return total / len(scores), np.array(rows)


def l2(weights, reg):
    """0.5 reg Σ w², and its gradient."""
    flat = _floats(weights).tolist()
    return 0.5 * reg * math.fsum(w * w for w in flat), np.array([reg * w for w in flat])


def l1(weights, reg):
    """reg Σ |w|, and its gradient, 0 at 0."""
    flat = _floats(weights).tolist()
    return reg * math.fsum(abs(w) for w in flat), np.array([reg if w > 0 else -reg if w < 0 else 0.0 for w in flat])


# Update rules, element by element as in the papers: (w, gradients, hyperparameters) -> w after all the steps.


def _each(w, gradients, update):
    """`update(value, [its gradient at each step])` for every element."""
    w, gradients = _floats(w), [_floats(g) for g in gradients]
    return np.array([update(float(w[i]), [float(g[i]) for g in gradients]) for i in range(len(w))])


def sgd(w, gradients, learning_rate):
    def update(value, steps):
        for g in steps:
            value = value - learning_rate * g
        return value

    return _each(w, gradients, update)


def momentum(w, gradients, learning_rate, momentum):
    def update(value, steps):
        velocity = 0.0
        for g in steps:
            velocity = momentum * velocity - learning_rate * g
            value = value + velocity
        return value

    return _each(w, gradients, update)


def nesterov(w, gradients, learning_rate, momentum):
    """Nesterov's own two variables: a step of momentum, the gradient taken ahead at x + μ v; w is that place."""

    def update(value, steps):
        x, velocity = value, 0.0
        for g in steps:
            velocity = momentum * velocity - learning_rate * g
            x = x + velocity
            value = x + momentum * velocity
        return value

    return _each(w, gradients, update)


def adagrad(w, gradients, learning_rate, epsilon):
    def update(value, steps):
        seen = []
        for g in steps:
            seen.append(g * g)
            value = value - learning_rate * g / (math.sqrt(math.fsum(seen)) + epsilon)
        return value

    return _each(w, gradients, update)


def rmsprop(w, gradients, learning_rate, decay_rate, epsilon):
    def update(value, steps):
        mean_square = 0.0
        for g in steps:
            mean_square = decay_rate * mean_square + (1 - decay_rate) * g * g
            value = value - learning_rate * g / (math.sqrt(mean_square) + epsilon)
        return value

    return _each(w, gradients, update)


def adam(w, gradients, learning_rate, beta1, beta2, epsilon):
    """Algorithm 1 of Kingma and Ba."""

    def update(value, steps):
        m = v = 0.0
        for t, g in enumerate(steps, 1):
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * g * g
            m_hat = m / (1 - beta1**t)
            v_hat = v / (1 - beta2**t)
            value = value - learning_rate * m_hat / (math.sqrt(v_hat) + epsilon)
        return value

    return _each(w, gradients, update)


def adamw(w, gradients, learning_rate, beta1, beta2, epsilon, weight_decay):
    """Algorithm 2 of Loshchilov and Hutter, with λ in units of the learning rate."""

    def update(value, steps):
        m = v = 0.0
        for t, g in enumerate(steps, 1):
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * g * g
            step = (m / (1 - beta1**t)) / (math.sqrt(v / (1 - beta2**t)) + epsilon) + weight_decay * value
            value = value - learning_rate * step
        return value

    return _each(w, gradients, update)


def lion(w, gradients, learning_rate, beta1, beta2, weight_decay=0.0):
    """Algorithm 2 of Chen et al."""

    def update(value, steps):
        m = 0.0
        for g in steps:
            blend = beta1 * m + (1 - beta1) * g
            sign = math.copysign(1.0, blend) if blend else 0.0
            value = value - learning_rate * (sign + weight_decay * value)
            m = beta2 * m + (1 - beta2) * g
        return value

    return _each(w, gradients, update)


class Oracle(NamedTuple):
    """How a rule of fcnet.optim.RULES is tested.

    after: (w, gradients, learning_rate, **hyper) -> w; and with a weight_decay if the rule has one by itself.
    hyper: other values than the defaults: a constant that is not read shows; None: the rule is the function of another
    row, with decay beside it. torch: (torch.optim, [tensor], rate, **hyper) -> PyTorch's own, where it has it.
    parity: the relative difference that two devices' float32 losses may have in the first steps, see
    tests/training/test_parity.py.
    """

    after: Callable[..., np.ndarray]
    hyper: dict[str, float] | None
    torch: Callable[..., Any] | None = None
    parity: float = 1e-4

    @property
    def decays(self) -> bool:
        return "weight_decay" in inspect.signature(self.after).parameters


#: One for each rule of fcnet.optim.RULES; a rule without a line here fails the tests.
RULES = {
    "sgd": Oracle(sgd, {}, lambda optim, w, rate: optim.SGD(w, rate)),
    "momentum": Oracle(momentum, {"momentum": 0.7}, lambda optim, w, rate, **hyper: optim.SGD(w, rate, **hyper)),
    "nesterov": Oracle(
        nesterov,
        {"momentum": 0.7},
        lambda optim, w, rate, **hyper: optim.SGD(w, rate, nesterov=True, **hyper),
    ),
    "adagrad": Oracle(
        adagrad,
        {"epsilon": 1e-3},
        lambda optim, w, rate, epsilon: optim.Adagrad(w, rate, eps=epsilon),
        parity=1e-2,
    ),
    "rmsprop": Oracle(
        rmsprop,
        {"decay_rate": 0.8, "epsilon": 1e-3},
        lambda optim, w, rate, decay_rate, epsilon: optim.RMSprop(w, rate, alpha=decay_rate, eps=epsilon),
        parity=0.3,
    ),
    "adam": Oracle(
        adam,
        {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3},
        lambda optim, w, rate, beta1, beta2, epsilon: optim.Adam(w, rate, betas=(beta1, beta2), eps=epsilon),
        parity=1e-3,
    ),
    "adamw": Oracle(adamw, None, parity=1e-3),
    "lion": Oracle(lion, {"beta1": 0.8, "beta2": 0.95}, parity=1e-2),
}
