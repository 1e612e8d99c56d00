"""What a training step is made of besides its products: fused hidden layers, losses, update rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fcnet.functional as F
from benchmarks.problem import EPS, Arguments, Host, Problem, double, normalized_backward, upload
from fcnet.backends import Backend
from fcnet.optim import RULES, limits


def _before(kind: str, host: Host) -> tuple[np.ndarray, np.ndarray | None]:
    """Return what the activation acts on, and x_hat."""
    x, b, gamma = double(host, "x", "b", "gamma")
    z = x + b
    if kind == "bias":
        return z, None
    axis = 0 if kind == "batchnorm" else 1
    x_hat = (z - z.mean(axis=axis, keepdims=True)) / np.sqrt(z.var(axis=axis, keepdims=True) + EPS)
    return x_hat * gamma + b, x_hat


def _gelu(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    root = np.sqrt(2 / np.pi)
    t = np.tanh(root * (x + 0.044715 * x**3))
    return x * (1 + t) / 2, (1 + t + x * (1 - t**2) * root * (1 + 3 * 0.044715 * x**2)) / 2


#: Name -> an activation and its derivative: one that keeps its output for the backward pass, one that keeps two arrays.
_ACTIVATIONS: dict[str, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "relu": lambda x: (np.maximum(x, 0), x > 0),
    "tanh": lambda x: (np.tanh(x), 1 / np.cosh(x) ** 2),
    "gelu": _gelu,
}


def _hidden(kind: str, activation: str = "relu") -> dict[str, Problem]:
    """Return forward and backward of a fused hidden layer without dropout, ReLU's by their own names; beta is b."""
    name = f"{kind}_activation_dropout"
    forward, backward = getattr(F, f"{name}_forward"), getattr(F, f"{name}_backward")
    suffix = "" if activation == "relu" else f":{activation}"

    def arguments(backend: Backend, host: Host) -> Arguments:
        names = ("x", "b") if kind == "bias" else ("x", "b", "gamma", "b")
        return (*upload(backend, host, *names), activation), {}

    def backward_arguments(backend: Backend, host: Host) -> Arguments:
        # The reference makes the cache on every device: what is proved and timed is the backward pass alone.
        _, cache = forward.reference(*arguments(backend, host)[0])
        return (*upload(backend, host, "dout"), cache), {}

    def answer(host: Host, columns: np.ndarray) -> Host:
        return {"out": _ACTIVATIONS[activation](_before(kind, host)[0])[0][..., columns]}

    def backward_answer(host: Host, columns: np.ndarray) -> Host:
        value, x_hat = _before(kind, host)
        dy = host["dout"].astype(np.float64) * _ACTIVATIONS[activation](value)[1]
        if x_hat is None:
            found = {"dz": dy, "db": dy.sum(axis=0)}
        else:
            x, b, gamma = double(host, "x", "b", "gamma")
            dz = normalized_backward(dy * gamma, x + b, 0 if kind == "batchnorm" else 1)
            db = dz.sum(axis=0) if kind == "layernorm" else np.zeros(len(b))
            found = {"dz": dz, "db": db, "dgamma": (dy * x_hat).sum(axis=0), "dbeta": dy.sum(axis=0)}
        return {key: array[..., columns] for key, array in found.items()}

    # What must move at least once, in float32: x in, out (and x_hat) written; dout and out (and x_hat) in, dz written.
    moved = 2 if kind == "bias" else 3
    return {
        f"{name}_forward{suffix}": Problem(forward, arguments, answer, "GB/s", lambda d, n: moved * 4 * n * d),
        f"{name}_backward{suffix}": Problem(
            backward, backward_arguments, backward_answer, "GB/s", lambda d, n: (moved + 1) * 4 * n * d
        ),
    }


def _softmax_answer(scores: np.ndarray, host: Host) -> tuple[np.ndarray, np.ndarray]:
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    rows = np.arange(len(scores)), host["labels"]
    losses = -np.log(shares[rows])
    shares[rows] -= 1
    return losses, shares


def _svm_answer(scores: np.ndarray, host: Host) -> tuple[np.ndarray, np.ndarray]:
    rows = np.arange(len(scores)), host["labels"]
    margins = scores - scores[rows][:, None] + 1
    margins[rows] = 0
    gradient = (margins > 0).astype(float)
    gradient[rows] = -gradient.sum(axis=1)
    return np.maximum(margins, 0).sum(axis=1), gradient


def _mse_answer(scores: np.ndarray, host: Host) -> tuple[np.ndarray, np.ndarray]:
    error = scores - host["targets"]
    return (error**2).mean(axis=1), 2 * error / scores.shape[1]


def _bce_answer(scores: np.ndarray, host: Host) -> tuple[np.ndarray, np.ndarray]:
    on = host["flags"] > 0
    losses = np.log1p(np.exp(np.where(on, -scores, scores)))
    return losses.mean(axis=1), (1 / (1 + np.exp(-scores)) - on) / scores.shape[1]


_LOSSES: dict[str, tuple[str, Callable[[np.ndarray, Host], Any]]] = {
    "softmax": ("labels", _softmax_answer),
    "svm": ("labels", _svm_answer),
    "mse": ("targets", _mse_answer),
    "bce": ("flags", _bce_answer),
}


def _loss(name: str) -> Problem:
    targets, answer_of = _LOSSES[name]

    def arguments(backend: Backend, host: Host) -> Arguments:
        return tuple(upload(backend, host, "x", targets)), {}

    def answer(host: Host, columns: np.ndarray) -> Host:
        losses, gradient = answer_of(*double(host, "x"), host)
        return {"loss": np.asarray(losses.mean()), "dscores": gradient[..., columns] / len(gradient)}

    return Problem(F.LOSSES[name].function, arguments, answer, "GB/s", lambda d, n: 8 * n * d)


def _weighted_loss() -> Problem:
    def arguments(backend: Backend, host: Host) -> Arguments:
        return tuple(upload(backend, host, "x", "labels", "weights")), {}

    def answer(host: Host, columns: np.ndarray) -> Host:
        losses, gradient = _softmax_answer(*double(host, "x"), host)
        weights = host["weights"].astype(np.float64)
        gradient = gradient * weights[:, None] / len(gradient)
        return {"loss": np.asarray((losses * weights).mean()), "dscores": gradient[..., columns]}

    return Problem(F.weighted_loss, arguments, answer, "GB/s", lambda d, n: 8 * n * d)  # type: ignore[arg-type]


def _smooth_labels() -> Problem:
    def arguments(backend: Backend, host: Host) -> Arguments:
        (labels,) = upload(backend, host, "labels")
        return (labels, host["x"].shape[1], 0.1, np.dtype("float32")), {}

    def answer(host: Host, columns: np.ndarray) -> Host:
        classes = host["x"].shape[1]
        return {"targets": (np.eye(classes)[host["labels"]] * 0.9 + 0.1 / classes)[..., columns]}

    return Problem(F.smooth_labels, arguments, answer, "GB/s", lambda d, n: 4 * n * d)  # type: ignore[arg-type]


#: The first step from w = 0 at a rate of 1 with the default constants: where each rule goes by a gradient.
_FIRST: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sgd": lambda g: -g,
    "momentum": lambda g: -g,
    "nesterov": lambda g: -1.9 * g,
    "adagrad": lambda g: -g / (abs(g) + 1e-8),
    "rmsprop": lambda g: -g / (0.1 * abs(g) + 1e-8),
    "adam": lambda g: -g / (abs(g) + 1e-8),
    "lion": lambda g: -np.sign(g),
}


def _flat(backend: Backend, host: Host) -> Any:
    """Return the gradient of a matrix of the network (D, D), flat."""
    return backend.asarray(host["w"].ravel())


def _scratch(backend: Backend, size: int) -> Any:
    return backend.xp.empty(min(backend.block_size or size, size), dtype="float32")


def _number(backend: Backend, value: float, dtype: str) -> Any:
    return backend.asarray(np.array([value], dtype))


def _rule(name: str) -> Problem:
    rule = RULES[name]

    def arguments(backend: Backend, host: Host) -> Arguments:
        dw = _flat(backend, host)
        state = [backend.xp.zeros(dw.shape, dtype="float32") for _ in ("w", *rule.moments)]
        counter = [_number(backend, 0, "int64")] if rule.counts else []
        work = _scratch(backend, dw.size)
        return (state[0], dw, *state[1:], *counter, _number(backend, 1, "float64")), {"work": work}

    def answer(host: Host, columns: np.ndarray) -> Host:
        return {"w": _FIRST[name](host["w"].ravel().astype(np.float64))}

    starts = dict.fromkeys(("w", *rule.moments), 0.0)
    moved = 3 + 2 * len(rule.moments)  # w and the moments in and out, the gradient in
    return Problem(rule.update, arguments, answer, "GB/s", lambda d, n: 4 * moved * d * d, starts)  # type: ignore[arg-type]


def _decay() -> Problem:
    def arguments(backend: Backend, host: Host) -> Arguments:
        w = _flat(backend, host)
        return (w, _number(backend, 0.5, "float64"), 0.25), {"work": _scratch(backend, w.size)}

    def answer(host: Host, columns: np.ndarray) -> Host:
        return {"w": np.full(host["w"].size, 1 - 0.125)}

    return Problem(limits.decay_weights, arguments, answer, "GB/s", lambda d, n: 8 * d * d, {"w": 1.0})


TRAINING: dict[str, Problem] = {
    **_hidden("bias"),
    **_hidden("bias", "tanh"),
    **_hidden("bias", "gelu"),
    **_hidden("batchnorm"),
    **_hidden("batchnorm", "tanh"),
    **_hidden("batchnorm", "gelu"),
    **_hidden("layernorm"),
    **_hidden("layernorm", "gelu"),
    **{f"{name}_loss": _loss(name) for name in _LOSSES},
    "weighted_loss": _weighted_loss(),
    "smooth_labels": _smooth_labels(),
    **{name: _rule(name) for name in _FIRST},
    "decay_weights": _decay(),
}
